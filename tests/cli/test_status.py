from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend
from fastapi_maintenance.backends.status import StatusReport
from fastapi_maintenance.cli import console as show
from fastapi_maintenance.cli import watch
from fastapi_maintenance.cli.durations import show_moment
from fastapi_maintenance.cli.watch import Observation, View, follow, lines, screen
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON

from .conftest import Cli

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def sight(
    switch: MaintenanceState | None, *, age: float | None = 0.25, **reading: object
) -> Observation:
    read = replace(Snapshot(switch, now=NOW.timestamp()), **reading)  # type: ignore[arg-type]
    return Observation(StatusReport("redis://host", "redis", read, NOW.timestamp()), "redis", age)


class Eyes:
    """A viewer that looks on, does something, and goes after some looks."""

    def __init__(self, looks: int, act: Callable[[], None] = lambda: None) -> None:
        self.left = looks
        self.act = act
        self.seen: list[Observation] = []

    def __call__(self, seen: Observation) -> bool:
        self.seen.append(seen)
        self.act()
        self.left -= 1
        return self.left > 0


# -- lines -----------------------------------------------------------------------------------------


def test_one_line_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    tell = lines(as_json=False)
    for seen in (sight(OFF), sight(OFF, age=0.5), sight(ON), sight(ON), sight(OFF)):
        assert tell(seen)
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
        "off",
        "on,",
        "off",
    ]


def test_a_line_says_what_a_person_wants_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    state = MaintenanceState(
        enabled=True,
        mode="read-only",
        by="ana",
        reason="OPS\n417",
        message="not shown",
        ends_at=LATER,
    )
    lines(as_json=False)(sight(state, holds=(Hold("a", state),)))
    assert capsys.readouterr().out == (
        f"{show_moment(NOW)} on, read-only, by: ana, reason: OPS\\n417, until "
        f"{show_moment(LATER)}, 1 hold [redis, 0.2 s old]\n"
    )


def test_a_line_announces_a_window_and_counts_holds(capsys: pytest.CaptureFixture[str]) -> None:
    window = MaintenanceState(enabled=True, starts_at=LATER)
    lines(as_json=False)(sight(window, holds=(Hold("a", OFF), Hold("b", OFF))))
    assert (
        capsys.readouterr().out
        == f"{show_moment(NOW)} off, coming: {show_moment(LATER)}, 2 holds [redis, 0.2 s old]\n"
    )


def test_a_line_says_why_nothing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    lines(as_json=False)(sight(None, age=None, error="no \x1broute"))
    assert (
        capsys.readouterr().out
        == f"{show_moment(NOW)} unknown, error: no \\x1broute [redis, never confirmed]\n"
    )


def test_a_change_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    tell = lines(as_json=True)
    assert tell(sight(ON))
    assert tell(sight(OFF))
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["enabled"], second["enabled"]) == (True, False)
    assert first == sight(ON).to_json()


@pytest.mark.parametrize(("said", "abandoned"), [(False, False), (True, True)])
def test_nobody_is_left_to_look_when_the_pipe_is_closed(
    said: bool, abandoned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out by writing, and also while there is nothing to write."""
    monkeypatch.setattr(watch, "echo", lambda line: said)
    monkeypatch.setattr(watch, "stdout_closed", lambda: abandoned)
    assert not lines(as_json=False)(sight(ON))


# -- a screen --------------------------------------------------------------------------------------


def test_screen_shows_the_state_below_the_changes() -> None:
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=100)
    with screen(console) as draw:
        for seen in (
            sight(OFF),
            sight(OFF, age=0.5),
            sight(MaintenanceState(enabled=True, reason="OPS-417"), age=0.1),
        ):
            assert draw(seen)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert text.count(f"{show_moment(NOW)} off") == 1
    assert text.count(f"{show_moment(NOW)} on, full, reason: OPS-417") == 1
    assert "redis, 0.5 s old · Ctrl-C ends" in text
    assert text.rindex("● Maintenance is on") > text.rindex("● Maintenance is off")
    assert text.endswith("\x1b[?25h"), "the cursor must come back"


# -- following -------------------------------------------------------------------------------------


async def test_following_ends_when_nobody_looks_any_more() -> None:
    eyes = Eyes(2)
    await follow(EnvVarBackend("CLOSED"), eyes)
    assert len(eyes.seen) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_following_ends_in_order_when_interrupted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    eyes = Eyes(100, lambda: os.kill(os.getpid(), number))
    await follow(EnvVarBackend("CLOSED"), eyes)
    assert len(eyes.seen) < 5
    assert signal.getsignal(number) in (before, signal.default_int_handler, signal.SIG_DFL)


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def viewers(monkeypatch: pytest.MonkeyPatch) -> list[View]:
    """The viewers that `watch` chose, without following anything."""
    chosen: list[View] = []

    async def choose(backend: BaseStateBackend, viewer: View) -> None:
        chosen.append(viewer)

    monkeypatch.setattr(watch, "follow", choose)
    return chosen


def named(viewers: list[View]) -> list[str]:
    return [viewer.__qualname__.partition(".")[0] for viewer in viewers]


def on_terminal(monkeypatch: pytest.MonkeyPatch, term: str = "xterm") -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(watch, "terminal", lambda: Console(file=StringIO(), force_terminal=True))


def test_a_pipe_gets_lines(cli: Cli, viewers: list[View]) -> None:
    assert cli("watch", "--backend", "file:switch.json").code == 0
    assert named(viewers) == ["lines"]


def test_watch_on_a_dumb_terminal_or_as_json_prints_lines(
    cli: Cli, viewers: list[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    assert cli("watch", "--backend", "file:switch.json").code == 0
    assert cli("watch", "--backend", "file:switch.json", "--json").code == 0
    on_terminal(monkeypatch, "dumb")
    assert cli("watch", "--backend", "file:switch.json").code == 0
    assert named(viewers) == ["screen", "lines", "lines"]


def test_watch_of_an_environment_variable_says_it_is_static(cli: Cli, viewers: list[View]) -> None:
    ran = cli("watch", "--backend", "env:CLOSED")
    assert (ran.code, ran.err) == (
        0,
        (
            "env:CLOSED is read from this process' own environment, which no other process can "
            "change.\n"
        ),
    )


def test_a_backend_that_cannot_be_meant_is_not_watched(cli: Cli, viewers: list[View]) -> None:
    ran = cli("watch", "--backend", "memcached")
    assert (ran.code, viewers) == (2, [])


def test_a_terminal_gets_tables_of_the_status(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(show, "terminal", lambda: console)
    assert cli("status", "--backend", "file:switch.json").out == ""
    assert isinstance(console.file, StringIO)
    assert "● Maintenance is off" in console.file.getvalue()
