"""`--component`: one part of the application, from the command line."""

from __future__ import annotations

from pathlib import Path

from tests.support.servers import RedisServer

from .conftest import Cli


def test_a_scope_is_turned_on_and_off_by_itself(cli: Cli, redis_url: str) -> None:
    of_billing = ("--component", "billing", "--backend", redis_url)

    assert cli("on", *of_billing).code == 0
    assert cli("status", *of_billing).lines[0] == "maintenance of billing: on"
    assert cli("status", "--exit-code", "--backend", redis_url).code == 0
    assert cli("off", *of_billing).code == 0
    assert cli("status", *of_billing).lines[0] == "maintenance of billing: off"


def test_component_without_a_switch_shows_the_general_one(
    cli: Cli, redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance", "1")

    off = cli("off", "--component", "billing", "--backend", redis_url)

    assert off.code == 1
    assert "maintenance stays on because of the general one" in off.out + off.err


def test_a_window_of_a_scope_is_listed_and_cancelled_by_itself(
    cli: Cli, redis_url: str, redis_server: RedisServer
) -> None:
    of_billing = ("--component", "billing", "--backend", redis_url)
    general = ("--backend", redis_url)
    assert (
        cli(
            "on", "--at", "2100-01-01T03:00Z", "--for", "1h", "--reason", "OPS-417", *of_billing
        ).code
        == 0
    )
    cli("on", "--at", "2100-02-01T03:00Z", "--reason", "OPS-418", *general)

    (listed,) = cli("schedule", "list", "--json", *of_billing).json
    assert (listed["starts_at"], listed["ends_at"], listed["reason"]) == (
        "2100-01-01T03:00:00Z",
        "2100-01-01T04:00:00Z",
        "OPS-417",
    )
    assert "OPS-418" in cli("schedule", "list", *general).out

    cancel = cli("schedule", "cancel", *of_billing)
    assert (cancel.code, cancel.lines[0]) == (0, "maintenance of billing: off")
    assert cli("schedule", "list", *of_billing).out == ""
    assert redis_server.cli("EXISTS", "maintenance:billing") == "0"
    assert "OPS-418" in cli("schedule", "list", *general).out


def test_of_a_scope_no_window_is_cancelled_that_is_everybodys(cli: Cli, redis_url: str) -> None:
    cli("on", "--at", "2100-02-01T03:00Z", "--backend", redis_url)
    cancel = cli("schedule", "cancel", "--component", "billing", "--backend", redis_url)

    assert (cancel.code, cancel.err) == (1, "There is no window to cancel.\n")
    assert cli("schedule", "list", "--backend", redis_url).out != ""


def test_a_window_of_a_scope_that_cannot_be_read_is_said_so(
    cli: Cli, redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance:billing", "perhaps")
    listed = cli("schedule", "list", "--component", "billing", "--backend", redis_url)

    assert (listed.code, listed.out) == (1, "")
    assert listed.err.startswith(
        "Cannot read the schedule: The component billing: 'perhaps' is not a boolean word"
    )


def test_in_a_file_there_is_no_window_of_a_scope(cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        "on",
        "--at",
        "2100-01-01T03:00Z",
        "--component",
        "billing",
        "--backend",
        f"file:{tmp_path}/switch.json",
    )

    assert ran.code == 1
    assert "keeps no switches of components; only Redis does" in ran.err


def test_everybodys_holds_are_not_ended_for_one_scope(cli: Cli, redis_url: str) -> None:
    assert cli("off", "--force", "--component", "billing", "--backend", redis_url).code == 2
