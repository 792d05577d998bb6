"""`history`: what has happened, for people, for pipes and for programs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from fastapi_maintenance.backends import EnvVarBackend, RedisBackend
from fastapi_maintenance.cli import console as showing
from fastapi_maintenance.cli import history
from fastapi_maintenance.cli.durations import show_moment
from fastapi_maintenance.cli.options import operator
from fastapi_maintenance.model.history import Change, Kind
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .conftest import Cli
from .program import Program

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


def change(kind: Kind, **details: object) -> Change:
    return Change("1-0", NOW, kind, **details)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (change("set", state=OFF), "set off"),
        (
            change(
                "set",
                state=MaintenanceState(enabled=True, mode="read-only", reason="OPS\n417"),
                by="ana",
                host="web-1",
                pid=7,
            ),
            "set on read-only, by: ana, at: web-1:7, reason: OPS\\n417",
        ),
        (
            change("set", state=MaintenanceState(enabled=True, ends_at=LATER)),
            f"set on until {show_moment(LATER)}",
        ),
        (
            change("set", state=MaintenanceState(enabled=True, starts_at=LATER)),
            f"set on from {show_moment(LATER)}",
        ),
        (
            change("taken", state=ON, hold="h", component="billing"),
            "hold taken: on, component: billing",
        ),
        (change("noticed", error="no \x1bword"), "noticed unknown, error: no \\x1bword"),
        (change("lost"), "lost"),
    ],
)
def test_a_change_is_one_line(entry: Change, line: str) -> None:
    assert history._line(entry) == f"{show_moment(NOW)} {line}"


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=140)
    monkeypatch.setattr(showing, "terminal", lambda: console)
    changes = (
        change("set", state=ON, by="ana", host="web-1", pid=7),
        change("noticed", error="wrong type"),
    )

    class Recorded(EnvVarBackend):
        async def history(self, **options: object) -> tuple[Change, ...]:
            return changes

    history.show_history(Recorded(), 10, None, follow=False, as_json=False)

    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert all(
        word in text
        for word in (show_moment(NOW), "set", "on", "ana", "web-1:7", "noticed", "wrong type", "┃")
    )


@pytest.mark.as_worker
def test_what_commands_do_is_in_it_with_whoever_ran_them(
    cli: Cli, redis_url: str, redis_server: RedisServer, take_hold: Callable[..., Hold]
) -> None:
    at = ("--backend", redis_url)
    cli("on", "--reason", "OPS-417", "--by", "ana", *at)
    redis_server.cli("SET", "maintenance", "1")
    cli("off", *at)
    take_hold(redis_url, "a")
    cli("off", "--force", *at)

    entries = cli("history", "--json", *at).json
    lines = cli("history", "--limit", "2", *at).lines

    assert [(entry["kind"], entry["by"]) for entry in entries] == [
        ("set", "ana"),
        ("noticed", None),
        ("set", operator()),
        ("taken", None),
        ("cleared", operator()),
    ]
    assert (entries[0]["state"]["reason"], entries[0]["pid"]) == ("OPS-417", os.getpid())
    assert [line.split()[2] for line in lines] == ["hold", "cleared"]


def test_a_scope_can_be_asked_for_alone(cli: Cli, redis_url: str) -> None:
    at = ("--backend", redis_url)
    cli("on", *at)
    cli("on", "--component", "billing", *at)

    assert [
        entry["component"] for entry in cli("history", "--json", "--component", "billing", *at).json
    ] == ["billing"]


def test_nothing_has_happened_yet(cli: Cli, redis_url: str) -> None:
    assert cli("history", "--backend", redis_url).out == ""
    assert cli("history", "--json", "--backend", redis_url).json == []


@pytest.mark.parametrize("option", [(), ("--follow",)])
def test_a_backend_without_a_history_says_so(cli: Cli, option: tuple[str, ...]) -> None:
    ran = cli("history", *option, "--backend", "env:MAINTENANCE")

    assert ran.code == 1
    assert "keeps no history; only Redis does" in ran.err


def test_changes_are_followed_until_interrupted(cli: Cli, redis_url: str) -> None:
    at = ("--backend", redis_url)
    cli("on", "--reason", "before", *at)
    with Program("history", "--follow", *at) as program:
        program.until("before")
        cli("on", "--reason", "meanwhile", *at)
        program.until("meanwhile")
        program.signal(signal.SIGINT)
        ran = program.ended()

    assert (ran.code, len(ran.lines), ran.err) == (0, 2, "")


def test_history_followed_as_json_has_one_line_for_a_change(cli: Cli, redis_url: str) -> None:
    at = ("--backend", redis_url)
    with Program("history", "--follow", "--json", "--component", "billing", *at) as program:
        cli("on", *at)
        cli("on", "--component", "billing", *at)
        program.until("billing")
        program.signal(signal.SIGTERM)
        (line,) = program.ended().lines

    assert json.loads(line)["component"] == "billing"


def test_a_pipe_that_nobody_reads_ends_it(redis_url: str) -> None:
    with Program("history", "--follow", "--backend", redis_url) as program:
        program.close()
        assert program.ended().code == 0


# -- the same in this process, where every line is seen --------------------------------------------


class Reader:
    """Takes so many changes, and goes."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.told: list[MaintenanceState | None] = []

    def __call__(self, entry: Change) -> bool:
        self.told.append(entry.state)
        return len(self.told) < self.patience


@pytest.mark.parametrize("patience", [1, 2])
async def test_it_ends_with_whoever_reads_it(redis_url: str, patience: int) -> None:
    """Be that while it tells what was, or what comes."""
    backend, reader = RedisBackend(redis_url), Reader(patience)
    await backend.write(ON)
    following = asyncio.create_task(history._follow(backend, 10, None, reader))
    await eventually(lambda: reader.told, within=30)
    await backend.write_component("billing", ON)
    await asyncio.wait_for(following, 10)

    assert reader.told == [ON] * patience


async def test_followed_component_shows_no_other(redis_url: str) -> None:
    backend, reader = RedisBackend(redis_url), Reader(2)
    first, second = (MaintenanceState(enabled=True, reason=reason) for reason in ("one", "two"))
    await backend.write(OFF)
    await backend.write_component("billing", first)

    following = asyncio.create_task(history._follow(backend, 10, "billing", reader))
    await eventually(lambda: reader.told, within=30)
    await backend.write(ON)
    await backend.write_component("billing", second)
    await asyncio.wait_for(following, 10)

    assert reader.told == [first, second]


async def test_it_ends_when_the_pipe_is_closed_while_nothing_happens(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = iter([False, False, True])
    monkeypatch.setattr(history, "stdout_closed", lambda: next(closed))

    await asyncio.wait_for(history._follow(RedisBackend(redis_url), 10, None, Reader(1)), 10)


@pytest.mark.parametrize("as_json", [True, False])
def test_followed_change_is_one_line_of_text_or_of_json(
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    backend = RedisBackend(redis_url)
    asyncio.run(backend.write(MaintenanceState(enabled=True, reason="OPS-1")))
    printed: list[str] = []

    def reader_is_gone() -> bool:
        printed.append(capsys.readouterr().out)
        return bool("".join(printed))

    monkeypatch.setattr(history, "stdout_closed", reader_is_gone)
    history.show_history(backend, 10, None, follow=True, as_json=as_json)

    (line,) = "".join(printed).splitlines()
    (change,) = asyncio.run(backend.history())
    if as_json:
        assert json.loads(line) == change.to_json()
    else:
        assert line == history._line(change)
