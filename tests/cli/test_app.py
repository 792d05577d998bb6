from __future__ import annotations

import asyncio
import getpass
import json
import os
import runpy
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import anyio
import pytest
from typer.testing import CliRunner

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.__main__ import main
from fastapi_maintenance._internal.version import VERSION
from fastapi_maintenance.backends import LocalFileBackend, backend_from_url
from fastapi_maintenance.cli import demo
from fastapi_maintenance.cli.app import app
from fastapi_maintenance.model.holds import Hold

from ..conftest import RedisServerFactory
from ..support.servers import RedisServer
from ..support.waiting import eventually_sync
from .conftest import Cli

TakeHold = Callable[..., Hold]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# -- on and off ------------------------------------------------------------------------------------


def test_on_and_off_print_what_is_true_afterwards(cli: Cli, url: str) -> None:
    on = cli("on", "--backend", url)
    assert (on.code, on.err, on.lines[0]) == (0, "", "maintenance: on")
    assert cli("status", "--backend", url).lines[0] == "maintenance: on"
    off = cli("off", "--backend", url)
    assert (off.code, off.err, off.lines[:3]) == (
        0,
        "",
        ["maintenance: off", "decided by: switch", "switch: off"],
    )
    assert cli("status", "--backend", url).lines[0] == "maintenance: off"


def test_on_writes_every_detail_it_is_given(cli: Cli, url: str) -> None:
    options = [
        "--message",
        "Back soon",
        "--reason",
        "OPS-417",
        "--retry-after",
        "120",
        "--mode",
        "read-only",
        "--by",
        "ana",
    ]
    assert cli("--backend", url, "on", *options).code == 0
    state = cli("--backend", url, "status", "--json").json["switch"]
    assert {
        name: state[name]
        for name in (
            "enabled",
            "message",
            "reason",
            "retry_after",
            "mode",
            "by",
            "ends_at",
            "expires_in",
        )
    } == {
        "enabled": True,
        "message": "Back soon",
        "reason": "OPS-417",
        "retry_after": 120,
        "mode": "read-only",
        "by": "ana",
        "ends_at": None,
        "expires_in": None,
    }
    age = datetime.now(UTC) - datetime.fromisoformat(state["since"])
    assert timedelta() <= age < timedelta(seconds=30)


def test_who_turned_it_on_is_user_and_host_unless_said_otherwise(
    cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ana")
    cli("on", "--backend", url)
    assert f"by: ana@{socket.gethostname()}" in cli("status", "--backend", url).lines


def test_a_user_without_a_name_is_a_number(
    cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nameless)
    cli("on", "--backend", url)
    assert f"by: uid-{os.getuid()}@{socket.gethostname()}" in cli("status", "--backend", url).lines


def test_on_allows_what_it_is_told_to(cli: Cli, url: str) -> None:
    on = cli("on", "--backend", url, "--allow", "POST /login", "--allow", "10.0.0.0/8")
    assert on.code == 0
    assert "allow: POST /login, 10.0.0.0/8" in on.lines
    assert cli("status", "--backend", url, "--json").json["switch"]["allow"] == [
        "POST /login",
        "10.0.0.0/8",
    ]
    cli("on", "--backend", url)
    assert cli("status", "--backend", url, "--json").json["switch"]["allow"] is None


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["login"], "Invalid allow entry 'login': A network must be like"),
        ([""], "Invalid allow entry '': write it like"),
        (["/x"] * 101, "must be given at most 100 times, got 101."),
    ],
)
def test_invalid_allow_entry_is_refused_and_nothing_written(
    cli: Cli, url: str, entries: list[str], problem: str
) -> None:
    on = cli("on", "--backend", url, *(word for entry in entries for word in ("--allow", entry)))
    assert on.code == 2
    assert problem in on.err
    assert cli("status", "--backend", url).lines[0] == "maintenance: off"


