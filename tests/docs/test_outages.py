"""docs/outages.md: its table held against modes whose Redis does not answer, and its log against
real outages.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from fastapi_maintenance.backends import BaseStateBackend, RedisBackend
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.gate import OutagePolicy
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..conftest import RedisServerFactory
from ..support.clock import T0, Clock, at
from ..support.doubles import Switchboard
from ..support.waiting import eventually, eventually_sync
from ..support.workers import Workers

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "outages.md").read_text()
HEADER: Final = (
    '| last known state | Redis silent for | fallbacks | `"last-known"` | `"open"` | `"closed"` |'
)
POLICIES: Final[tuple[OutagePolicy, ...]] = ("last-known", "open", "closed")
VARIABLE: Final = "FASTAPI_MAINTENANCE_MODE"
TTL: Final = 0.2
# The ttl of those whose log must not speak of a machine that stood still for a moment.
PATIENT: Final = 2.0
STALE_AFTER: Final = 60.0  # on the clock that only the test moves
LEASE: Final = 30.0  # over by the time that is "longer", and standing when it was last confirmed


def rows() -> Iterator[tuple[str, str, str, OutagePolicy, str]]:
    """Each cell of the table, with what stands before it."""
    table = DOCUMENT.split(f"{HEADER}\n")[1].split("\n\n")[0].splitlines()[1:]
    for line in table:
        knew, silent, fallbacks, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for policy, cell in zip(POLICIES, cells, strict=True):
            yield knew, silent, fallbacks, policy, cell


ROWS: Final = list(rows())


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


# -- the table -------------------------------------------------------------------------------------


KNEW: Final[dict[str, Snapshot | None]] = {
    "on": Snapshot(ON, now=T0),
    "off": Snapshot(OFF, now=T0),
    "on, with an end that has passed": Snapshot(
        MaintenanceState(enabled=True, ends_at=at(LEASE)), now=T0
    ),
    "off, with a window that has begun": Snapshot(
        MaintenanceState(enabled=True, starts_at=at(LEASE)), now=T0
    ),
    "a hold, whose lease has expired": Snapshot(OFF, (Hold("a", ON, T0, T0 + LEASE),), T0),
    "nothing": None,
}

SILENT: Final = {"less than `stale_after`": STALE_AFTER - 1, "longer": STALE_AFTER + 1}

Prepare = Callable[[Path], Any]


def raising(path: Path) -> BaseStateBackend:
    backend = Switchboard(False)
    backend.error = RuntimeError("out of order")
    return backend


def hanging(path: Path) -> BaseStateBackend:
    backend = Switchboard(False)
    backend.hang()
    return backend


# A file is made, or a backend; and what the variable says.
FALLBACKS: Final[dict[str, tuple[Prepare, str | None]]] = {
    "say on": (lambda path: path.write_text("1"), "1"),
    "say off": (lambda path: path.write_text("0"), "0"),
    "the file says on": (lambda path: path.write_text("1"), "0"),
    "the file says off, the variable says on": (lambda path: path.write_text("0"), "1"),
    "no file, the variable says on": (lambda path: None, "1"),
    "none has a state": (lambda path: None, None),
    "the file is invalid, the variable says on": (lambda path: path.write_text("perhaps"), "1"),
    "the file is a directory, the variable says on": (lambda path: path.mkdir(), "1"),
    "the file is unreadable, the variable says on": (lambda path: path.touch(mode=0), "1"),
    "a backend raises, the variable says on": (raising, "1"),
    "a backend hangs, the variable says on": (hanging, "1"),
    "the file is invalid, no variable": (lambda path: path.write_text("perhaps"), None),
}


@contextmanager
def without_privileges() -> Iterator[None]:
    """As somebody who is not root, for whom every file is readable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("knew", "silent", "fallbacks", "policy", "cell"), ROWS)
async def test_a_worker_in_an_outage_does_what_the_table_says(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    free_port: int,
    knew: str,
    silent: str,
    fallbacks: str,
    policy: OutagePolicy,
    cell: str,
) -> None:
    path = tmp_path / "last-known.json"
    prepare, variable = FALLBACKS[fallbacks]
    made = prepare(path)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    chain = made if isinstance(made, BaseStateBackend) else f"file:{path}"
    mode = MaintenanceMode(
        RedisBackend(f"redis://127.0.0.1:{free_port}", ttl=TTL),
        fallback=chain,
        on_unreachable=policy,
        stale_after=STALE_AFTER,
    )
    if (reading := KNEW[knew]) is not None:
        clock.passed = LEASE - 1
        mode.update(replace(reading, now=T0 + clock.passed, registered=True), clock.monotonic())

    with without_privileges() if "is unreadable" in fallbacks else nullcontext():
        async with mode:
            clock.passed += SILENT[silent]
            gate = mode.evaluate_gate()

    assert f"{'open' if gate.closure is None else 'closed'}, {gate.source}" == cell


