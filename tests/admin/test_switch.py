"""The switch over the API: conditional, atomic and attributed."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import Header
from starlette.testclient import TestClient

from fastapi_maintenance.backends import LocalFileBackend, backend_from_url
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import ON, MaintenanceState

from ..support.doubles import Switchboard
from ..support.servers import RedisServer
from .conftest import ANY, BILLING, SHOP, Administer


def tag(client: TestClient, path: str = "switch") -> dict[str, str]:
    return {"If-Match": client.get(path).headers["etag"]}


def test_put_closes_and_delete_opens_the_service(administer: Administer, url: str) -> None:
    client = administer(url)
    on = client.put(
        "switch",
        json={"enabled": True, "reason": "OPS-417", "message": "Back soon"},
        headers=tag(client),
    )
    assert (on.status_code, on.json()["enabled"], on.json()["state"]["reason"]) == (
        200,
        True,
        "OPS-417",
    )
    assert on.json()["state"]["since"] is not None
    assert client.get(SHOP).json() == {"detail": "Back soon"}
    off = client.delete("switch", headers={"If-Match": on.headers["etag"]})
    assert (off.status_code, off.json()["enabled"]) == (200, False)
    assert client.get(SHOP).status_code == 200


@pytest.mark.parametrize(
    "body", ["Infinity", "NaN", '{"enabled": Infinity}', '{"retry_after": NaN}']
)
def test_body_with_a_number_beyond_json_is_422(administer: Administer, url: str, body: str) -> None:
    """FastAPI repeats the input in its 422, and fails with a 500 where it is no JSON."""
    answer = administer(url).put(
        "switch", content=body, headers={"If-Match": "*", "Content-Type": "application/json"}
    )
    assert answer.status_code == 422


def test_switch_from_get_can_be_put_back(administer: Administer, url: str) -> None:
    client = administer(url)
    window = {
        "starts_at": "2126-11-22T03:00:00Z",
        "ends_at": "2126-11-22T04:00:00Z",
        "allow": ["POST /login"],
    }
    client.put(
        "switch",
        json={"enabled": True, "mode": "read-only", "retry_after": 60, **window},
        headers=ANY,
    )
    got = client.get("switch")
    again = client.put("switch", json=got.json(), headers={"If-Match": got.headers["etag"]})
    assert again.status_code == 200
    assert client.get("switch").json() == got.json()
    assert again.json()["upcoming"] == {
        "starts_at": "2126-11-22T03:00:00Z",
        "ends_at": "2126-11-22T04:00:00Z",
    }


def test_stale_etag_is_412_with_the_current_one(administer: Administer, url: str) -> None:
    client = administer(url)
    seen = tag(client)
    assert (
        client.put("switch", json={"enabled": True, "reason": "hers"}, headers=seen).status_code
        == 200
    )
    for late in (
        client.put("switch", json={"enabled": True, "reason": "his"}, headers=seen),
        client.delete("switch", headers=seen),
    ):
        assert (late.status_code, "has changed since" in late.json()["detail"]) == (412, True)
        assert late.headers["etag"] == client.get("switch").headers["etag"]
    assert client.get("switch").json()["reason"] == "hers"


def test_etag_goes_stale_by_a_bare_set(
    administer: Administer, redis_url: str, redis_server: RedisServer
) -> None:
    client = administer(redis_url)
    seen = tag(client)
    redis_server.cli("SET", "maintenance", "1")
    assert client.delete("switch", headers=seen).status_code == 412
    assert redis_server.cli("GET", "maintenance") == "1"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_missing_if_match_is_428(administer: Administer, url: str, method: str) -> None:
    client = administer(url)
    answer = client.request(method, "switch", json={"enabled": True})
    assert (answer.status_code, "If-Match" in answer.json()["detail"]) == (428, True)
    assert client.get("switch").json()["enabled"] is False


def test_concurrent_writes_between_read_and_write_are_412(
    administer: Administer, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes between each read and write."""
    backend = LocalFileBackend(f"{tmp_path}/switch.json")
    read, writes = LocalFileBackend.read, iter(range(1000))

    async def read_then_be_overtaken(self: LocalFileBackend) -> Snapshot:
        reading = await read(self)
        await self.write(MaintenanceState(enabled=True, reason=str(next(writes))))
        return reading

    client = administer(backend)
    monkeypatch.setattr(LocalFileBackend, "read", read_then_be_overtaken)
    answer = client.delete("switch", headers=ANY)
    assert (answer.status_code, "keeps changing" in answer.json()["detail"]) == (412, True)


