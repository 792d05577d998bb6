"""`--scope`: one part of the application, from the command line."""

from __future__ import annotations

from tests.servers import RedisServer

from .conftest import Cli


def test_a_scope_is_turned_on_and_off_by_itself(cli: Cli, redis_url: str) -> None:
    of_billing = ("--scope", "billing", "--backend", redis_url)

    assert cli("on", *of_billing).code == 0
    assert "on" in cli("status", *of_billing).out
    assert cli("status", "--exit-code", "--backend", redis_url).code == 0
    assert cli("off", *of_billing).code == 0


def test_a_scope_without_a_switch_goes_by_the_general_one_and_that_is_said(cli: Cli, redis_url: str, redis_server: RedisServer) -> None:
    redis_server.cli("SET", "maintenance", "1")

    off = cli("off", "--scope", "billing", "--backend", redis_url)

    assert off.code == 1
    assert "maintenance stays on because of the general one" in off.out + off.err


def test_everybodys_holds_are_not_ended_for_one_scope(cli: Cli, redis_url: str) -> None:
    assert cli("off", "--force", "--scope", "billing", "--backend", redis_url).code == 2
