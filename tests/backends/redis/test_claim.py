"""Who tells the world of a change: one worker at a time, and another one if that dies over it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.base import StateChange
from fastapi_maintenance.backends.redis.claim import NotificationClaim
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.exceptions import BackendError
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

SOON: Final = 20.0


class Scene:
    """Workers that tell of things, by attempts with a short lease."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._backend = RedisBackend(url, timeout=10)
        self._key = keys.told
        self.told: list[str] = []

    async def attempt(
        self, news: StateChange, *, lease: float = 10.0, seconds: float = 0.0
    ) -> bool:
        async def tell(old: str) -> None:
            self.told.append(f"{old}>{news.now}")
            await asyncio.sleep(seconds)

        return await NotificationClaim(self._key, self._backend._ask, lease).notify_once(news, tell)

    @asynccontextmanager
    async def during(
        self, news: StateChange, *, lease: float = 10.0
    ) -> AsyncIterator[asyncio.Task[bool]]:
        """While a worker is telling, for ever."""
        task = asyncio.create_task(self.attempt(news, lease=lease, seconds=600))
        await eventually(lambda: self.told, within=SOON)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
def scene(redis_url: str, keys: Keys) -> Scene:
    return Scene(redis_url, keys)


def news(now: str, before: str = "0", *, at: float | None = None) -> StateChange:
    return StateChange(before, now, time.time() if at is None else at)


async def test_the_first_tells_and_the_others_hear_that_it_is_told(scene: Scene) -> None:
    assert any(await asyncio.gather(*(scene.attempt(news("1")) for _ in range(8))))
    assert all(await asyncio.gather(*(scene.attempt(news("1")) for _ in range(8))))

    assert scene.told == ["0>1"]


async def test_while_one_is_telling_the_others_have_to_ask_again(scene: Scene) -> None:
    async with scene.during(news("1")):
        assert not await scene.attempt(news("1"))
        assert not await scene.attempt(news("0", "1"))

    assert scene.told == ["0>1"]


async def test_claim_of_a_dead_worker_is_taken_by_another(scene: Scene) -> None:
    async with scene.during(news("1"), lease=0.3):
        pass
    await eventually(lambda: scene.attempt(news("1")), within=SOON)
    assert await scene.attempt(news("0", "1"))

    assert scene.told == ["0>1", "0>1", "1>0"]


async def test_claim_of_a_past_change_counts_as_notified(
    scene: Scene,
) -> None:
    async with scene.during(news("1"), lease=0.3):
        pass
    await eventually(lambda: scene.attempt(news("0")), within=SOON)

    assert scene.told == ["0>1", "1>0"]


class SlowToNote(NotificationClaim):
    """Its server takes its time to note that something is told."""

    def __init__(self) -> None:
        super().__init__("told", RedisBackend("redis://127.0.0.1:1")._ask)
        self.noting, self.server, self.noted = asyncio.Event(), asyncio.Event(), False

    async def _step(self, step: str, *args: str | int) -> tuple[str, str]:
        if step == "done":
            self.noting.set()
            await self.server.wait()
            self.noted = True
        return "tell", "0"


async def test_who_is_ending_still_notes_what_it_has_told() -> None:
    teller = SlowToNote()

    async def tell(old: str) -> None: ...

    telling = asyncio.create_task(teller.notify_once(news("1"), tell))
    await teller.noting.wait()
    telling.cancel()
    await asyncio.sleep(0.05)
    assert not telling.done()
    teller.server.set()
    await asyncio.wait([telling])

    assert telling.cancelled()
    assert teller.noted


async def test_who_takes_long_keeps_the_claim(scene: Scene) -> None:
    async with scene.during(news("1"), lease=1.5):
        for _ in range(30):  # twice the lease
            await asyncio.sleep(0.1)
            assert not await scene.attempt(news("1"))


