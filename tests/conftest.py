"""What every test may ask for."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest
from blockbuster import BlockBuster
from coverage import Coverage
from hypothesis import HealthCheck, settings

from fastapi_maintenance.backends import default

from .support import ports
from .support.clock import Clock
from .support.servers import USERS, RedisServer
from .support.versions import INSTALLED, VERSIONS, program_of

# How fast examples are made says something about the machine, and nothing about what is tested.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_configure() -> None:
    """Undo what a shell's `&` and nohup do to programs: they and all their children ignore
    interrupts, and hanging up.
    """
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without looking for garbage, and keep them out of every search for it: they
    are a million objects.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class RedisServerFactory(Protocol):
    """Starts servers that end with the test; takes the options of `RedisServer`."""

    def __call__(self, **options: Any) -> RedisServer: ...


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that async tests run on: FastAPI's servers and redis-py know only asyncio."""
    return "asyncio"


@cache
def _guard() -> BlockBuster:
    """Return the only guard: making one takes longer than many a test."""
    guard = BlockBuster("fastapi_maintenance")
    acquire = guard.functions["threading.Lock.acquire"]
    may_block = acquire.can_block_predicate
    # Coverage takes its own lock wherever a line of ours is run for the first time.
    acquire.can_block_predicate = lambda lock, *args, **options: (
        lock is _lock_of_coverage() or may_block(lock, *args, **options)
    )
    return guard


def _lock_of_coverage() -> object:
    return getattr(getattr(Coverage.current(), "_collector", None), "data_lock", None)


@contextmanager
def no_blocking_calls() -> Iterator[None]:
    """Fail on a blocking call in an event loop that has our package on its stack."""
    guard = _guard()
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@pytest.fixture(autouse=True)
def _no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail on blocking calls, unless the test is marked `may_block`."""
    with nullcontext() if request.node.get_closest_marker("may_block") else no_blocking_calls():
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own environment, and the default that another test configured, out of
    the test.
    """
    monkeypatch.delenv("FASTAPI_MAINTENANCE_MODE", raising=False)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BACKEND", raising=False)
    monkeypatch.setattr(default._Default, "configured", None)
    monkeypatch.setattr(default._Default, "from_variable", None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that modes judge by."""
    clock = Clock()
    monkeypatch.setattr("fastapi_maintenance.runtime.mode.time", clock)
    return clock


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on."""
    return ports.free_port()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Trace no lines where that proves nothing: with it, a test computes up to thrice as long."""
    coverage = Coverage.current()
    if coverage is None or _is_traced(item):
        return (yield)
    coverage.stop()
    try:
        return (yield)
    finally:
        coverage.start()


def _is_traced(item: pytest.Item) -> bool:
    """Whether it may be the only test to reach a line of the package.

    The directories of tests are named for the parts, and that of broken networks is the link's. A
    property repeats with many values what others show with one, and older servers are asked what
    the installed one is.
    """
    tests = Path(__file__).parent
    directory, *rest = item.path.relative_to(tests).parts
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return (
        (
            not rest
            or directory == "faults"
            or (tests.parent / "fastapi_maintenance" / directory).exists()
        )
        and parameters.get("redis_program", INSTALLED) == INSTALLED
        and not item.get_closest_marker("hypothesis")
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask for what the marks say, of tests that have the fixtures it shows in.

    The user of production asks the installed server alone: the servers differ in what they know,
    and hardly in what they permit.
    """
    versions, user = map(metafunc.definition.get_closest_marker, ("every_redis", "as_worker"))
    user = user if "redis_user" in metafunc.fixturenames else None
    if versions and "redis_program" in metafunc.fixturenames:
        programs = versions.args or VERSIONS
        if user:
            pairs = [*((program, None) for program in programs), (INSTALLED, "worker")]
            metafunc.parametrize(("redis_program", "redis_user"), pairs, indirect=True)
        else:
            metafunc.parametrize("redis_program", programs, indirect=True)
    elif user:
        metafunc.parametrize("redis_user", (None, "worker"), indirect=True)


@pytest.fixture
def redis_program(request: pytest.FixtureRequest) -> str:
    """The redis-server that this test's servers run."""
    return program_of(getattr(request, "param", INSTALLED))


@pytest.fixture
def redis_user(request: pytest.FixtureRequest) -> str | None:
    """Who logs in by `redis_url`: a user of backends/redis/users.acl, or None for one who may do
    everything.
    """
    return getattr(request, "param", None)


@pytest.fixture(scope="session")
def _shared_redis_servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], RedisServer]]:
    users = tmp_path_factory.mktemp("acl") / USERS.name
    users.write_text(
        USERS.read_text().replace(
            "user default off", "user default on nopass allkeys allchannels +@all"
        )
    )
    with ExitStack() as servers:
        yield cache(
            lambda program: servers.enter_context(RedisServer(users=users, program=program))
        )


@pytest.fixture
def redis_server(
    _shared_redis_servers: Callable[[str], RedisServer], redis_program: str
) -> RedisServer:
    """A running server, shared by the tests and empty at the start of each. Not for faults and not
    for CONFIG SET.

    It has the users of production, and a default one who may do everything.
    """
    server = _shared_redis_servers(redis_program)
    server.cli("FLUSHALL")
    server.cli("SCRIPT", "FLUSH")
    return server


@pytest.fixture
def redis_url(redis_server: RedisServer, redis_user: str | None) -> str:
    """The address of `redis_server`."""
    return (
        redis_server.url
        if redis_user is None
        else redis_server.url_of(redis_user, f"change-me-{redis_user}")
    )


@pytest.fixture
def own_redis_server(redis_program: str) -> Iterator[RedisServerFactory]:
    """Makes started servers that are this test's alone: to be killed, frozen, reconfigured."""
    with ExitStack() as servers:

        def make(**options: Any) -> RedisServer:
            return servers.enter_context(RedisServer(**{"program": redis_program, **options}))

        yield make
