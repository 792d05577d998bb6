from __future__ import annotations

import time
from dataclasses import replace

import anyio
import pytest

from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, RedisBackend
from fastapi_maintenance.backends.base import SnapshotListener
from fastapi_maintenance.backends.status import StatusReport, label
from fastapi_maintenance.cli.watch import Observation, Observer
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import ON

from ..conftest import RedisServerFactory
from ..support.servers import RedisServer
from ..support.waiting import eventually


async def until(observer: Observer, state: str, *, source: str = "redis") -> Observation:
    """What is seen when the state is that and comes from there."""

    async def seen() -> Observation | None:
        sight = await observer.look()
        return sight if (label(sight.report.state), sight.source) == (state, source) else None

    sight = await eventually(seen, within=30)
    assert sight is not None
    return sight


async def test_a_bare_set_wakes_the_observer_at_once(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with Observer(RedisBackend(redis_url, ttl=60)) as observer:
        await until(observer, "off")
        await redis_server.acli("SET", "maintenance", "1")
        started = time.monotonic()
        while label((await observer.look()).report.state) == "off":
            await observer.wait()
        assert time.monotonic() - started < 15


async def test_waiting_ends_by_itself_because_ages_grow() -> None:
    async with Observer(EnvVarBackend("CLOSED")) as observer:
        await observer.look()
        await observer.wait(0.01)
        assert not observer.ended


async def test_an_ended_observer_waits_no_more() -> None:
    observer = Observer(EnvVarBackend("CLOSED"))
    observer.end()
    await observer.wait()
    assert observer.ended


async def test_observer_sees_an_environment_variable_as_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Observer(EnvVarBackend("CLOSED")) as observer:
        assert label((await observer.look()).report.state) == "off"
        monkeypatch.setenv("CLOSED", "1")
        sight = await observer.look()
        assert (label(sight.report.state), sight.source) == ("on", "env")


async def test_what_was_never_heard_of_is_unknown_and_says_why(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although a worker would ask its fallbacks: the environment here is not the one that workers
    have.
    """
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    async with Observer(
        RedisBackend(f"redis://:s3cret@127.0.0.1:{free_port}/0", ttl=0.2)
    ) as observer:
        sight = await until(observer, "unknown", source="nowhere")
        assert sight.age is None
        error = sight.report.reading.error
        assert error is not None
        assert f"127.0.0.1:{free_port}" in error
        assert "s3cret" not in error


class Late(EnvVarBackend):
    """A backend of which the first news comes later than a worker would wait for it."""

    ttl = 0.02
    read_nowait = BaseStateBackend.read_nowait  # type: ignore[assignment]

    def __init__(self, after: float) -> None:
        super().__init__("CLOSED")
        self.after = after

    async def watch(self, feed: SnapshotListener) -> None:
        await anyio.sleep(self.after)
        feed.update(Snapshot(ON, now=time.time()), time.monotonic())
        await anyio.sleep_forever()


async def test_the_first_look_waits_for_the_first_news() -> None:
    """A slow start must not look like an outage."""
    async with Observer(Late(0.2)) as observer:
        assert label((await observer.look()).report.state) == "on"


async def test_silence_is_news_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file on a network file system that hangs."""
    monkeypatch.setattr("fastapi_maintenance.cli.watch._FIRST_TIMEOUT", 0.1)
    async with Observer(Late(3600)) as observer:
        assert (await observer.look()).report.reading.error == "The backend has not answered yet."


async def test_the_last_known_state_stays_and_ages_while_redis_is_away(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    await server.acli("SET", "maintenance", "1")
    async with Observer(RedisBackend(server.url, ttl=1.0)) as observer:
        fresh = await until(observer, "on")
        assert fresh.age is not None
        assert fresh.age < 1.0
        server.kill()
        old = await until(observer, "on", source="last-known")
        assert old.age is not None
        assert old.age > 2.0


async def test_a_value_that_was_never_readable_is_unknown(
    redis_url: str, redis_server: RedisServer
) -> None:
    await redis_server.acli("SET", "maintenance", "perhaps")
    async with Observer(RedisBackend(redis_url)) as observer:
        sight = await until(observer, "unknown")
        assert sight.age is not None
        assert sight.report.at == pytest.approx(time.time(), abs=30)


async def test_nobody_waits_for_an_observer(redis_url: str, redis_server: RedisServer) -> None:
    """It is not in the registry of workers, neither while it looks nor afterwards."""
    async with Observer(RedisBackend(redis_url)) as observer:
        await until(observer, "off")
        assert await redis_server.acli("EXISTS", "{maintenance}:registry") == "0"
    assert redis_server.cli("EXISTS", "{maintenance}:registry") == "0"


def sight(reading: Snapshot, *, source: str = "redis", age: float | None = 0.0) -> Observation:
    return Observation(StatusReport("redis://host", "redis", reading, reading.now), source, age)


def test_time_that_passes_is_no_change() -> None:
    reading = Snapshot(ON, (Hold("a", ON, 1.0, 100.0),), now=10.0)
    later = replace(
        reading, now=20.0, holds=(Hold("a", ON, 1.0, 130.0),), fingerprint="other", epoch=7
    )
    assert sight(reading).key == sight(later, age=3.0).key


@pytest.mark.parametrize(
    "other",
    [
        sight(Snapshot(now=10.0)),
        sight(Snapshot(ON, now=10.0), source="last-known"),
        sight(Snapshot(ON, now=10.0, error="It is garbage.")),
        sight(Snapshot(ON, (Hold("a", ON),), now=10.0)),
        sight(Snapshot(ON, None, now=10.0)),
        sight(Snapshot(ON, now=10.0, expires_in=5.0)),
    ],
)
def test_everything_else_is_a_change(other: Observation) -> None:
    assert sight(Snapshot(ON, now=10.0)).key != other.key


def test_json_is_that_of_the_report_with_source_and_age() -> None:
    seen = sight(Snapshot(ON, now=10.0), age=0.25)
    assert seen.to_json() == seen.report.to_json() | {"source": "redis", "age": 0.25}
