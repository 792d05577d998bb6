"""The history over the API."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import Header

from fastapi_maintenance.admin.events import read_dashboard
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..support.doubles import Switchboard
from ..support.servers import RedisServer
from ..support.waiting import eventually_sync
from .conftest import ANY, Administer


def operator(x_user: Annotated[str, Header()] = "nobody") -> str:
    return x_user


def test_history_names_the_author_of_every_change(
    administer: Administer, redis_url: str, redis_server: RedisServer
) -> None:
    client = administer(redis_url, operator=operator)
    client.put(
        "switch", json={"enabled": True, "reason": "OPS-417"}, headers=ANY | {"X-User": "ana"}
    )
    client.delete("switch", headers=ANY | {"X-User": "bob"})
    client.put("switch?component=billing", json={"enabled": True}, headers=ANY | {"X-User": "eve"})
    newest, middle, oldest = client.get("history").json()

    assert [(one["kind"], one["by"], one["component"]) for one in (oldest, middle, newest)] == [
        ("set", "ana", None),
        ("set", "bob", None),
        ("set", "eve", "billing"),
    ]
    assert oldest["state"]["reason"] == "OPS-417"
    assert [one["by"] for one in client.get("history?component=billing").json()] == ["eve"]
    assert [one["by"] for one in client.get("history?limit=1").json()] == ["eve"]
    redis_server.cli("SET", "maintenance", "1")
    eventually_sync(lambda: client.get("history").json()[0]["kind"] == "noticed", within=30)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=many"])
def test_history_limit_out_of_range_is_422(
    administer: Administer, redis_url: str, query: str
) -> None:
    assert administer(redis_url).get(f"history?{query}").status_code == 422


def test_history_of_a_backend_without_one_is_501(administer: Administer) -> None:
    answer = administer(Switchboard()).get("history")
    assert (answer.status_code, "keeps no history" in answer.json()["detail"]) == (501, True)


async def test_dashboard_with_unreadable_history_shows_the_rest(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with MaintenanceMode(RedisBackend(redis_url)) as mode:
        assert (await read_dashboard(mode)).history == []
        redis_server.cli("SET", "{maintenance}:history", "garbage")
        dashboard = await read_dashboard(mode)
    assert (dashboard.history, dashboard.last_error) == (None, None)
    assert dashboard.state.enabled is False
