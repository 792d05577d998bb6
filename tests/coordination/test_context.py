"""Blocks in which the service is closed, or open: alone, nested, overlapping with those of other
replicas, failing.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import httpx2
import pytest
from fastapi import Depends, FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    get_maintenance_mode,
    maintenance_mode_off,
    maintenance_mode_on,
)
from fastapi_maintenance.backends import (
    BaseStateBackend,
    EnvVarBackend,
    RedisBackend,
    backend_from_url,
)
from fastapi_maintenance.coordination.barrier import BarrierResult
from fastapi_maintenance.coordination.context import MaintenanceContext
from fastapi_maintenance.coordination.lease import LeaseKeeper
from fastapi_maintenance.exceptions import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    LeaseLostError,
    UnsupportedError,
)
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..conftest import RedisServerFactory
from ..support.doubles import LeasedBoard, Switchboard
from ..support.holders import Holder, Program
from ..support.leasing import critical_lines, lease_threads
from ..support.servers import RedisServer
from ..support.waiting import eventually, eventually_sync

KINDS: Final = ["env", "board", "file", "redis"]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], BaseStateBackend]:
    """Makes a backend of a kind; two of the kind file or redis are as two replicas have them."""

    def make(kind: str) -> BaseStateBackend:
        if kind == "env":
            return EnvVarBackend()
        if kind == "board":
            return Switchboard()
        return backend_from_url(
            f"file:{tmp_path / 'm.json'}"
            if kind == "file"
            else request.getfixturevalue("redis_url")
        )

    return make


async def effective(backend: BaseStateBackend) -> MaintenanceState:
    """What switch and holds mean together, as the backend itself says."""
    reading = await backend.read()
    return evaluate(reading, reading.now).state


async def is_on(backend: BaseStateBackend) -> bool:
    return (await effective(backend)).enabled


def is_on_sync(backend: BaseStateBackend) -> bool:
    return asyncio.run(is_on(backend))


# -- one block -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_the_service_is_closed_for_the_length_of_a_block(
    make: Callable[[str], BaseStateBackend], kind: str
) -> None:
    backend = make(kind)

    async with maintenance_mode_on(
        backend, reason="OPS-1", message="Soon", retry_after=60, mode="read-only"
    ) as block:
        state = await effective(backend)
        assert (state.enabled, state.reason, state.message, state.retry_after, state.mode) == (
            True,
            "OPS-1",
            "Soon",
            60,
            "read-only",
        )
        assert state.by is not None
        assert state.by.endswith(f":{os.getpid()}")
        assert state.since is not None
        assert block.lost is False
        block.check()

    assert not await is_on(backend)
    assert (await backend.read()).holds == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_needs_no_event_loop(make: Callable[[str], BaseStateBackend], kind: str) -> None:
    backend = make(kind)

    with maintenance_mode_on(backend, reason="a script") as block:
        assert is_on_sync(backend)
        block.check()

    assert not is_on_sync(backend)
    eventually_sync(lambda: lease_threads() == [], within=30)


@pytest.mark.parametrize("kind", ["board", "file", "redis"])
async def test_the_service_is_open_for_the_length_of_an_off_block(
    make: Callable[[str], BaseStateBackend], kind: str
) -> None:
    backend = make(kind)
    await backend.write(ON)

    async with maintenance_mode_off(backend, reason="smoke test"):
        assert not await is_on(backend)
        assert (await effective(backend)).reason == "smoke test"

    assert await is_on(backend)


@pytest.mark.parametrize("kind", KINDS)
async def test_nested_blocks_each_have_their_say(
    make: Callable[[str], BaseStateBackend], kind: str
) -> None:
    backend = make(kind)

    async with maintenance_mode_on(backend):
        async with maintenance_mode_off(backend):
            assert not await is_on(backend)
            async with maintenance_mode_on(backend):
                assert await is_on(backend)
            assert not await is_on(backend)
        assert await is_on(backend)
    assert not await is_on(backend)


def test_nested_blocks_each_have_their_say_in_scripts(redis_url: str) -> None:
    backend = RedisBackend(redis_url)

    with maintenance_mode_on(backend):
        with maintenance_mode_off(backend):
            assert not is_on_sync(backend)
        assert is_on_sync(backend)
    assert not is_on_sync(backend)


async def test_an_off_block_after_an_on_block_lifts_nothing_of_it(redis_url: str) -> None:
    """What it names is gone; a hold of the same name would be a stranger's."""
    backend = RedisBackend(redis_url)
    async with maintenance_mode_on(backend), maintenance_mode_on(backend):
        assert [hold.lifts for hold in (await backend.read()).holds or ()] == [(), ()]

    async with maintenance_mode_off(backend):
        (hold,) = (await backend.read()).holds or ()
        assert hold.lifts == ()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_off_block_never_lifts_somebody_elses_hold(
    make: Callable[[str], BaseStateBackend], kind: str
) -> None:
    backend = make(kind)
    held, over = asyncio.Event(), asyncio.Event()

    async def migrate() -> None:
        async with maintenance_mode_on(backend):
            held.set()
            await over.wait()

    migration = asyncio.create_task(migrate())
    await held.wait()
    async with maintenance_mode_off(backend):
        assert await is_on(backend)
        async with maintenance_mode_on(backend), maintenance_mode_off(backend):
            assert await is_on(backend)
        over.set()
        await migration
        assert not await is_on(backend)