def test_status_of_unreadable_allow_entries_names_them(
    cli: Cli, redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli(
        "SET", "maintenance", MaintenanceState(enabled=True, allow=("/login", "nonsense\n")).dump()
    )
    lines = cli("status", "--backend", redis_url).lines
    assert "allow: /login, nonsense\\n" in lines
    assert any(line.startswith("problem: Invalid allow entry 'nonsense\\n'") for line in lines)


def test_empty_texts_are_no_texts(cli: Cli, url: str) -> None:
    cli("on", "--backend", url, "--message", "", "--reason", "")
    state = cli("status", "--backend", url, "--json").json["switch"]
    assert (state["message"], state["reason"]) == (None, None)


def test_length_is_counted_on_the_clock_of_the_backend(cli: Cli, url: str) -> None:
    on = cli("on", "--backend", url, "--for", "30m")
    assert any(line.startswith("until: ") and "(in 30 min" in line for line in on.lines)
    document = cli("status", "--backend", url, "--json").json
    left = datetime.fromisoformat(document["switch"]["ends_at"]) - datetime.fromisoformat(
        document["now"]
    )
    assert timedelta(minutes=29) < left <= timedelta(minutes=30)
    assert document["switch"]["expires_in"] is None
    assert document["retry_after"] == pytest.approx(1800, abs=60)


def test_what_has_ended_by_itself_can_still_be_read(
    cli: Cli, redis_url: str, redis_server: RedisServer
) -> None:
    """Which is why --for writes an end and not a time to live."""
    ended = MaintenanceState(
        enabled=True, reason="OPS-417", ends_at=datetime(2020, 1, 1, tzinfo=UTC)
    )
    redis_server.cli("SET", "maintenance", ended.dump())
    status = cli("status", "--backend", redis_url, "--exit-code")
    assert (status.code, status.lines[0]) == (0, "maintenance: off")
    assert any(line.startswith("switch: on, ended 20") for line in status.lines)


def test_the_end_is_the_one_that_was_given(cli: Cli, url: str) -> None:
    assert cli("on", "--backend", url, "--until", "2100-01-01T00:00+01:00").code == 0
    assert (
        cli("status", "--backend", url, "--json").json["switch"]["ends_at"]
        == "2099-12-31T23:00:00Z"
    )


def test_an_end_that_is_over_by_the_backends_clock_is_no_success(
    cli: Cli, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This host's clock is behind, so the option looked right."""
    monkeypatch.setattr(
        "fastapi_maintenance.cli.switch.parse_until",
        lambda *given: datetime(2020, 1, 1, tzinfo=UTC),
    )
    on = cli("on", "--backend", redis_url, "--until", "04:00")
    assert (on.code, on.lines[0]) == (1, "maintenance: off")
    assert on.err.startswith("The switch is on, but its end is over already: on redis://127.0.0.1:")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--for", "1h30"], "Invalid value for '--for': must be a length like 90, 90s"),
        (
            ["--for", "0"],
            "Invalid value for '--for': must be between a second and a century, got '0'",
        ),
        (["--until", "soon"], "Invalid value for --until: must be a time like 04:00"),
        (["--until", "2020-01-01T00:00Z"], "must be in the future, got 2020-01-01"),
        (
            ["--at", "2020-01-01T00:00Z"],
            "Invalid value for --at: must be in the future, got 2020-01-01",
        ),
        (["--at", "2100-01-02", "--until", "2100-01-01"], "must be after the start, 2100-01-02"),
        (
            ["--at", "04:00", "--wait"],
            "--at and --wait: nothing closes before the start. Use one.",
        ),
        (
            ["--at", "04:00", "--drained"],
            "--at and --wait: nothing closes before the start. Use one.",
        ),
        (
            ["--for", "1h", "--until", "04:00"],
            "--for and --until: both set the end. Use one.",
        ),
        (["--retry-after", "-1"], "--retry-after"),
        (["--mode", "half"], "--mode"),
        (["--backend", "memcached"], "cannot start with 'memcached'"),
        (["--backend", "redis://localhost/x"], "The Redis URL"),
    ],
)
def test_wrong_usage_of_on_changes_nothing_and_exits_with_2(
    cli: Cli, options: list[str], complaint: str
) -> None:
    on = cli("on", "--backend", "file:switch.json", *options)
    assert (on.code, on.out) == (2, "")
    assert complaint in on.err
    assert not Path("switch.json").exists()


