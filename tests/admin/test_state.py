"""The current state over the API."""

from __future__ import annotations

from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import ON, MaintenanceState

from ..support.servers import RedisServer
from .conftest import Administer


async def test_state_reports_switch_and_holds(administer: Administer, url: str) -> None:
    client, backend = administer(url), backend_from_url(url)
    await backend.write(MaintenanceState(enabled=True, reason="OPS-417"))
    await backend.acquire(
        Hold("a", MaintenanceState(enabled=True, reason="migration", by="host:1")), 30.0
    )
    state = client.get("state").json()

    assert (state["enabled"], state["decided_by"], state["switch"]["reason"]) == (
        True,
        "hold",
        "OPS-417",
    )
    assert (state["state"]["reason"], state["backend"]["kind"], state["retry_after"]) == (
        "migration",
        backend.kind,
        60,
    )
    (hold,) = client.get("holds").json()
    assert (hold["id"], hold["by"], hold["reason"], hold["lifts"]) == (
        "a",
        "host:1",
        "migration",
        [],
    )
    assert 0 < hold["lease"] <= 30


def test_state_reports_the_time_to_live(
    administer: Administer, redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance", "1", "EX", "600")
    state = administer(redis_url).get("state").json()

    assert 500 < state["switch"]["expires_in"] <= 600
    assert state["changes_at"] == state["state"]["ends_at"]


def test_unreadable_holds_are_null(
    administer: Administer, redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "{maintenance}:holds", "garbage")
    client = administer(redis_url)

    assert client.get("holds").json() is None
    assert client.get("state").json()["enabled"] is None


async def test_component_is_reported_with_its_hold(administer: Administer, redis_url: str) -> None:
    client, backend = administer(redis_url), backend_from_url(redis_url)
    assert client.get("components").json() == [
        {
            "name": "billing",
            "enabled": False,
            "decided_by": "general switch",
            "has_own_switch": False,
        }
    ]
    await backend.acquire(Hold("a", ON, component="billing"), 30.0)
    assert client.get("components").json() == [
        {"name": "billing", "enabled": True, "decided_by": "hold", "has_own_switch": False}
    ]
    assert (
        client.get("state?component=billing").json()["enabled"],
        client.get("state").json()["enabled"],
    ) == (True, False)
