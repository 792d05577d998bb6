"""Every backend keeps every promise of the conformance suite; and the suite notices one that does
not.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from fastapi_maintenance.backends import (
    BaseStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    RedisBackend,
    backend_from_url,
)
from fastapi_maintenance.backends.base import StateChange, SupportsHistory
from fastapi_maintenance.model.history import Change
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import MaintenanceState
from fastapi_maintenance.testing import conformance
from fastapi_maintenance.testing.conformance import CHECKS, MakeBackend
from tests.cli.imitation import imitation
from tests.support.topologies import Cluster, SentinelGroup, cluster, sentinel_group

TTL: Final = 0.3
# A link fails that is not answered within half of it, and no machine may stand still for so long.
LINKED_TTL: Final = 2.0


class TwoMethods(BaseStateBackend):
    """What the documentation tells users to write, by one who calls nobody's `__init__`."""

    ttl = TTL

    def __init__(self, store: dict[str, bool]) -> None:
        self.store = store

    async def get_value(self) -> bool:
        return self.store.get("on", False)

    async def set_value(self, value: bool) -> None:
        self.store["on"] = value


class WithHelpers(BaseStateBackend):
    """One written for the modelled package, with the helpers that its base class has."""

    ttl = TTL

    def __init__(self, store: dict[str, str]) -> None:
        self.store = store

    async def get_value(self) -> bool:
        return self._str_to_bool(self.store.get("value", "0"))

    async def set_value(self, value: bool) -> None:
        self.store["value"] = self._bool_to_str(value)


Kind = Callable[[pytest.FixtureRequest, AsyncExitStack], Awaitable[MakeBackend]]


