"""Testers are let in over the API."""

from __future__ import annotations

import pytest

from fastapi_maintenance.bypass import HEADER, Bypass

from .conftest import ANY, SHOP, Administer


@pytest.fixture
def bypass() -> Bypass:
    return Bypass("0123456789abcdef0123456789abcdef", secure=False)


def test_a_tester_gets_through_until_revoked(administer: Administer, url: str, bypass: Bypass) -> None:
    client = administer(url, bypass=bypass)
    client.put("switch", json={"enabled": True}, headers=ANY)
    made = client.post("bypasses", json={"lasting": 600, "note": "ana"})
    assert (made.status_code, made.json()["note"], made.json()["query"]) == (201, "ana", f"maintenance_bypass={made.json()['token']}")
    (listed,) = client.get("bypasses").json()
    assert listed == {name: made.json()[name] for name in ("id", "until", "note")}

    key = {HEADER: made.json()["token"]}
    assert (client.get(SHOP).status_code, client.get(SHOP, headers=key).status_code) == (503, 200)
    assert client.delete(f"bypasses/{listed['id']}").status_code == 204
    assert client.get(SHOP, headers=key).status_code == 503
    assert client.get("bypasses").json() == []
    assert client.delete(f"bypasses/{listed['id']}").status_code == 404


def test_what_cannot_be_is_said(administer: Administer, url: str, bypass: Bypass) -> None:
    client = administer(url, bypass=bypass)
    off = client.post("bypasses", json={})
    assert (off.status_code, "The switch is off" in off.json()["detail"]) == (409, True)
    for asked in ({"lasting": 0}, {"lasting": 1e12}, {"lasting": "long"}, {"note": "x" * 201}):
        assert client.post("bypasses", json=asked).status_code == 422


def test_without_a_secret_there_are_none_to_make(administer: Administer, url: str) -> None:
    client = administer(url)
    client.put("switch", json={"enabled": True}, headers=ANY)
    answer = client.post("bypasses", json={})
    assert (answer.status_code, "bypass=Bypass()" in answer.json()["detail"]) == (501, True)
    assert client.get("bypasses").json() == []
