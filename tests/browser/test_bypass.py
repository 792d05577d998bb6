"""A tester opens the link in a real browser, and from then on sees the application."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from fastapi_maintenance import MaintenanceModeMiddleware, MaintenanceState
from fastapi_maintenance.exemptions.bypass import PARAMETER, Bypass, link_to

from ..support.serving import serving
from .visit import Visit

PAGE: Final = (
    '<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>The '
    'shop</title><a href="/shop?page=2">more</a>'
)


def test_link_lets_only_browsers_in_that_opened_it(
    visit: Visit, switch: Callable[[str], None]
) -> None:
    bypass = Bypass("0123456789abcdef0123456789abcdef")
    token, record = bypass.issue(datetime.now(UTC) + timedelta(hours=1))
    switch(MaintenanceState(enabled=True, bypass=(record,)).dump())
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, bypass=bypass)
    app.add_api_route("/shop", lambda: PAGE, response_class=HTMLResponse)

    with serving(app) as server:
        shop = f"http://{server}/shop"
        tester = visit.to(link_to(f"{shop}?page=1", token))
        assert (tester.title(), tester.url) == ("The shop", f"{shop}?page=1")
        (cookie,) = tester.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
            PARAMETER,
            True,
            True,
            "Lax",
        )
        assert tester.evaluate("document.cookie") == ""
        tester.click("text=more")
        tester.wait_for_url(f"{shop}?page=2")
        assert tester.title() == "The shop"
        assert token not in tester.evaluate("document.referrer")
        assert visit.to(shop).title() != "The shop", "others stay outside"
