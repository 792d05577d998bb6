"""Bypass tokens over the API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.exemptions.bypass import HEADER, Bypass

from .conftest import ANY, JSON, SHOP, Administer


@pytest.fixture
def bypass() -> Bypass:
    return Bypass("0123456789abcdef0123456789abcdef", secure=False)


def test_token_lets_a_tester_in_until_revoked(
    administer: Administer, url: str, bypass: Bypass
) -> None:
    client = administer(url, bypass=bypass)
    client.put("switch", json={"enabled": True}, headers=ANY)
    made = client.post("bypasses", json={"lasting": 600, "note": "ana"})
    assert (made.status_code, made.json()["note"], made.json()["query"]) == (
        201,
        "ana",
        f"maintenance_bypass={made.json()['token']}",
    )
    (listed,) = client.get("bypasses").json()
    assert listed == {name: made.json()[name] for name in ("id", "until", "note")}

    key = {HEADER: made.json()["token"]}
    assert (client.get(SHOP).status_code, client.get(SHOP, headers=key).status_code) == (503, 200)
    assert client.delete(f"bypasses/{listed['id']}").status_code == 204
    assert client.get(SHOP, headers=key).status_code == 503
    assert client.get("bypasses").json() == []
    assert client.delete(f"bypasses/{listed['id']}").status_code == 404


def test_invalid_token_request_is_refused(administer: Administer, url: str, bypass: Bypass) -> None:
    client = administer(url, bypass=bypass)
    off = client.post("bypasses", json={})
    assert (off.status_code, "The switch is off" in off.json()["detail"]) == (409, True)
    for asked in ({"lasting": 0}, {"lasting": 1e12}, {"lasting": "long"}, {"note": "x" * 201}):
        assert client.post("bypasses", json=asked).status_code == 422


def test_token_without_a_secret_is_501(administer: Administer, url: str) -> None:
    client = administer(url)
    client.put("switch", json={"enabled": True}, headers=ANY)
    answer = client.post("bypasses", json={})
    assert (answer.status_code, "bypass=Bypass()" in answer.json()["detail"]) == (501, True)
    assert client.get("bypasses").json() == []


# -- links -----------------------------------------------------------------------------------------


def administered(url: str, bypass: Bypass, prefix: str = "", **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.add_middleware(MaintenanceModeMiddleware, backend=backend_from_url(url), bypass=bypass)
    app.get("/")(lambda: "open")
    app.include_router(maintenance_admin(public=True), prefix=prefix)
    return app


def mounted(url: str, bypass: Bypass) -> FastAPI:
    outer = FastAPI()
    outer.mount("/shop", administered(url, bypass))
    return outer


def with_the_panel_in_a_mount(url: str, bypass: Bypass) -> FastAPI:
    outer, inner = FastAPI(), FastAPI()
    outer.add_middleware(MaintenanceModeMiddleware, backend=backend_from_url(url), bypass=bypass)
    outer.get("/")(lambda: "open")
    inner.include_router(maintenance_admin(public=True), prefix="/panel")
    outer.mount("/ops", inner)
    return outer


def wrapped(url: str, bypass: Bypass) -> ASGIApp:
    app = FastAPI(root_path="/api")
    app.get("/")(lambda: "open")
    app.include_router(maintenance_admin(public=True))
    return MaintenanceModeMiddleware(app, backend=backend_from_url(url), bypass=bypass)


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize(
    ("make", "panel", "root"),
    [
        (administered, "/maintenance/", "/"),
        (partial(administered, prefix="/v1/ops"), "/v1/ops/maintenance/", "/"),
        (mounted, "/shop/maintenance/", "/shop/"),
        (with_the_panel_in_a_mount, "/ops/panel/maintenance/", "/"),
        (partial(administered, root_path="/api"), "/api/maintenance/", "/api/"),
        (partial(administered, root_path="/api", prefix="/ops"), "/api/ops/maintenance/", "/api/"),
        (wrapped, "/api/maintenance/", "/api/"),
    ],
    ids=[
        "plain",
        "prefix",
        "mount",
        "panel in a mount",
        "root_path",
        "root_path and prefix",
        "root_path within",
    ],
)
@pytest.mark.parametrize("proxy", ["passes on", "strips"])
def test_link_leads_to_the_root_of_the_application(
    url: str,
    bypass: Bypass,
    make: Callable[[str, Bypass], ASGIApp],
    panel: str,
    root: str,
    proxy: str,
) -> None:
    """The proxy strips `root_path` or passes it on; `panel` and `root` are the paths of clients."""
    client = TestClient(make(url, bypass), headers=JSON)

    def seen_within(path: str) -> str:
        return path.removeprefix("/api") if proxy == "strips" else path

    client.put(seen_within(f"{panel}switch"), json={"enabled": True}, headers=ANY)
    made = client.post(seen_within(f"{panel}bypasses"), json={}).json()
    link = urljoin(f"{panel}bypasses", made["link"])

    assert link == f"{root}?{made['query']}"
    assert client.get(seen_within(root)).status_code == 503
    assert client.get(seen_within(link), follow_redirects=False).status_code == 303
