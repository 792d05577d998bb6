"""What a user lacks some rights for, and what that costs: the table in backends/redis/README.md,
held against a real server.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.exceptions import BackendError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON
from tests.support.servers import USERS, RedisServer
from tests.support.waiting import eventually

from .conftest import MakeUser
from .links import Worker, linked, settled, sync_now

README: Final = USERS.with_name("README.md").read_text()
LONG: Final = 300.0  # ttl in which only what is pushed is noticed
SOON: Final = 20.0


def rows(header: str) -> list[list[str]]:
    """The cells of a table in the README, without its head."""
    _, _, rest = README.partition(f"\n{header}\n")
    lines = rest.split("\n\n", 1)[0].splitlines()[1:]
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
    ]


COSTS: Final = {
    rights.strip("`"): outcomes
    for rights, *outcomes in rows("| rights | told | reads | on | off | hold | barrier | lost |")
}
SENTENCES: Final = dict(re.findall(r'^- ([a-e]): "([^"]+)"', README, re.MULTILINE))


def rule_of(user: str) -> list[str]:
    """What the ACL file says of a user, without the password."""
    (rule,) = (line for line in USERS.read_text().splitlines() if line.startswith(f"user {user} "))
    return [word for word in rule.split()[2:] if not word.startswith(">")]


def commands_of(user: str) -> set[str]:
    return {word[1:] for word in rule_of(user) if word.startswith("+")}


def test_the_readme_names_exactly_what_each_user_may() -> None:
    table = rows("| commands | worker | operator | readonly | why |")

    for column, user in enumerate(("worker", "operator", "readonly"), start=1):
        named = {
            command
            for row in table
            if row[column] == "✓"
            for command in re.findall(r"`([^`]+)`", row[0])
        }
        assert named == commands_of(user), user


def test_the_cost_of_every_right_of_a_worker_is_told() -> None:
    assert {f"-{command}" for command in commands_of("worker")} <= set(COSTS)
    assert set(SENTENCES) == {"a", "b", "c", "d", "e"}


@pytest.fixture
def watcher_url(redis_server: RedisServer) -> str:
    """Another database than the first, so that SELECT is needed."""
    return redis_server.url.replace("/0", "/1")


@pytest.fixture
async def admin(watcher_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(watcher_url) as client:
        yield client


@pytest.mark.parametrize("rights", COSTS)
async def test_what_is_missing_costs_what_the_readme_says(
    rights: str,
    make_user: MakeUser,
    watcher_url: str,
    admin: Any,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told, reads, *doings, lost = COSTS[rights]
    user = await make_user()
    taken = rights.split() if rights.startswith("-") else []
    await user.change("resetkeys", "resetchannels", *rule_of("worker" if taken else rights))
    await user.change(*taken)
    url = watcher_url.replace("://", f"://{user.name}:any@")
    everybody = RedisBackend(watcher_url)

    held = await everybody.acquire(Hold("theirs", ON), LONG)
    await admin.script_flush()
    worker = Worker(reporting=True)
    backend = RedisBackend(url, ttl=LONG)
    async with linked(backend, worker, wait=False):
        await eventually(lambda: worker.readings or worker.has_failed(2), within=SOON)
        if worker.readings:
            await settled(backend, worker, admin)
            sync_now(backend)  # the first look sends the script whole, the later ones its digest
            await settled(backend, worker, admin)
        assert depth(worker, caplog) == reads
        assert await delivery(worker, backend, admin, keys) == told
        if told == "–":
            assert SENTENCES["c" if rights == "-get" else "e"] in str(worker.errors[-1])
            assert lost == "–"
        else:
            assert await after_a_loss(worker, backend, admin, keys) == lost
    await everybody.release(held)
    await everybody.clear()

    backend = RedisBackend(url)
    for doing, documented in zip((turn_on, turn_off, hold, barrier), doings, strict=True):
        await admin.script_flush()
        assert await outcome(doing(backend), documented) == documented, doing
        await everybody.clear()


def depth(worker: Worker, caplog: pytest.LogCaptureFixture) -> str:
    """How much was read, as the log says it."""
    if not worker.readings:
        return "–"
    refusals = [
        record
        for record in caplog.records
        if "refuses to register this worker" in record.getMessage()
    ]
    registered = any(reading.registered for reading in worker.readings)
    assert registered is not bool(refusals)
    if worker.last.holds is None:
        return "switch"
    return "full" if registered else "unregistered"


async def delivery(worker: Worker, backend: RedisBackend, admin: Any, keys: Keys) -> str:
    """What it takes for a change to be noticed before the next look."""
    if not worker.readings:
        return "–"
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "tracking": lambda: admin.set(keys.switch, "1"),
        "message": lambda: admin.publish(keys.events, "1"),
    }
    for name, way in ways.items():
        await way()
        await settled(backend, worker, admin)
        if worker.last.switch == ON:
            return name
    return "polling"


async def after_a_loss(worker: Worker, backend: RedisBackend, admin: Any, keys: Keys) -> str:
    """Whether switch and hold are put back, or what is said instead."""
    sync_now(backend)
    await settled(backend, worker, admin)
    assert worker.last.switch == ON
    await admin.flushall()
    sync_now(backend)
    await settled(backend, worker, admin)
    if worker.last.error is not None:
        assert worker.is_on()
        return letter(worker.last.error)
    if worker.last.switch == OFF:
        return "–"
    assert worker.is_on()
    assert await admin.get(keys.switch) == b"1"
    assert await admin.hkeys(keys.holds) == [b"theirs"]
    return "✓"


# -- what a caller does ----------------------------------------------------------------------------


async def turn_on(backend: RedisBackend) -> None:
    await backend.write(ON)


async def turn_off(backend: RedisBackend) -> None:
    await backend.write(OFF)


async def hold(backend: RedisBackend) -> None:
    taken = await backend.acquire(Hold("ours", ON), 60)
    assert await backend.renew(taken, 60)
    await backend.release(taken)


async def barrier(backend: RedisBackend) -> None:
    await backend.begin_barrier()
    await backend.read_registry()


async def outcome(doing: Awaitable[None], documented: str) -> str:
    try:
        await doing
    except BackendError as error:
        return letter(str(error))
    return "✓"


def letter(words: str) -> str:
    """Which of the README's sentences comes first in it; all of it, if none does."""
    found = {
        words.index(sentence): letter for letter, sentence in SENTENCES.items() if sentence in words
    }
    return found[min(found)] if found else words