async def env(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    return EnvVarBackend


async def file(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    directory: Path = request.getfixturevalue("tmp_path")
    return partial(LocalFileBackend, directory / "maintenance.json", ttl=TTL)


async def redis_by_url(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    return partial(
        backend_from_url,
        f"{request.getfixturevalue('redis_url')}?ttl={LINKED_TTL}&timeout=30&key=shop:{{eu}}:maintenance",
    )


async def redis_by_client(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    client: Any = Redis.from_url(request.getfixturevalue("redis_url"), decode_responses=True)
    await stack.enter_async_context(client)
    return partial(RedisBackend, client=client, ttl=LINKED_TTL, timeout=30.0)


async def redis_without_resp3(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    settings: Path = request.getfixturevalue("tmp_path") / "resp2.conf"
    settings.write_text('rename-command HELLO ""\n')
    server = request.getfixturevalue("own_redis_server")(config={"include": str(settings)})
    return partial(RedisBackend, server.url, ttl=LINKED_TTL, timeout=30.0)


async def redis_behind_sentinels(
    request: pytest.FixtureRequest, stack: AsyncExitStack
) -> MakeBackend:
    group: SentinelGroup = request.getfixturevalue("group")
    master = await asyncio.to_thread(group.master)
    await master.acli("FLUSHALL")
    return partial(RedisBackend, group.url, ttl=LINKED_TTL, timeout=10.0)


async def redis_cluster(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    nodes: Cluster = request.getfixturevalue("nodes")
    await nodes.owner.acli("FLUSHALL")
    return partial(RedisBackend, nodes.url, ttl=LINKED_TTL, timeout=10.0)


async def fakeredis_by_url(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    return partial(
        RedisBackend, await stack.enter_async_context(imitation()), ttl=LINKED_TTL, timeout=30.0
    )


async def fakeredis_by_client(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    client: Any = FakeAsyncRedis(server=FakeServer())
    await stack.enter_async_context(client)
    return partial(RedisBackend, client=client, ttl=LINKED_TTL, timeout=30.0)


async def two_methods(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    return partial(TwoMethods, {})


async def with_helpers(request: pytest.FixtureRequest, stack: AsyncExitStack) -> MakeBackend:
    return partial(WithHelpers, {})


KINDS: Final = [
    env,
    file,
    redis_by_url,
    redis_by_client,
    redis_without_resp3,
    redis_behind_sentinels,
    redis_cluster,
    pytest.param(fakeredis_by_url, marks=pytest.mark.may_block),  # starting the server does
    fakeredis_by_client,
    two_methods,
    with_helpers,
]


@pytest.fixture(scope="module")
def group() -> Iterator[SentinelGroup]:
    with sentinel_group() as group:
        yield group


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster() as nodes:
        yield nodes


@asynccontextmanager
async def factory_of(kind: Kind, request: pytest.FixtureRequest) -> AsyncIterator[MakeBackend]:
    async with AsyncExitStack() as stack:
        yield await kind(request, stack)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_backend_conforms(
    request: pytest.FixtureRequest, kind: Kind, check: Callable[[MakeBackend], Awaitable[None]]
) -> None:
    async with factory_of(kind, request) as make:
        await check(make)


@pytest.mark.every_redis
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_every_version_of_redis_conforms(
    redis_url: str, check: Callable[[MakeBackend], Awaitable[None]]
) -> None:
    await check(partial(RedisBackend, redis_url, ttl=LINKED_TTL, timeout=30.0))


@pytest.mark.parametrize("redis_user", ["worker", "operator"], indirect=True)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_backend_with_the_least_rights_conforms(
    redis_url: str, check: Callable[[MakeBackend], Awaitable[None]]
) -> None:
    """Of the users in backends/redis/users.acl who may write."""
    await check(partial(RedisBackend, redis_url, ttl=LINKED_TTL, timeout=30.0))


def test_checks_are_documented_coroutines_of_a_backend() -> None:
    assert len(CHECKS) == 26
    assert all(
        check.__doc__ and list(inspect.signature(check).parameters) == ["make"] for check in CHECKS
    )


# -- the suite itself ------------------------------------------------------------------------------


class Broken(TwoMethods):
    """Breaks one promise, as its name says."""


class ForgetsHolds(Broken):
    async def acquire(self, hold: Hold, lease: float) -> Hold:
        return hold


class NeverEndsHolds(Broken):
    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        pass


class RenewsWhatWasEnded(Broken):
    async def renew(self, hold: Hold, lease: float) -> bool:
        return True


class WritesNothing(Broken):
    async def set_value(self, value: bool) -> None:
        pass


class OverwritesOthers(Broken):
    async def compare_and_set(
        self, expected: Snapshot, state: MaintenanceState, **options: Any
    ) -> bool:
        await self.write(state)
        return True


class LosesDetails(Broken):
    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        await super().write(MaintenanceState(enabled=state.enabled))


class KeepsAnything(LosesDetails):
    """Of any length."""


class LastsForAnyTime(LosesDetails):
    """Also for none."""


class TellsNobody(Broken):
    def publish(self, reading: Snapshot, at: float) -> None:
        pass


class WatchesNothing(Broken):
    async def watch(self, feed: Any) -> None:
        feed.update(await self.read(), 0.0)
        await asyncio.Event().wait()


class RepeatsItself(Broken):
    async def notify_once(self, news: StateChange, tell: Callable[[str], Awaitable[None]]) -> bool:
        await tell(news.before)
        return True


class RecordsNothing(Broken, SupportsHistory):
    async def history(
        self, *, limit: int = 100, component: str | None = None
    ) -> tuple[Change, ...]:
        return ()


class DeniesItsRecords(Broken):
    async def history(
        self, *, limit: int = 100, component: str | None = None
    ) -> tuple[Change, ...]:
        return ()


class ShowsItsMemory(Broken):
    def describe(self) -> str:
        return f"{self!r}"


class StaysInTheDark(Broken):
    async def last_known(self) -> Snapshot | None:
        return None


class CannotBeCancelled(Broken):
    async def watch(self, feed: Any) -> None:
        try:
            await super().watch(feed)
        except asyncio.CancelledError:
            await asyncio.sleep(5)


BROKEN: Final[dict[type[Broken], Callable[[MakeBackend], Awaitable[None]]]] = {
    ForgetsHolds: conformance.hold_is_active_until_released,
    NeverEndsHolds: conformance.overlapping_holds_end_in_any_order,
    RenewsWhatWasEnded: conformance.clear_turns_off_and_ends_every_hold,
    WritesNothing: conformance.write_is_read_by_every_instance,
    OverwritesOthers: conformance.compare_and_set_rejects_stale_reads,
    LosesDetails: conformance.details_are_kept_or_refused,
    KeepsAnything: conformance.invalid_write_is_refused,
    LastsForAnyTime: conformance.invalid_write_is_refused,
    TellsNobody: conformance.own_change_is_published_at_once,
    WatchesNothing: conformance.watch_reports_changes_by_others,
    RepeatsItself: conformance.notification_is_not_repeated,
    RecordsNothing: conformance.changes_are_recorded_or_history_is_refused,
    DeniesItsRecords: conformance.changes_are_recorded_or_history_is_refused,
    ShowsItsMemory: conformance.description_is_one_stable_line,
    StaysInTheDark: conformance.last_known_state_survives_a_restart,
    CannotBeCancelled: conformance.cancelled_watch_ends,
}


class CannotBeRead(TwoMethods):
    """As one whose server is away."""

    async def get_value(self) -> bool:
        raise OSError("nobody is there")


async def test_cancelled_watch_of_a_failing_backend_ends() -> None:
    await conformance.cancelled_watch_ends(partial(CannotBeRead, {}))


@pytest.mark.parametrize("backend", BROKEN)
async def test_broken_backend_fails_its_check(backend: type[Broken]) -> None:
    with pytest.raises(AssertionError):
        await BROKEN[backend](partial(backend, {}))