# -- windows ---------------------------------------------------------------------------------------


def test_on_at_makes_a_window_that_is_coming(cli: Cli, url: str) -> None:
    on = cli("on", "--backend", url, "--at", "2100-01-01T03:00Z", "--until", "2100-01-01T04:00Z")
    assert (on.code, on.err, on.lines[0]) == (0, "", "maintenance: off")
    assert any(line.startswith("coming: on from 2100-01-01") for line in on.lines)
    assert cli("status", "--backend", url, "--json").json["upcoming"] == {
        "starts_at": "2100-01-01T03:00:00Z",
        "ends_at": "2100-01-01T04:00:00Z",
    }


def test_the_length_of_a_window_is_counted_from_its_beginning(cli: Cli, url: str) -> None:
    assert cli("on", "--backend", url, "--at", "2100-01-01T03:00Z", "--for", "90m").code == 0
    assert (
        cli("status", "--backend", url, "--json").json["upcoming"]["ends_at"]
        == "2100-01-01T04:30:00Z"
    )


def test_end_of_a_window_is_the_next_time_after_its_start(cli: Cli, url: str) -> None:
    assert cli("on", "--backend", url, "--at", "2100-01-01T03:00", "--until", "02:00").code == 0
    coming = cli("status", "--backend", url, "--json").json["upcoming"]
    assert datetime.fromisoformat(coming["ends_at"]) - datetime.fromisoformat(
        coming["starts_at"]
    ) == timedelta(hours=23)


def test_a_window_to_come_does_not_open_what_is_closed_now(cli: Cli, url: str) -> None:
    cli("on", "--backend", url, "--reason", "OPS-417")
    on = cli("on", "--backend", url, "--at", "2100-01-01T03:00Z")
    assert (on.code, on.lines[0]) == (1, "maintenance: on")
    assert on.err.startswith("The switch is on already. A window would turn it off")
    assert "reason: OPS-417" in cli("status", "--backend", url).lines


def test_window_ending_beyond_the_calendar_changes_nothing(cli: Cli, url: str) -> None:
    ran = cli("on", "--backend", url, "--at", "9999-12-31T20:00Z", "--for", "2d")
    assert (ran.code, "beyond the calendar" in ran.err) == (1, True)
    assert cli("status", "--backend", url, "--json").json["switch"]["enabled"] is False


def test_the_schedule_lists_a_window_that_is_coming_or_has_begun(cli: Cli, url: str) -> None:
    assert cli("schedule", "list", "--backend", url).out == ""
    assert cli("schedule", "list", "--json", "--backend", url).json == []
    cli(
        "on",
        "--backend",
        url,
        "--at",
        "2100-01-01T03:00Z",
        "--for",
        "1h",
        "--reason",
        "OPS-417",
        "--by",
        "ana",
    )
    (line,) = cli("schedule", "list", "--backend", url).lines
    assert line.startswith("on from 2100-01-01")
    assert line.endswith(", full, reason: OPS-417, by: ana")
    (listed,) = cli("schedule", "list", "--json", "--backend", url).json
    assert (listed["starts_at"], listed["ends_at"], listed["begun"]) == (
        "2100-01-01T03:00:00Z",
        "2100-01-01T04:00:00Z",
        False,
    )
    cli("on", "--backend", url, "--for", "30m")
    (line,) = cli("schedule", "list", "--backend", url).lines
    assert line.startswith("on until ")
    assert cli("schedule", "list", "--json", "--backend", url).json[0]["begun"]


