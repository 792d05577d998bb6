"""A script of another origin reads the answer, in a real browser, whatever the order of the
middlewares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse

from fastapi_maintenance import MaintenanceModeMiddleware

from ..support.serving import serving
from .visit import Visit

FETCH: Final = """
async ([url, options]) => {
  const reply = await fetch(url, options);
  const headers = Object.fromEntries(reply.headers);
  const { "retry-after": retryAfter, "x-maintenance-mode": mode } = headers;
  return { status: reply.status, body: await reply.json(), retryAfter, mode };
}
"""


@pytest.fixture
def origin() -> Iterator[str]:
    """Another origin: a page that has nothing but its scripts."""
    with serving(
        HTMLResponse('<!doctype html><link rel="icon" href="data:,"><title>App</title>')
    ) as server:
        yield f"http://{server}"


@pytest.mark.parametrize("order", ["CORS outside", "CORS inside"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        # With a preflight.
        {
            "method": "PUT",
            "headers": {"Content-Type": "application/json", "X-Token": "1"},
            "body": "{}",
        },
        {
            "method": "PUT",
            "credentials": "include",
            "headers": {"Accept": "application/problem+json"},
        },
    ],
)
def test_cross_origin_fetch_reads_the_whole_503(
    visit: Visit, origin: str, order: str, options: dict[str, Any]
) -> None:
    app = FastAPI()

    @app.api_route("/items", methods=["GET", "PUT", "OPTIONS"])
    async def items() -> None: ...

    cors = (
        CORSMiddleware,
        {
            "allow_origins": [origin],
            "allow_methods": ["*"],
            "allow_headers": ["*"],
            "allow_credentials": True,
        },
    )
    ours = (MaintenanceModeMiddleware, {"enable_maintenance": True})
    for middleware, its in (ours, cors) if order == "CORS outside" else (cors, ours):
        app.add_middleware(middleware, **its)

    with serving(app) as server:
        page = visit.to(origin)
        seen = page.evaluate(FETCH, [f"http://{server}/items", options])

    assert seen["status"] == 503
    assert seen["body"]["detail"] == "Service temporarily unavailable due to maintenance"
    assert (seen["retryAfter"], seen["mode"]) == ("3600", "full")


def test_cross_origin_fetch_without_cors_fails(visit: Visit, origin: str) -> None:
    """So that the tests above could."""
    app = FastAPI()
    app.add_api_route("/items", lambda: None)
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)

    with serving(app) as server:
        page = visit.to(origin)
        failed = page.evaluate(
            f"async (args) => ({FETCH})(args).catch(error => error.name)",
            [f"http://{server}/items", {}],
        )

    assert failed == "TypeError"
    assert [complaint for complaint in visit.complaints if "CORS policy" in complaint]
    visit.complaints.clear()