def test_the_table_has_every_combination_that_there_is() -> None:
    assert {knew for knew, *_ in ROWS} == set(KNEW)
    assert {fallbacks for _, _, fallbacks, *_ in ROWS} == set(FALLBACKS)
    for knew in ("on", "off", "nothing"):
        assert {silent for known, silent, *_ in ROWS if known == knew} == set(SILENT)


# -- the rest of the document ----------------------------------------------------------------------


def test_the_example_is_an_application() -> None:
    (example,) = blocks("python")
    space: dict[str, Any] = {}
    exec(example, space)

    (middleware,) = space["app"].user_middleware
    assert set(middleware.kwargs) == {"backend", "on_unreachable", "stale_after", "fallback"}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "fastapi_maintenance"
    ]


def assert_logged(caplog: pytest.LogCaptureFixture, block: str, port: int, path: Path) -> None:
    """Compare line by line; an ellipsis stands for any words."""
    expected = (
        block.replace("127.0.0.1:6379", f"127.0.0.1:{port}")
        .replace("file:last-known.json", f"file:{path}")
        .splitlines()
    )
    logged = lines(caplog)

    assert len(logged) == len(expected), logged
    for line, pattern in zip(logged, expected, strict=True):
        assert re.fullmatch(".+".join(map(re.escape, pattern.split("…"))), line), line


async def test_the_log_of_an_outage_reads_as_the_document_says(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    server = own_redis_server(config={"appendonly": "yes", "appendfsync": "always"})
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    async with MaintenanceMode(
        RedisBackend(server.url, ttl=PATIENT), on_unreachable="closed"
    ) as mode:

        def open_and_linked() -> bool:
            linked = any("link to" in line for line in lines(caplog))
            return linked and mode.evaluate_gate().closure is None

        await eventually(open_and_linked, within=30)
        caplog.clear()
        await asyncio.to_thread(server.kill)
        await eventually(lambda: mode.evaluate_gate().source == "unreachable-closed", within=30)
        await asyncio.to_thread(server.start)
        await eventually(open_and_linked, within=30)
        assert_logged(caplog, blocks("text")[1], server.port, tmp_path)


async def test_log_of_a_start_in_an_outage_is_as_documented(
    free_port: int,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "last-known.json"
    path.write_text("perhaps")
    monkeypatch.setenv(VARIABLE, "1")
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    async with MaintenanceMode(
        RedisBackend(f"redis://127.0.0.1:{free_port}", ttl=TTL), fallback=f"file:{path}"
    ) as mode:
        await eventually(lambda: mode.evaluate_gate().source == "env", within=30)
        await asyncio.sleep(3 * TTL)  # said once, however often it is asked
        assert_logged(caplog, blocks("text")[2], free_port, path)


async def test_the_log_of_a_loss_reads_as_the_document_says(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    server = own_redis_server()
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    async with MaintenanceMode(RedisBackend(server.url, ttl=PATIENT)) as mode:
        await eventually(lambda: any("link to" in line for line in lines(caplog)), within=30)
        await server.acli("SET", "maintenance", "1")
        await eventually(lambda: any("maintenance on" in line for line in lines(caplog)), within=30)
        caplog.clear()
        await server.acli("FLUSHALL")
        await eventually(lambda: lines(caplog), within=30)
        assert await server.acli("GET", "maintenance") == "1"
        assert mode.evaluate_gate().closure is not None
        assert_logged(caplog, blocks("text")[0], server.port, tmp_path)


# -- restarted in an outage ------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_workers_restarted_in_an_outage_still_know(
    own_redis_server: RedisServerFactory, tmp_path: Path
) -> None:
    """A crash, with Redis away: what comes up instead answers as its neighbour does, and follows
    Redis again when it is back.
    """
    server = own_redis_server(config={"appendonly": "yes", "appendfsync": "always"})
    path = tmp_path / "last-known.json"
    state = MaintenanceState(enabled=True, message="Back at four")
    environment = {
        "FASTAPI_MAINTENANCE_BACKEND": f"{server.url}?ttl={TTL}",
        "LAST_KNOWN": str(path),
    }
    with Workers("tests.apps.mirrored:app", env=environment) as workers:

        def all_answer(status: int, words: str = "") -> bool:
            answers = workers.get_all("/").values()
            return all(answer.status == status and words in answer.text for answer in answers)

        def is_kept(state: MaintenanceState) -> bool:
            return path.exists() and MaintenanceState.parse(path.read_bytes()) == state

        server.cli("SET", "maintenance", state.dump())
        eventually_sync(lambda: all_answer(503, "Back at four") and is_kept(state), within=40)
        server.kill()
        (first, _) = workers.pids
        workers.kill(first)
        workers.connect(within=30)

        assert first not in workers.pids
        assert all_answer(503, "Back at four")

        server.start()
        server.cli("DEL", "maintenance")
        eventually_sync(lambda: all_answer(200) and is_kept(OFF), within=40)