def test_a_window_without_an_end_is_listed_when_it_has_begun(cli: Cli, url: str) -> None:
    asyncio.run(
        backend_from_url(url).write(
            MaintenanceState(enabled=True, starts_at=datetime(2020, 1, 1, tzinfo=UTC), by="ana")
        )
    )
    assert cli("schedule", "list", "--backend", url).lines == ["on without an end, full, by: ana"]


@pytest.mark.parametrize("options", [["--at", "2100-01-01T03:00Z"], ["--for", "30m"]])
def test_a_window_can_be_cancelled(cli: Cli, url: str, options: list[str]) -> None:
    cli("on", "--backend", url, *options)
    cancel = cli("schedule", "cancel", "--backend", url)
    assert (cancel.code, cancel.err, cancel.lines[:3]) == (
        0,
        "",
        ["maintenance: off", "decided by: switch", "switch: off"],
    )
    assert cli("schedule", "list", "--backend", url).out == ""


def test_what_is_no_window_is_not_cancelled(cli: Cli, url: str) -> None:
    nothing = cli("schedule", "cancel", "--backend", url)
    assert (nothing.code, nothing.err) == (1, "There is no window to cancel.\n")
    cli("on", "--backend", url)
    assert cli("schedule", "cancel", "--backend", url).code == 1
    assert cli("status", "--backend", url).lines[0] == "maintenance: on"