async def test_lost_claim_is_neither_renewed_nor_settled(
    scene: Scene, redis_server: RedisServer, keys: Keys
) -> None:
    telling = asyncio.create_task(scene.attempt(news("1"), lease=0.3, seconds=0.6))
    await eventually(lambda: scene.told, within=SOON)
    redis_server.cli("HSET", keys.told, "teller", "another", "until", "99999999999999999")
    assert await telling

    assert redis_server.cli("HGET", keys.told, "until") == "99999999999999999"


async def test_who_knew_something_older_has_to_look_again(scene: Scene) -> None:
    now = time.time()
    assert await scene.attempt(news("1", at=now - 2))
    assert await scene.attempt(news("0", "1", at=now - 1))
    assert not await scene.attempt(news("1", at=now - 1.5))
    assert await scene.attempt(news("1", at=now))

    assert scene.told == ["0>1", "1>0", "0>1"]


async def test_a_clock_that_went_back_silences_nobody(scene: Scene) -> None:
    assert await scene.attempt(news("1", at=time.time() + 3600))
    assert await scene.attempt(news("0", "1"))


async def test_after_a_loss_of_data_each_goes_by_what_it_saw_itself(
    scene: Scene, redis_server: RedisServer
) -> None:
    await scene.attempt(news("1"))
    redis_server.cli("FLUSHALL")
    assert await scene.attempt(news("0", "1"))
    assert await scene.attempt(news("0", "1"))

    assert scene.told == ["0>1", "1>0"]


async def test_what_is_not_ours_is_an_error_and_nothing_is_told(
    scene: Scene, redis_server: RedisServer, keys: Keys
) -> None:
    redis_server.cli("SET", keys.told, "x")
    with pytest.raises(
        BackendError,
        match=r"Redis cannot say who is to tell of a change: .*(WRONGTYPE|ResponseError)",
    ):
        await scene.attempt(news("1"))

    assert scene.told == []


async def test_garbage_in_the_record_is_told_over(
    scene: Scene, redis_server: RedisServer, keys: Keys
) -> None:
    redis_server.cli("HSET", keys.told, "state", "?", "at", "x", "until", "y")
    assert await scene.attempt(news("1"))

    assert scene.told == ["?>1"]


async def test_it_is_told_although_that_cannot_be_noted(
    scene: Scene, redis_server: RedisServer, keys: Keys
) -> None:
    telling = asyncio.create_task(scene.attempt(news("1"), lease=0.3, seconds=0.6))
    await eventually(lambda: scene.told, within=SOON)
    redis_server.cli("DEL", keys.told)
    redis_server.cli("SET", keys.told, "x")

    assert await telling


@pytest.mark.parametrize("redis_user", ["worker", "operator"], indirect=True)
async def test_it_takes_no_more_rights_than_a_worker_has(scene: Scene) -> None:
    assert await scene.attempt(news("1"))
    assert await scene.attempt(news("0", "1"))


@pytest.mark.parametrize("redis_user", ["readonly"], indirect=True)
async def test_who_may_only_read_tells_nothing(scene: Scene) -> None:
    with pytest.raises(BackendError, match="Redis cannot say who is to tell of a change"):
        await scene.attempt(news("1"))

    assert scene.told == []


@pytest.mark.every_redis
async def test_every_version_of_redis_can_keep_the_record(scene: Scene) -> None:
    assert await scene.attempt(news("1"))
    assert await scene.attempt(news("1"))

    assert scene.told == ["0>1"]


KILLED: Final = """
import asyncio, os, signal, sys
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.base import StateChange
from fastapi_maintenance.backends.redis.claim import NotificationClaim

async def tell(old):
    os.kill(os.getpid(), signal.SIGKILL)

backend = RedisBackend(sys.argv[1])
claim = NotificationClaim("{maintenance}:told", backend._ask, 0.5)
asyncio.run(claim.notify_once(StateChange("0", "1", 1.0), tell))
"""


async def test_a_process_that_is_killed_while_it_tells_is_stood_in_for(
    scene: Scene, redis_url: str
) -> None:
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, redis_url], timeout=50, check=False
    )
    assert killed.returncode == -signal.SIGKILL

    await eventually(lambda: scene.attempt(news("1")), within=SOON)
    assert scene.told == ["0>1"]
