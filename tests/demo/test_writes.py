from __future__ import annotations

from typing import Final

import pytest

from fastapi_maintenance.demo.writes import Ledger, Write, parse_monitor

KEYS: Final = {"maintenance", "{maintenance}:holds"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ('"SET" "maintenance" "1"', "SET maintenance 1"),
        ('"del" "maintenance"', "del maintenance"),
        ('"RENAME" "maintenance" "old"', "RENAME maintenance old"),
        ('"HSET" "{maintenance}:holds" "id" "x"', "HSET {maintenance}:holds id x"),
        (r'"SET" "maintenance" "{\"enabled\": \"\\n\"}"', r'SET maintenance {"enabled": "\n"}'),
    ],
)
def test_a_write_to_a_key_is_read_with_its_time(words: str, text: str) -> None:
    assert parse_monitor(f"+1700000010.500000 [0 127.0.0.1:6000] {words}\r\n", KEYS, 1700000000.0) == Write(10.5, text)


def test_what_a_script_writes_is_a_write() -> None:
    assert parse_monitor('+12.0 [0 lua] "SET" "maintenance" "1"', KEYS, 2.0) == Write(10.0, "SET maintenance 1")


@pytest.mark.parametrize(
    "line",
    [
        "+OK",
        "",
        "+12.0 [0 127.0.0.1:6000] ",
        '+12.0 [0 127.0.0.1:6000] "GET" "maintenance"',
        '+12.0 [0 127.0.0.1:6000] "EVALSHA" "abc" "4" "maintenance" "sync"',
        '+12.0 [0 127.0.0.1:6000] "SET" "maintenance:other" "1"',
        '+12.0 [0 127.0.0.1:6000] "HSET" "{maintenance}:workers" "id" "x"',
        '+12.0 [0 127.0.0.1:6000] "FLUSHALL"',
    ],
)
def test_what_writes_none_of_the_keys_is_no_write(line: str) -> None:
    assert parse_monitor(line, KEYS, 0.0) is None


def test_a_long_command_is_cut() -> None:
    write = parse_monitor(f'+12.0 [0 lua] "SET" "maintenance" "{"x" * 100}"', KEYS, 0.0)
    assert write is not None
    assert len(write.text) == 61
    assert write.text.endswith("x…")


FIRST, SECOND = Write(10.0, "SET maintenance 1"), Write(10.1, "DEL maintenance")


def followed(ledger: Ledger, at: float) -> tuple[Write, float] | None:
    found = ledger.followed(1, at)
    return None if found is None else (found[0], round(found[1], 6))


def test_a_change_follows_the_latest_write_before_it() -> None:
    ledger = Ledger()
    ledger.wrote(FIRST)
    ledger.wrote(SECOND)
    assert followed(ledger, 10.103) == (SECOND, 0.003)


def test_a_change_that_is_heard_of_late_still_follows_the_write_before_the_latest() -> None:
    ledger = Ledger()
    ledger.wrote(FIRST)
    ledger.wrote(SECOND)
    assert followed(ledger, 10.002) == (FIRST, 0.002)


def test_every_worker_follows_a_write_once_so_that_its_next_change_is_another_matter() -> None:
    ledger = Ledger()
    ledger.wrote(FIRST)
    assert ledger.followed(1, 10.002) is not None
    assert ledger.followed(2, 10.004) is not None
    assert ledger.followed(1, 10.9) is None


@pytest.mark.parametrize("at", [9.9, 12.1])
def test_a_change_before_a_write_or_long_after_it_does_not_follow_it(at: float) -> None:
    ledger = Ledger()
    ledger.wrote(FIRST)
    assert ledger.followed(1, at) is None


def test_clocks_that_disagree_a_little_make_no_negative_time() -> None:
    ledger = Ledger()
    ledger.wrote(FIRST)
    assert ledger.followed(1, 9.998) == (FIRST, 0.0)


def test_without_a_write_nothing_is_followed() -> None:
    assert Ledger().followed(1, 10.0) is None