async def test_a_block_can_be_entered_again_but_not_twice_at_once(
    make: Callable[[str], BaseStateBackend],
) -> None:
    block = maintenance_mode_on(backend := make("file"))

    for _ in range(2):
        async with block:
            with pytest.raises(RuntimeError, match=r"already entered\. Call maintenance_mode_on"):
                await block.__aenter__()
            assert await is_on(backend)
        assert not await is_on(backend)
    with pytest.raises(RuntimeError, match="was never entered"):
        await block.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match="was never entered"):
        block.__exit__(None, None, None)


async def test_a_backend_may_be_given_by_its_url(redis_url: str, tmp_path: Path) -> None:
    for url in (redis_url, f"file:{tmp_path / 'm.json'}"):
        async with maintenance_mode_on(url):
            assert await is_on(backend_from_url(url))
        assert not await is_on(backend_from_url(url))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lease": 0}, "lease must be a positive number of seconds, got 0"),
        ({"on_error": "panic"}, "on_error must be release or keep, got 'panic'"),
        ({"on_lost": "panic"}, "on_lost must be tell or cancel, or a function, got 'panic'"),
        ({"drain": 0}, "drain must be a positive number of seconds, got 0"),
        ({"retry_after": -1}, "Invalid maintenance options: .*retry_after"),
        ({"mode": "half"}, "Invalid maintenance options: .*mode"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){sentence}"):
        maintenance_mode_on(**options)


def test_a_backend_that_cannot_be_meant_is_refused_on_entering() -> None:
    with pytest.raises(ConfigurationError, match="cannot start with 'nowhere'"):
        maintenance_mode_on("nowhere:").__enter__()


# -- blocks of several replicas --------------------------------------------------------------------


def test_overlapping_blocks_end_in_no_permanent_outage(redis_url: str) -> None:
    """In two processes, in both orders of release."""
    backend = RedisBackend(redis_url)

    with Holder(redis_url) as one, Holder(redis_url) as other:
        for leaving, staying in ((one, other), (other, one)):
            leaving.leave()
            assert is_on_sync(backend)
            staying.leave()
            assert not is_on_sync(backend)
            one.enter()
            other.enter()
            assert is_on_sync(backend)


class Replica:
    """Enters and leaves blocks, as the code of one process or request does: its blocks know which
    ones enclose them.
    """

    def __init__(self, backend: BaseStateBackend) -> None:
        self.backend = backend
        self.blocks: list[tuple[MaintenanceContext, Model]] = []
        self._context = contextvars.copy_context()

    async def enter(self, enabled: bool) -> Model:
        block = maintenance_mode_on(self.backend) if enabled else maintenance_mode_off(self.backend)
        model = Model(enabled, [other for _, other in self.blocks if other.enabled])
        self.blocks.append((block, model))
        await self._run(block.__aenter__())
        return model

    async def leave(self, which: int) -> Model:
        block, model = self.blocks.pop(which % len(self.blocks))
        await self._run(block.__aexit__(None, None, None))
        return model

    async def _run(self, step: Awaitable[Any]) -> None:
        async def awaiting() -> None:
            await step

        await asyncio.create_task(awaiting(), context=self._context)


class Model:
    """A hold as DESIGN.md, section 3, has it."""

    def __init__(self, enabled: bool, enclosing: Sequence[Model]) -> None:
        self.enabled = enabled
        self.lifts = enclosing


def should_be_on(live: Sequence[Model], switch: bool) -> bool:
    """On while any on hold stands that no live off hold of its own block lifts; else off while any
    off hold lives; else the switch's.
    """
    lifted = [id(on) for off in live if not off.enabled for on in off.lifts]
    if any(hold.enabled and id(hold) not in lifted for hold in live):
        return True
    return False if any(not hold.enabled for hold in live) else switch