@pytest.mark.parametrize("command", ["list", "cancel"])
def test_a_schedule_that_cannot_be_read_is_not_empty(
    cli: Cli, redis_url: str, redis_server: RedisServer, command: str
) -> None:
    redis_server.cli("SET", "maintenance", "perhaps")
    ran = cli("schedule", command, "--backend", redis_url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Cannot read the schedule: 'perhaps' is not a boolean word")


# -- holds -----------------------------------------------------------------------------------------


def test_off_under_a_hold_says_that_it_stays_on(cli: Cli, url: str, take_hold: TakeHold) -> None:
    cli("on", "--backend", url)
    take_hold(url, "h1", by="ana@ops", reason="reindex")
    off = cli("off", "--backend", url)
    assert (off.code, off.lines[0]) == (1, "maintenance: on")
    assert "switch: off" in off.lines
    assert off.err == (
        "The switch is off, but maintenance stays on because of 1 hold: ana@ops (reindex). "
        "It ends when they do. To end them now, run 'off --force'.\n"
    )


def test_off_with_force_ends_the_holds_too(cli: Cli, url: str, take_hold: TakeHold) -> None:
    cli("on", "--backend", url)
    take_hold(url, "h1", by="ana@ops")
    off = cli("off", "--force", "--backend", url)
    assert (off.code, off.err, off.lines[0]) == (0, "", "maintenance: off")
    assert cli("status", "--json", "--backend", url).json["holds"] == []


def test_many_holds_are_counted_and_some_are_named(cli: Cli, url: str, take_hold: TakeHold) -> None:
    for number in range(7):
        take_hold(url, f"h{number}", by=f"worker-{number}")
    assert (
        "because of 7 holds: worker-0, worker-1, worker-2, worker-3, worker-4 and 2 more. "
        in cli("off", "--backend", url).err
    )


def test_on_under_an_off_hold_says_that_it_stays_off(
    cli: Cli, url: str, take_hold: TakeHold
) -> None:
    take_hold(url, "h1", by="ana@ops", enabled=False)
    on = cli("on", "--backend", url)
    assert (on.code, on.lines[0]) == (1, "maintenance: off")
    assert on.err.startswith(
        "The switch is on, but maintenance stays off because of 1 hold: ana@ops. It starts when "
        "they end."
    )


def test_status_shows_every_hold_with_what_is_left_of_its_lease(
    cli: Cli, url: str, take_hold: TakeHold
) -> None:
    take_hold(url, "h1", by="ana@ops", reason="reindex", lease=290)
    lines = cli("status", "--backend", url).lines
    assert "decided by: hold" in lines
    assert any(
        line.startswith("hold: on, full, by ana@ops (reindex), lease 4 min") for line in lines
    )


# -- status ----------------------------------------------------------------------------------------


def test_the_exit_code_of_status_says_whether_it_is_on(cli: Cli, url: str) -> None:
    assert cli("status", "--exit-code", "--backend", url).code == 0
    cli("on", "--backend", url)
    assert cli("status", "--exit-code", "--backend", url).code == 6
    assert cli("status", "--backend", url).code == 0


@pytest.mark.parametrize("options", [[], ["--exit-code"], ["--json"]])
def test_a_value_that_cannot_be_read_is_an_error_and_not_off(
    cli: Cli, redis_url: str, redis_server: RedisServer, options: list[str]
) -> None:
    redis_server.cli("SET", "maintenance", "perhaps")
    status = cli("status", "--backend", redis_url, *options)
    assert status.code == 1
    assert status.err.startswith(
        "Cannot determine the current state: 'perhaps' is not a boolean word"
    )
    if "--json" in options:
        assert (status.json["enabled"], status.json["switch"]) == (None, None)
    else:
        assert status.lines[:2] == ["maintenance: unknown", "switch: unreadable"]


def test_status_shows_a_time_to_live_and_a_coming_window(
    cli: Cli, redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance", "1", "EX", 600)
    assert any(
        line.startswith("switch: on, 9 min 5") or line == "switch: on, 10 min left to live"
        for line in cli("status", "--backend", redis_url).lines
    )
    redis_server.cli("SET", "maintenance", '{"enabled": true, "starts_at": "2100-01-01T00:00:00Z"}')
    status = cli("status", "--backend", redis_url)
    assert status.lines[0] == "maintenance: off"
    assert any(line.startswith("coming: on from ") for line in status.lines)
    assert any(line.startswith("switch: on, not started yet") for line in status.lines)


def test_the_environment_variable_is_the_default(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("status", "--exit-code").code == 0
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "yes")
    status = cli("status", "--exit-code")
    assert (status.code, status.lines[-1]) == (6, "backend: env:FASTAPI_MAINTENANCE_MODE")


def test_the_environment_can_name_the_backend(
    cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    assert cli("on").code == 0
    assert cli("status", "--exit-code").code == 6


@pytest.mark.parametrize(
    "arguments",
    [
        ["--backend", "env", "--var-name", "X", "status"],
        ["--var-name", "X", "status", "--backend", "env"],
        ["--var-name", "X", "status"],
    ],
)
def test_backend_option_before_or_after_the_command_works(
    cli: Cli, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", "1")
    assert cli(*arguments, "--exit-code").code == 6


def test_short_names_of_the_modelled_package_work(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_MAINTENANCE_VAR", "1")
    assert (
        cli("--backend", "env", "--var-name", "MY_MAINTENANCE_VAR", "status").lines[0]
        == "maintenance: on"
    )
    Path("maintenance.txt").write_text("1")
    assert (
        cli("--backend", "file", "--file-path", "maintenance.txt", "status").lines[0]
        == "maintenance: on"
    )


def test_modelled_package_bug_error_1_after_an_error(cli: Cli) -> None:
    """There, the exit that followed a clear message was caught as an error, and printed after it as
    `ERROR: 1`.
    """
    status = cli("status", "--backend", "file")
    assert status.code == 2
    assert status.err.startswith("'file' alone does not say where; write a URL like redis://")
    assert status.err.count("\n") == 1
    refused = cli("on", "--backend", "env")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.count("\n") == 1


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["on", "off"])
def test_an_environment_variable_cannot_be_set_from_here(cli: Cli, command: str) -> None:
    ran = cli(command, "--backend", "env:CLOSED")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("The environment variable CLOSED cannot be changed from within: ")


def test_a_file_that_cannot_be_written_is_one_sentence(cli: Cli) -> None:
    ran = cli("on", "--backend", "file:missing/switch.json")
    assert (ran.code, ran.out) == (1, "")
    assert "missing" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", ["on", "off", "status"])
def test_an_unreachable_redis_is_one_sentence(cli: Cli, command: str, free_port: int) -> None:
    ran = cli(command, "--backend", f"redis://ana:s3cret@127.0.0.1:{free_port}/0")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(
        f"redis://127.0.0.1:{free_port}/0?key=maintenance cannot be reached: "
    )
    assert ran.err.count("\n") == 1
    assert "s3cret" not in ran.err


def test_wrong_password_is_one_sentence_without_it(
    cli: Cli, own_redis_server: RedisServerFactory
) -> None:
    server = own_redis_server(config={"requirepass": "right-one"})
    ran = cli("status", "--backend", f"redis://:wr0ng-one@127.0.0.1:{server.port}/0")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(
        f"redis://127.0.0.1:{server.port}/0?key=maintenance cannot be reached: "
    )
    assert ran.err.count("\n") == 1
    assert "wr0ng" not in ran.err
    assert cli("status", "--backend", f"redis://:right-one@127.0.0.1:{server.port}/0").code == 0


@pytest.mark.parametrize("command", ["on", "off", "status"])
def test_a_redis_that_does_not_answer_is_noticed_in_time(
    cli: Cli, command: str, own_redis_server: RedisServerFactory
) -> None:
    server = own_redis_server()
    server.pause()
    before = time.monotonic()
    ran = cli(command, "--backend", f"{server.url}?timeout=0.3")
    assert time.monotonic() - before < 15
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(("command", "value"), [("on", "0"), ("off", "1")])
def test_switch_changed_by_another_at_once_is_a_failure(
    cli: Cli, command: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LocalFileBackend.write

    async def write_and_meddle(backend: LocalFileBackend, state: MaintenanceState) -> None:
        await write(backend, state)
        await anyio.Path(backend.file_path).write_text(value)

    monkeypatch.setattr(LocalFileBackend, "write", write_and_meddle)
    ran = cli(command, "--backend", "file:switch.json")
    assert ran.code == 1
    assert ran.err.startswith("The switch was written, and then changed by another operator.")


@pytest.mark.parametrize(("command", "position"), [("on", "on"), ("off", "off")])
def test_holds_that_cannot_be_read_are_no_success(cli: Cli, command: str, position: str) -> None:
    Path("switch.json.holds").write_text("garbage")
    ran = cli(command, "--backend", "file:switch.json")
    assert (ran.code, ran.lines[0]) == (1, "maintenance: unknown")
    assert ran.err.startswith(f"The switch is {position}, but the effective state is unknown: ")


def test_a_state_that_is_too_long_is_one_sentence(cli: Cli, url: str) -> None:
    ran = cli("on", "--backend", url, "--message", "x" * 70_000)
    assert (ran.code, ran.out) == (1, "")
    assert "Shorten its texts" in ran.err


# -- the program -----------------------------------------------------------------------------------


def test_version_is_the_one_of_the_package(cli: Cli) -> None:
    assert cli("--version").out == f"fastapi-maintenance {VERSION}\n"


def test_version_alone_needs_no_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fastapi-maintenance", "--version"])
    monkeypatch.setitem(sys.modules, "fastapi_maintenance.cli.app", None)

    main()

    assert capsys.readouterr().out == f"fastapi-maintenance {VERSION}\n"


@pytest.mark.parametrize(
    ("words", "found"), [("st", "status"), ("status --ex", "--exit-code"), ("bypass cr", "create")]
)
def test_completion_of_a_command_and_of_an_option(words: str, found: str) -> None:
    environment = {
        "_FASTAPI_MAINTENANCE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"fastapi-maintenance {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    ran = CliRunner().invoke(app, [], prog_name="fastapi-maintenance", env=environment)

    assert ran.stdout.split() == [found]


def test_help_names_the_exit_codes(cli: Cli) -> None:
    assert "0 done, 1 failed, 2 wrong usage" in " ".join(cli("--help").out.split())
    assert "Exit with 6 if maintenance is on" in " ".join(cli("status", "--help").out.split())


def test_demo_gets_its_options_and_gives_the_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def run(size: int, *, check: bool) -> int:
        asked.append((size, check))
        return 1

    monkeypatch.setattr(demo, "run", run)
    assert cli("demo").code == 1
    assert cli("demo", "--workers", "2", "--check").code == 1
    assert asked == [(4, False), (2, True)]
    assert cli("demo", "--workers", "0").code == 2


def test_python_m_is_the_same_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["fastapi-maintenance", "status", "--json", "--backend", "env:CLOSED"]
    )
    monkeypatch.delitem(sys.modules, "fastapi_maintenance.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("fastapi_maintenance", run_name="__main__")
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["enabled"] is False


class Lacking(ModuleType):
    """A module that cannot be imported, because another one is not installed."""

    def __init__(self, name: str | None) -> None:
        super().__init__("fastapi_maintenance.cli.app")
        self.__dict__["lacks"] = name

    def __getattr__(self, attribute: str) -> None:
        raise ModuleNotFoundError("No module named …", name=self.__dict__["lacks"])


@pytest.mark.parametrize(
    ("name", "missing"), [("typer", "typer"), ("rich", "rich"), ("rich.console", "rich")]
)
def test_without_the_extra_one_sentence_says_how_to_install_it(
    name: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi_maintenance.cli.app", Lacking(name))
    with pytest.raises(SystemExit) as ended:
        main()
    assert (
        ended.value.code
        == f"The command line needs {missing}, which is not installed: pip install "
        '"fastapi-maintenance-cluster[cli]"'
    )


@pytest.mark.parametrize("name", ["redis", None])
def test_another_module_that_is_missing_is_no_missing_extra(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi_maintenance.cli.app", Lacking(name))
    with pytest.raises(ModuleNotFoundError):
        main()


# -- replicas --------------------------------------------------------------------------------------


def test_on_says_how_many_replicas_have_it(cli: Cli, own_redis_server: RedisServerFactory) -> None:
    """A failover to one that lacks it would open the service again."""
    master = own_redis_server(config={"repl-diskless-sync-delay": "0"})
    replicas = [own_redis_server() for _ in range(2)]
    for replica in replicas:
        replica.cli("REPLICAOF", "127.0.0.1", master.port)
    eventually_sync(lambda: master.cli("INFO", "replication").count("state=online") == 2, within=30)
    assert cli("on", "--backend", master.url).lines[-1] == "replicas: 2 of 2 have it"

    replicas[0].pause()
    paused = cli("on", "--backend", master.url)
    as_json = cli("on", "--backend", master.url, "--json")
    replicas[0].resume()

    assert (paused.code, paused.lines[-1]) == (0, "replicas: 1 of 2 have it")
    assert (as_json.code, as_json.json["enabled"], as_json.json["replicas"]) == (
        0,
        True,
        {"acknowledged": 1, "connected": 2},
    )


def test_where_there_are_no_replicas_nothing_is_said_of_them(cli: Cli, url: str) -> None:
    assert "replicas" not in cli("on", "--backend", url).out
    assert cli("on", "--backend", url, "--json").json["replicas"] is None


def test_on_with_json_prints_the_keys_of_status_and_nothing_else(cli: Cli, redis_url: str) -> None:
    on = cli("on", "--backend", redis_url, "--json", "--wait")

    assert on.code == 4  # no worker is registered
    assert on.json["enabled"] is True
    assert set(on.json) == {*cli("status", "--backend", redis_url, "--json").json, "replicas"}
