from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends import LocalFileBackend, backend_from_url
from fastapi_maintenance.exemptions.bypass import SECRET_VARIABLE, Bypass
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import ON, BypassRecord

from ..support.asgi import http_scope
from ..support.servers import RedisServer
from .conftest import Cli

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _with_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)


def switch_at(url: str) -> MaintenanceState:
    switch = asyncio.run(backend_from_url(url).read()).switch
    assert switch is not None
    return switch


def test_create_prints_a_token_and_a_link_that_the_workers_take(cli: Cli, url: str) -> None:
    cli("on", "--backend", url, "--reason", "OPS-417")
    made = cli(
        "bypass",
        "create",
        "--backend",
        url,
        "--for",
        "2h",
        "--note",
        "ana",
        "--url",
        "https://shop.example/x?y=1",
    )
    assert (made.code, made.err) == (0, "")
    printed = dict(line.split(": ", 1) for line in made.lines)
    assert printed["link"] == f"https://shop.example/x?y=1&maintenance_bypass={printed['token']}"
    switch = switch_at(url)
    assert switch.reason == "OPS-417"
    assert [(record.id, record.note) for record in switch.bypass or ()] == [(printed["id"], "ana")]
    scope = http_scope(headers={"X-Maintenance-Bypass": printed["token"]})
    assert Bypass(SECRET).admits(scope, switch.bypass or (), datetime.now(UTC))
    assert "bypass: 1, as 'bypass list' shows" in cli("status", "--backend", url).lines


def test_bypass_list_has_valid_ones_and_create_drops_the_rest(cli: Cli, url: str) -> None:
    over = BypassRecord(id="over", until=datetime(2020, 1, 1, tzinfo=UTC))
    holding = BypassRecord(id="holding", until=datetime.now(UTC) + timedelta(hours=1), note="e\nva")
    asyncio.run(backend_from_url(url).write(MaintenanceState(enabled=True, bypass=(over, holding))))
    (line,) = cli("bypass", "list", "--backend", url).lines
    assert line.startswith("holding until ")
    assert line.endswith(" e\\nva")
    assert [record["id"] for record in cli("bypass", "list", "--backend", url, "--json").json] == [
        "holding"
    ]
    made = cli("bypass", "create", "--backend", url, "--json").json
    assert [record.id for record in switch_at(url).bypass or ()] == ["holding", made["id"]]


def test_revoke_takes_those_named_and_no_others(cli: Cli, url: str) -> None:
    cli("on", "--backend", url)
    first, second, third = (
        cli("bypass", "create", "--backend", url, "--json").json["id"] for _ in range(3)
    )
    assert cli("bypass", "revoke", "--backend", url, first, third).code == 0
    assert [record.id for record in switch_at(url).bypass or ()] == [second]
    unknown = cli("bypass", "revoke", "--backend", url, first)
    assert (unknown.code, f"Unknown bypass '{first}'" in unknown.err) == (1, True)
    assert cli("bypass", "revoke", "--backend", url, "--all").code == 0
    assert switch_at(url).bypass is None
    assert cli("bypass", "list", "--backend", url).out == ""


@pytest.mark.parametrize("arguments", [[], ["a", "--all"]])
def test_revoke_is_told_which_or_all(cli: Cli, url: str, arguments: list[str]) -> None:
    assert cli("bypass", "revoke", "--backend", url, *arguments).code == 2


def test_where_the_switch_is_off_there_is_nothing_to_bypass(cli: Cli, url: str) -> None:
    made = cli("bypass", "create", "--backend", url)
    assert (made.code, made.out) == (1, "")
    assert "The switch is off. Run 'on' first." in made.err


def test_bypass_of_a_component_without_a_switch_is_refused(cli: Cli, url: str) -> None:
    cli("on", "--backend", url)
    made = cli("bypass", "create", "--component", "billing", "--backend", url)
    assert (made.code, made.out) == (1, "")
    assert "billing has no switch of its own. Run 'on --component billing' first" in made.err
    assert switch_at(url).bypass is None


def test_there_are_at_most_a_hundred(cli: Cli, url: str) -> None:
    records = [
        BypassRecord(id=str(number), until=datetime.now(UTC) + timedelta(hours=1))
        for number in range(100)
    ]
    asyncio.run(backend_from_url(url).write(MaintenanceState(enabled=True, bypass=tuple(records))))
    made = cli("bypass", "create", "--backend", url)
    assert (made.code, "at most 100 bypasses" in made.err) == (1, True)


def test_a_length_beyond_the_calendar_is_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(self: LocalFileBackend) -> Snapshot:
        return Snapshot(ON, now=datetime(9999, 12, 31, tzinfo=UTC).timestamp())

    monkeypatch.setattr(LocalFileBackend, "read", read)
    made = cli("bypass", "create", "--backend", f"file:{tmp_path}/switch.json", "--for", "9d")
    assert (made.code, "before the year 10000" in made.err) == (1, True)


def test_who_keeps_losing_the_race_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[MaintenanceState] = []

    async def compare_and_set(
        self: LocalFileBackend, expected: Snapshot, state: MaintenanceState, **options: Any
    ) -> bool:
        attempts.append(state)
        return False

    url = f"file:{tmp_path}/switch.json"
    cli("on", "--backend", url)
    monkeypatch.setattr(LocalFileBackend, "compare_and_set", compare_and_set)
    made = cli("bypass", "create", "--backend", url)
    assert (made.code, made.out, "The switch changed during every attempt" in made.err) == (
        1,
        "",
        True,
    )
    assert len(attempts) == 5


def test_under_a_hold_it_is_said_that_nobody_bypasses_it(
    cli: Cli, url: str, take_hold: Callable[..., Hold]
) -> None:
    cli("on", "--backend", url)
    take_hold(url, "migration")
    made = cli("bypass", "create", "--backend", url)
    assert (made.code, "A hold is active, and no token passes it" in made.err) == (0, True)


def test_a_switch_that_cannot_be_read_is_left_alone(
    cli: Cli, redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance", "garbage")
    for command in (["list"], ["create"], ["revoke", "--all"]):
        ran = cli("bypass", command[0], "--backend", redis_url, *command[1:])
        assert (ran.code, "Cannot list the bypasses" in ran.err) == (1, True)
    assert redis_server.cli("GET", "maintenance") == "garbage"


def test_a_wrong_length_and_a_missing_secret_are_wrong_usage(
    cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("bypass", "create", "--backend", url, "--for", "soon").code == 2
    monkeypatch.delenv(SECRET_VARIABLE)
    made = cli("bypass", "create", "--backend", url)
    assert (made.code, SECRET_VARIABLE in made.err) == (2, True)