STEPS: Final = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["on", "off", "leave"]), st.integers(0, 3)),
    min_size=2,
    max_size=10,
)


@pytest.mark.parametrize("kind", ["board", "file", "redis"])
@given(switch=st.booleans(), steps=STEPS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_blocks_of_three_replicas_compose_in_every_order(
    make: Callable[[str], BaseStateBackend],
    kind: str,
    switch: bool,
    steps: list[tuple[int, str, int]],
) -> None:
    async def run() -> None:
        shared = make(kind)
        await shared.write(ON if switch else OFF)
        replicas = [Replica(shared if kind == "board" else make(kind)) for _ in range(3)]
        live: list[Model] = []
        everybody_leaves = [(number, "leave", 0) for number in range(3) for _ in range(len(steps))]
        for number, step, which in steps + everybody_leaves:
            replica = replicas[number]
            if step != "leave":
                live.append(await replica.enter(step == "on"))
            elif replica.blocks:
                live.remove(await replica.leave(which))
            else:
                continue
            assert await is_on(shared) is should_be_on(live, switch)
        assert not live

    asyncio.run(run())


async def test_switch_set_by_operator_inside_block_stays(
    make: Callable[[str], BaseStateBackend],
) -> None:
    backend = make("redis")

    async with maintenance_mode_on(make("redis")):
        await backend.write(ON)
    assert await is_on(backend)

    async with maintenance_mode_off(make("redis")):
        await backend.write(OFF)
    assert not await is_on(backend)
    async with maintenance_mode_on(make("redis")):
        await backend.write(OFF)
        assert await is_on(backend)


@pytest.mark.parametrize("kind", ["env", "board", "file", "redis"])
async def test_in_its_own_process_a_block_takes_effect_at_once(
    make: Callable[[str], BaseStateBackend], kind: str
) -> None:
    backend = make(kind)
    backend.ttl = 30.0

    async with MaintenanceMode(backend) as mode:
        for _ in range(10):
            async with maintenance_mode_on(backend):
                assert (await mode.refresh()).closure is not None
            assert (await mode.refresh()).closure is None


async def test_block_that_blocks_the_loop_keeps_its_lease(
    redis_url: str,
) -> None:
    seen: list[bool] = []
    over = threading.Event()

    def look() -> None:
        other = RedisBackend(redis_url)
        while not over.wait(0.05):
            seen.append(is_on_sync(other))

    async with maintenance_mode_on(redis_url, lease=2.0) as block:
        observer = threading.Thread(target=look)
        observer.start()
        time.sleep(5.0)
        over.set()
        observer.join()
        block.check()

    assert len(seen) > 10
    assert all(seen)
    assert not await is_on(RedisBackend(redis_url))


def test_no_thread_is_left(redis_url: str, tmp_path: Path) -> None:
    before = set(threading.enumerate())

    async def enter(url: str) -> None:
        async with maintenance_mode_on(url):
            assert len(lease_threads()) == 1

    for url in (redis_url, f"file:{tmp_path / 'm.json'}"):
        asyncio.run(enter(url))
        with maintenance_mode_on(url):
            assert len(lease_threads()) == 1

    eventually_sync(lambda: set(threading.enumerate()) <= before, within=30)


# -- in applications -------------------------------------------------------------------------------


async def test_the_quick_start_works_with_no_configuration_at_all() -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)

    @app.get("/")
    async def index() -> str:
        return "open"

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://test"
    ) as client:
        assert (await client.get("/")).status_code == 200
        async with maintenance_mode_on():
            assert (await client.get("/")).status_code == 503
            async with maintenance_mode_off():
                assert (await client.get("/")).status_code == 200
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_may_close_its_own_service(
    make: Callable[[str], BaseStateBackend], kind: str
) -> None:
    """Sync ones, in the thread pool, too; and what it does to itself it does to nobody after."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=make(kind))

    @app.get("/sync")
    def sync() -> int:
        with maintenance_mode_on():
            return client.get("/other").status_code

    @app.get("/async")
    async def asynchronous() -> int:
        async with maintenance_mode_on():
            return await asyncio.to_thread(lambda: client.get("/other").status_code)

    @app.get("/other")
    async def other() -> str:
        return "open"

    with TestClient(app) as client:
        for path in ("/sync", "/async"):
            assert client.get(path).json() == 503
            assert client.get("/other").status_code == 200


# -- decorators ------------------------------------------------------------------------------------


async def test_decorated_function_called_twice_has_two_blocks(
    make: Callable[[str], BaseStateBackend],
) -> None:
    backend = make("redis")

    @maintenance_mode_on(backend, reason="every night")
    async def migrate(n: int, *, factor: int = 2) -> tuple[int, bool, str | None]:
        """Do it."""
        return n * factor, await is_on(backend), (await effective(backend)).reason

    assert await migrate(3, factor=4) == (12, True, "every night")
    assert not await is_on(backend)
    one, two = await asyncio.gather(migrate(1), migrate(2))
    assert (one, two) == ((2, True, "every night"), (4, True, "every night"))
    assert not await is_on(backend)
    assert (migrate.__name__, migrate.__doc__) == ("migrate", "Do it.")
    assert list(inspect.signature(migrate).parameters) == ["n", "factor"]
    assert inspect.iscoroutinefunction(migrate)


def test_a_decorated_function_may_be_sync(make: Callable[[str], BaseStateBackend]) -> None:
    backend = make("file")
    asyncio.run(backend.write(ON))

    @maintenance_mode_off(backend)
    def test(n: int) -> tuple[int, bool]:
        return n + 1, is_on_sync(backend)

    assert test(1) == (2, False)
    assert is_on_sync(backend)
    assert not inspect.iscoroutinefunction(test)


async def test_what_a_decorated_function_raises_is_raised(
    make: Callable[[str], BaseStateBackend],
) -> None:
    backend = make("file")

    @maintenance_mode_on(backend)
    async def fail() -> None:
        raise LookupError("nothing")

    @maintenance_mode_on(backend)
    def fail_too() -> None:
        raise LookupError("nothing")

    with pytest.raises(LookupError, match="nothing"):
        await fail()
    with pytest.raises(LookupError, match="nothing"):
        await asyncio.to_thread(fail_too)
    assert not await is_on(backend)


async def test_methods_partials_and_callable_objects_can_be_decorated(
    make: Callable[[str], BaseStateBackend],
) -> None:
    backend = make("board")

    class Job:
        @maintenance_mode_on(backend)
        async def run(self) -> bool:
            return await is_on(backend)

        async def __call__(self, expected: bool) -> bool:
            return await is_on(backend) is expected

    assert await Job().run()
    assert await maintenance_mode_on(backend)(Job())(True)
    assert await maintenance_mode_on(backend)(partial(Job(), True))()
    assert not await is_on(backend)


async def test_decorated_generator_is_refused() -> None:
    def session() -> Iterator[int]:
        yield 1

    async def stream() -> AsyncGenerator[int]:
        yield 1

    assert [*session()] == [1]
    assert [n async for n in stream()] == [1]
    for generator in (session, stream):
        with pytest.raises(
            ConfigurationError,
            match=r"must not be a generator, got .*Use 'with' inside it",
        ):
            maintenance_mode_on()(generator)


def dependency(n: int) -> int:
    return n + 1


def test_fastapi_sees_the_signature_of_a_decorated_endpoint(
    make: Callable[[str], BaseStateBackend],
) -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=make("file"))

    @app.get("/async/{n}")
    @maintenance_mode_on()
    async def asynchronous(
        n: int, m: Annotated[int, Depends(dependency)], q: str = "x"
    ) -> list[int | str | bool]:
        return [n, m, q, await get_maintenance_mode()]

    @app.get("/sync/{n}")
    @maintenance_mode_on()
    def sync(n: int, m: Annotated[int, Depends(dependency)], q: str = "x") -> list[int | str]:
        return [n, m, q]

    with TestClient(app) as client:
        assert client.get("/async/1?q=y").json() == [1, 2, "y", True]
        assert client.get("/sync/1?q=y").json() == [1, 2, "y"]
        assert client.get("/sync/one").status_code == 422


# -- blocks that fail ------------------------------------------------------------------------------

FAILURES: Final = [
    ValueError("disk full"),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    SystemExit(3),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["board", "file", "redis"])
async def test_a_failed_block_lets_go(
    make: Callable[[str], BaseStateBackend], kind: str, error: BaseException
) -> None:
    backend = make(kind)

    with pytest.raises(type(error)):
        async with maintenance_mode_on(backend):
            raise error
    assert not await is_on(backend)
    with pytest.raises(type(error)):
        await enter_sync(maintenance_mode_on(backend), error)
    assert not await is_on(backend)
    assert (await backend.read()).switch == OFF


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["file", "redis"])
@pytest.mark.parametrize("reason", [None, "OPS-1"])
async def test_a_failed_block_may_keep_the_service_closed(
    make: Callable[[str], BaseStateBackend], kind: str, error: BaseException, reason: str | None
) -> None:
    backend = make(kind)

    for enter in (enter_async, enter_sync):
        with pytest.raises(type(error)):
            await enter(
                maintenance_mode_on(backend, reason=reason, message="Soon", on_error="keep"), error
            )

        reading = await backend.read()
        assert reading.holds == ()
        assert reading.switch is not None
        assert reading.switch.enabled
        assert reading.switch.message == "Soon"
        assert reading.switch.by is not None
        summary = ": ".join(filter(None, (reason, type(error).__name__, str(error))))
        assert reading.switch.reason == summary
        await backend.write(OFF)


async def enter_async(block: MaintenanceContext, error: BaseException) -> None:
    async with block:
        raise error


async def enter_sync(block: MaintenanceContext, error: BaseException) -> None:
    def enter() -> None:
        with block:
            raise error

    await asyncio.to_thread(enter)  # as it blocks the thread


async def test_a_block_that_succeeds_keeps_nothing(make: Callable[[str], BaseStateBackend]) -> None:
    backend = make("redis")

    async with maintenance_mode_on(backend, on_error="keep"):
        pass

    assert not await is_on(backend)


async def test_a_backend_of_two_methods_keeps_what_it_can() -> None:
    backend = Switchboard()

    with pytest.raises(ValueError, match="disk full"):
        async with maintenance_mode_on(backend, reason="OPS-1", on_error="keep"):
            raise ValueError("disk full")

    assert backend.value is True
    assert (await backend.read()).holds == ()


@pytest.mark.parametrize("enter", [enter_async, enter_sync])
async def test_what_cannot_be_kept_is_told_and_leaves_no_hold_for_ever(
    enter: Callable[[MaintenanceContext, BaseException], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = EnvVarBackend()

    with pytest.raises(ValueError, match="disk full") as failure:
        await enter(maintenance_mode_on(backend, on_error="keep"), ValueError("disk full"))

    assert backend.read_nowait().holds == ()
    (note,) = failure.value.__notes__
    assert note.startswith("The hold could not be released (The environment variable")
    assert note.endswith("), and the switch was NOT kept on: turn it on by hand")
    assert critical_lines(caplog) == [note]


async def test_an_off_block_that_cannot_be_kept_says_so_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ValueError, match="disk full"):
        await enter_async(
            maintenance_mode_off(EnvVarBackend(), on_error="keep"), ValueError("disk full")
        )

    assert critical_lines(caplog)[0].endswith(
        "and the switch was NOT kept off: turn it off by hand"
    )


@pytest.mark.parametrize("in_async", [True, False])
@pytest.mark.parametrize(
    ("on_error", "end"),
    [
        ("release", "it expires within 1 s"),
        ("keep", "and the switch was NOT kept on: turn it on by hand"),
    ],
)
async def test_failed_release_hides_no_error_of_the_block(
    own_redis_server: RedisServerFactory,
    caplog: pytest.LogCaptureFixture,
    in_async: bool,
    on_error: Any,
    end: str,
) -> None:
    server = own_redis_server(config={"appendonly": "yes", "appendfsync": "always"})
    backend = RedisBackend(server.url, timeout=0.5)

    async def run_async() -> None:
        async with maintenance_mode_on(backend, lease=1.0, on_error=on_error):
            await asyncio.to_thread(server.kill)
            raise ValueError("disk full")

    def run_sync() -> None:
        with maintenance_mode_on(backend, lease=1.0, on_error=on_error):
            server.kill()
            raise ValueError("disk full")

    with pytest.raises(ValueError, match="disk full") as failure:
        await (run_async() if in_async else asyncio.to_thread(run_sync))

    (note,) = failure.value.__notes__
    assert "cannot be reached" in note
    assert note.endswith(end)
    assert critical_lines(caplog)[-1] == note
    server.start()
    await eventually(lambda: is_off(backend), within=30)


async def is_off(backend: BaseStateBackend) -> bool:
    return not await is_on(backend)


async def test_failed_release_after_success_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = LeasedBoard()
    backend.faults["release"] = BackendError("no.")

    async with maintenance_mode_on(backend):
        pass

    await eventually(
        lambda: (
            critical_lines(caplog)
            == ["The hold could not be released (no); it expires within 30 s"]
        ),
        within=30,
    )


# -- blocks that are not run -----------------------------------------------------------------------


@pytest.mark.parametrize("enter", [enter_async, enter_sync])
async def test_without_a_hold_the_block_is_not_run(
    own_redis_server: RedisServerFactory,
    enter: Callable[[MaintenanceContext, BaseException], Awaitable[None]],
) -> None:
    server = own_redis_server()
    server.stop()

    with pytest.raises(
        BackendUnavailableError,
        match=rf"^redis://127.0.0.1:{server.port}/0\?key=maintenance cannot be reached: ",
    ):
        await enter(maintenance_mode_on(server.url), AssertionError("the block was run"))
    server.start()
    assert server.cli("KEYS", "*") == ""


async def test_where_scripts_are_forbidden_entering_says_so(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    server.cli("ACL", "SETUSER", "default", "-@scripting")

    with pytest.raises(UnsupportedError, match="does not permit this user what holds"):
        await enter_async(maintenance_mode_on(server.url), AssertionError("the block was run"))


class SlowRedis(RedisBackend):
    """Is slow before it takes a hold, or after."""

    before = after = 0.0

    async def acquire(self, hold: Hold, lease: float) -> Hold:
        await asyncio.sleep(self.before)
        standing = await super().acquire(hold, lease)
        await asyncio.sleep(self.after)
        return standing


@pytest.mark.parametrize("when", ["before", "after"])
async def test_block_cancelled_while_entered_leaves_no_hold(
    redis_server: RedisServer, when: str
) -> None:
    backend = SlowRedis(redis_server.url)
    setattr(backend, when, 0.5)
    block = maintenance_mode_on(backend)
    entering = asyncio.create_task(block.__aenter__())
    await asyncio.sleep(0.25)

    entering.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await entering

    # It waits for the hold to be gone, as the process may be about to end.
    assert time.monotonic() - started < 25
    assert redis_server.cli("EXISTS", "{maintenance}:holds") == "0"
    with pytest.raises(RuntimeError, match="never entered"):
        await block.__aexit__(None, None, None)


async def test_block_cancelled_while_entered_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastapi_maintenance.coordination.context._RELEASE_TIMEOUT", 0.2)
    backend = LeasedBoard()
    backend.faults = {"acquire": 6.0, "release": BackendError("no")}
    entering = asyncio.create_task(maintenance_mode_on(backend).__aenter__())
    await eventually(backend.doing.is_set, within=30)

    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(entering, 5)

    await eventually(lambda: lease_threads() == [], within=30)
    gc.collect()
    assert caplog.records == []  # nor is an error left over that nobody asked for


@pytest.mark.parametrize("forever", [True, False])
async def test_block_cancelled_under_a_slow_backend_leaves_no_hold(
    forever: bool,
) -> None:
    """A hold without a lease would stand for ever."""
    backend = Switchboard()
    backend.hang()
    entering = asyncio.create_task(maintenance_mode_on(backend).__aenter__())
    await eventually(lambda: backend.reads > 0, within=30)

    entering.cancel()
    if not forever and backend.gate is not None:
        await eventually(lambda: backend.reads > 1, within=30)
        backend.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(entering, 30)

    backend.gate = None
    assert (await backend.read()).holds == ()


async def test_block_cancelled_while_left_releases_its_hold() -> None:
    backend = Switchboard()

    async def run() -> None:
        async with maintenance_mode_on(backend):
            backend.hang()

    leaving = asyncio.create_task(run())
    await eventually(lambda: backend.gate is not None and backend.reads == 2, within=30)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(leaving, 30)

    backend.gate = None
    assert (await backend.read()).holds == ()


async def test_block_cancelled_while_left_releases_in_background() -> None:
    backend = LeasedBoard()
    backend.faults["release"] = 0.3

    async def run() -> None:
        async with maintenance_mode_on(backend):
            pass

    leaving = asyncio.create_task(run())
    await eventually(backend.doing.is_set, within=30)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving

    assert backend.standing != {}
    await eventually(lambda: backend.standing == {}, within=30)


def test_ctrl_c_while_a_script_enters_a_block_leaves_no_hold() -> None:
    backend = LeasedBoard()
    backend.faults["acquire"] = 0.5
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt):
        maintenance_mode_on(backend).__enter__()

    eventually_sync(lambda: backend.standing == {} and lease_threads() == [], within=30)
    assert (backend.steps[0], backend.steps[-1]) == ("acquire", "release")


# -- blocks that lose their hold -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "redis"])
async def test_off_by_force_ends_the_hold_and_its_block_can_see_that(
    make: Callable[[str], BaseStateBackend], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = make(kind)

    async with maintenance_mode_on(make(kind), lease=3.0) as block:
        await backend.clear()
        assert not await is_on(backend)
        await eventually(lambda: block.lost, within=30)
        with pytest.raises(LeaseLostError, match="was lost: an operator ended it by force"):
            block.check()
        await asyncio.sleep(0.4)
        assert not await is_on(backend)

    assert block.lost
    assert len(critical_lines(caplog)) == 1
    assert not await is_on(backend)
    async with block:
        assert not block.lost


async def test_off_by_force_is_not_undone_by_the_failed_block(
    redis_url: str,
) -> None:
    backend = RedisBackend(redis_url)

    async def run() -> None:
        async with maintenance_mode_on(redis_url, lease=3.0, on_error="keep") as block:
            await backend.clear()
            await eventually(lambda: block.lost, within=30)
            block.check()

    with pytest.raises(LeaseLostError):
        await run()
    assert not await is_on(backend)


@pytest.mark.parametrize("on_error", ["release", "keep"])
async def test_hold_ended_just_before_its_block_is_lost(redis_url: str, on_error: Any) -> None:
    """The block must not believe that it was closed all the time; nor may what it would keep undo
    what the operator did.
    """
    backend = RedisBackend(redis_url)
    block = maintenance_mode_on(redis_url, on_error=on_error)

    async def run() -> None:
        async with block:
            await backend.clear()
            raise ValueError("disk full")

    with pytest.raises(ValueError, match="disk full"):
        await run()
    assert block.lost
    assert not await is_on(backend)


async def test_off_by_force_is_noticed_within_a_second(redis_url: str) -> None:
    async with maintenance_mode_on(redis_url, lease=3600) as block:
        await RedisBackend(redis_url).clear()
        await eventually(lambda: block.lost, within=30)


async def test_lost_hold_with_a_function_calls_it_once(redis_url: str) -> None:
    losses: list[LeaseLostError] = []

    async with maintenance_mode_on(redis_url, lease=3.0, on_lost=losses.append) as block:
        await RedisBackend(redis_url).clear()
        await eventually(lambda: bool(losses), within=30)
        assert block.lost

    (loss,) = losses
    assert str(loss).endswith("was lost: an operator ended it by force")


def test_lost_hold_in_a_synchronous_block_calls_the_function(redis_url: str) -> None:
    losses: list[LeaseLostError] = []

    with maintenance_mode_on(redis_url, lease=3.0, on_lost=losses.append):
        asyncio.run(RedisBackend(redis_url).clear())
        eventually_sync(lambda: bool(losses), within=30)


def test_failing_loss_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    backend = LeasedBoard()

    def fail(error: LeaseLostError) -> None:
        raise OSError("no pager")

    with maintenance_mode_on(backend, lease=1.0, on_lost=fail):
        backend.revoked = True
        eventually_sync(lambda: "on_lost raised" in caplog.text, within=30)
        renewals = backend.steps.count("renew")
        eventually_sync(lambda: backend.steps.count("renew") > renewals, within=30)

    assert "no pager" in caplog.text


async def test_draining_block_with_progress_reports_it(redis_url: str) -> None:
    seen: list[BarrierResult] = []

    async with maintenance_mode_on(redis_url, drain=10.0, expect=0, progress=seen.append):
        assert seen[-1].ok
        assert seen[-1].state.enabled


async def test_a_lost_block_is_cancelled_if_it_asked_for_that(redis_url: str) -> None:
    backend, cleaned_up = RedisBackend(redis_url), False

    async def run() -> None:
        nonlocal cleaned_up
        async with maintenance_mode_on(redis_url, lease=3.0, on_lost="cancel"):
            await backend.clear()
            try:
                await asyncio.sleep(30)
            finally:
                cleaned_up = True

    with pytest.raises(
        LeaseLostError,
        match=r"The block was cancelled\. The hold .* was lost: an operator ended it by force",
    ) as loss:
        await run()
    assert cleaned_up
    assert isinstance(loss.value.__cause__, asyncio.CancelledError)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


def losing(backend: LeasedBoard) -> MaintenanceContext:
    """A block that is cancelled about a third of a second after `backend.revoked` is set."""
    return maintenance_mode_on(backend, lease=1.0, on_lost="cancel")


async def test_somebody_elses_cancellation_is_not_swallowed() -> None:
    backend = LeasedBoard()

    entered = asyncio.Event()

    async def run() -> None:
        async with losing(backend):
            entered.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(run())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert backend.standing == {}


async def test_of_two_cancellations_the_one_that_is_not_ours_goes_on() -> None:
    backend = LeasedBoard()

    async def run() -> None:
        async with losing(backend) as block:
            backend.revoked = True
            try:
                await asyncio.sleep(30)
            finally:
                assert block.lost
                task.cancel()

    task = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_timeout_around_a_lost_block_stays_a_timeout() -> None:
    backend = LeasedBoard()

    async def run() -> None:
        async with asyncio.timeout(30), losing(backend):
            backend.revoked = True
            await asyncio.sleep(30)

    with pytest.raises(LeaseLostError):
        await run()
    backend.revoked = False
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), losing(backend):
            await asyncio.sleep(30)


async def test_block_that_ends_by_itself_leaves_no_cancellation() -> None:
    backend, task = LeasedBoard(), asyncio.current_task()
    assert task is not None

    async with losing(backend):
        backend.revoked = True
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(30)
    assert task.cancelling() == 0

    async def run() -> None:
        async with losing(backend):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                raise LookupError from None

    with pytest.raises(LookupError):
        await run()
    assert task.cancelling() == 0


async def test_lost_block_in_a_cancelled_task_says_why_it_ended() -> None:
    backend, outcome = LeasedBoard(), "none"

    async def run() -> None:
        nonlocal outcome
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            try:
                async with losing(backend):  # the clean-up closes the service, too
                    backend.revoked = True
                    await asyncio.sleep(30)
            except LeaseLostError as error:
                outcome = str(error)
            raise

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "was lost: an operator ended it by force" in outcome


async def test_a_loss_that_is_told_while_the_block_is_left_says_so() -> None:
    backend = LeasedBoard()
    backend.faults["renew"] = 0.2

    async def run() -> None:
        async with maintenance_mode_on(backend, lease=0.9, on_lost="cancel"):
            backend.revoked = True
            # A renewal is under way, and will find out.
            await eventually(backend.doing.is_set, within=30)

    with pytest.raises(LeaseLostError):
        await run()
    await eventually(lambda: backend.standing == {}, within=30)


async def test_loss_found_after_the_block_cancels_nothing_else() -> None:
    backend = LeasedBoard()
    backend.faults["renew"] = 0.2
    block = maintenance_mode_on(backend, on_lost="cancel")

    async def run() -> str:
        with suppress(asyncio.CancelledError):  # as `asyncio.timeout` does
            async with block:
                backend.revoked = True
        await eventually(lambda: block.lost and backend.standing == {}, within=30)
        await asyncio.sleep(0.05)
        return "went on"

    task = asyncio.create_task(run())
    # The last renewal, before the hold is released.
    await eventually(backend.doing.is_set, within=30)
    task.cancel()
    assert await task == "went on"


def test_a_loss_after_the_event_loop_is_closed_harms_nobody() -> None:
    backend = LeasedBoard()
    loop = asyncio.new_event_loop()
    block = losing(backend)
    loop.run_until_complete(block.__aenter__())
    loop.close()

    backend.revoked = True
    eventually_sync(lambda: block.lost, within=30)
    renewals = backend.steps.count("renew")
    eventually_sync(lambda: backend.steps.count("renew") > renewals, within=30)

    assert isinstance(block._keeper, LeaseKeeper)
    block._keeper.submit_release().result(30)


def test_a_block_without_an_event_loop_cannot_be_cancelled() -> None:
    with pytest.raises(ConfigurationError, match="on_lost='cancel' must be used with 'async with'"):
        maintenance_mode_on(on_lost="cancel").__enter__()


async def test_a_hold_in_memory_is_never_lost_while_its_process_lives() -> None:
    async with maintenance_mode_on(Switchboard(), lease=0.1, on_lost="cancel") as block:
        await asyncio.sleep(0.3)
        assert not block.lost
        block.check()


# -- fork ------------------------------------------------------------------------------------------


FORKING: Final = """
import os, sys, time, warnings
from fastapi_maintenance import maintenance_mode_on

# Of forking while there are threads, which is the point.
warnings.simplefilter("ignore", DeprecationWarning)
with maintenance_mode_on(sys.argv[1]):
    child = os.fork()
    if child == 0:
        sys.exit(0)
    print("exit code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.stdin.readline()
"""


def test_a_child_forked_in_a_block_leaves_the_hold_to_its_parent(redis_url: str) -> None:
    """And ends: the thread that it would wait for is its parent's."""
    backend = RedisBackend(redis_url)

    with Program("-c", FORKING, redis_url) as parent:
        parent.expect("^exit code 0$")
        assert is_on_sync(backend)
        parent.say("leave")
        assert parent.wait(60) == 0
    assert not is_on_sync(backend)


async def test_block_cancelled_while_entered_keeps_as_told() -> None:
    backend = LeasedBoard()
    backend.faults = {"acquire": 0.3}
    entering = asyncio.create_task(maintenance_mode_on(backend, on_error="keep").__aenter__())
    await eventually(backend.doing.is_set, within=30)

    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering

    await eventually(lambda: backend.kept is not None, within=30)
    assert backend.standing == {}


def test_check_of_a_block_never_entered_passes() -> None:
    block = maintenance_mode_on(Switchboard())

    block.check()
    assert not block.lost