async def test_delete_with_end_holds_ends_every_hold(administer: Administer, url: str) -> None:
    client, backend = administer(url), backend_from_url(url)
    hold = await backend.acquire(Hold("a", ON), 30.0)
    first = client.delete("switch", headers=ANY)
    assert (first.json()["enabled"], first.json()["decided_by"], len(first.json()["holds"])) == (
        True,
        "hold",
        1,
    )
    second = client.delete("switch?end_holds=true", headers=tag(client))
    assert (second.json()["enabled"], second.json()["holds"]) == (False, [])
    assert not await backend.renew(hold, 30.0)


def test_component_has_its_own_switch(administer: Administer, redis_url: str) -> None:
    client = administer(redis_url)
    assert client.get("switch?component=billing").json() is None
    on = client.put(
        "switch?component=billing",
        json={"enabled": True},
        headers=tag(client, "switch?component=billing"),
    )
    assert (on.json()["component"], on.json()["enabled"]) == ("billing", True)
    assert (client.get(BILLING).status_code, client.get(SHOP).status_code) == (503, 200)
    assert client.get("components").json() == [
        {"name": "billing", "enabled": True, "decided_by": "switch", "has_own_switch": True}
    ]
    assert client.delete("switch?component=billing&end_holds=true", headers=ANY).status_code == 422
    assert (
        client.delete(
            "switch?component=billing", headers=tag(client, "switch?component=billing")
        ).status_code
        == 200
    )
    assert client.get(BILLING).status_code == 200


def test_unknown_component_is_404(administer: Administer, redis_url: str) -> None:
    client = administer(redis_url)
    for answer in (
        client.get("switch?component=biling"),
        client.put("switch?component=biling", json={"enabled": True}, headers=ANY),
    ):
        assert (answer.status_code, "'biling'" in answer.json()["detail"]) == (404, True)


def test_invalid_switch_value_is_reported_and_replaced(
    administer: Administer, redis_url: str, redis_server: RedisServer
) -> None:
    client = administer(redis_url)
    redis_server.cli("SET", "maintenance", "garbage")
    assert client.get("switch").json() is None
    assert "garbage" in client.get("state").json()["error"]
    assert client.delete("switch", headers=tag(client)).json()["enabled"] is False


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"enabled": True, "minutes": 5}, "extra_forbidden"),
        (
            {
                "enabled": True,
                "starts_at": "2026-11-22T04:00:00Z",
                "ends_at": "2026-11-22T03:00:00Z",
            },
            "later than starts_at",
        ),
        ({"enabled": True, "starts_at": "2026-11-22T04:00:00"}, "timezone"),
        ({"enabled": True, "message": "x" * 70_000}, "at most 65536"),
        ([], "Input should be"),
    ],
)
def test_invalid_state_is_422(administer: Administer, url: str, state: object, says: str) -> None:
    client = administer(url)
    answer = client.put("switch", json=state, headers=ANY)
    assert (answer.status_code, says in answer.text) == (422, True)
    assert client.get("switch").json()["enabled"] is False


def test_operator_is_stored_in_the_switch(administer: Administer, url: str) -> None:
    def operator(x_user: Annotated[str | None, Header()] = None) -> str | None:
        return x_user

    client = administer(url, operator=operator)
    for headers, expected in (
        ({"X-User": "ana"}, "ana"),
        ({"X-User": "a" * 999}, "a" * 200),
        ({}, "bob"),
    ):
        done = client.put("switch", json={"enabled": True, "by": "bob"}, headers=ANY | headers)
        assert done.json()["state"]["by"] == expected


def test_details_on_a_backend_of_two_methods_are_501(administer: Administer) -> None:
    board = Switchboard()
    client = administer(board)
    refused = client.put("switch", json={"enabled": True}, headers=ANY)
    assert (refused.status_code, "only on or off" in refused.json()["detail"]) == (501, True)
    assert client.put("switch", json={"enabled": False}, headers=tag(client)).status_code == 200


def test_environment_variable_is_read_only(administer: Administer) -> None:
    answer = administer("env:UNUSED_HERE").put("switch", json={"enabled": True}, headers=ANY)
    assert (answer.status_code, "cannot be changed from within" in answer.json()["detail"]) == (
        409,
        True,
    )


def test_switch_that_is_off_gets_no_author(administer: Administer, url: str) -> None:
    client = administer(url)
    client.put("switch", json={"enabled": False, "reason": "later"}, headers=ANY)
    got = client.get("switch").json()
    assert (got["reason"], got["by"], got["since"]) == ("later", None, None)


def test_switch_with_invalid_details_names_them(
    administer: Administer, redis_url: str, redis_server: RedisServer
) -> None:
    client = administer(redis_url)
    redis_server.cli("SET", "maintenance", '{"enabled": true, "msg": "x"}')
    assert client.get("switch").json()["enabled"] is True
    report = client.get("state").json()
    assert (report["enabled"], report["switch"]["ignored"]) == (True, ["msg: unknown key"])
