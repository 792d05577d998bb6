from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from io import StringIO
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from rich.console import Console

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.cli import console as showing
from fastapi_maintenance.model.workers import WAY_AROUND, RegistrySnapshot

from ..checker.crew import Crew, Nursery, ask_slowly, is_at_work, ready
from ..conftest import RedisServerFactory
from ..support import registering
from ..support.commands import Ran
from ..support.servers import RedisServer
from ..support.waiting import eventually
from . import program
from .conftest import Cli
from .program import Program

FOR_EVER = 2**52  # an epoch that no barrier reaches

Register = Callable[..., None]


@pytest.fixture
def register(redis_server: RedisServer) -> Register:
    """Writes what a worker would write of itself, or what is left of one that vanished."""

    def write(id: str, *, vanished: bool = False, **report: Any) -> None:
        known: dict[str, Any] = {
            "pid": 4711,
            "host": "web-1",
            "epoch": FOR_EVER,
            "closed": True,
            "drained": True,
        }
        known |= ({"lifetime": 3.0} if vanished else {}) | report
        registering.register(redis_server, id, reports=not vanished, **known)

    return write


# -- wait ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", "0"])
def test_wait_ends_at_once_when_everybody_has_followed(
    cli: Cli, redis_url: str, redis_server: RedisServer, register: Register, value: str
) -> None:
    redis_server.cli("SET", "maintenance", value)
    register("a", closed=value == "1")
    waited = cli("wait", "--drained", "--backend", redis_url)
    assert (waited.code, waited.err) == (0, "")
    assert waited.lines[-1].endswith(
        f"s: maintenance {'on; 1 drained' if value == '1' else 'off; 1 open'}"
    )


@pytest.mark.parametrize(
    ("report", "options", "name"),
    [
        ({"epoch": 0}, [], "4711@web-1"),
        ({"closed": False}, [], "4711@web-1"),
        ({"drained": False, "http": 2}, ["--drained"], "4711@web-1 (2 requests)"),
    ],
)
def test_wait_names_those_that_have_not_followed_in_time(
    cli: Cli,
    redis_url: str,
    redis_server: RedisServer,
    register: Register,
    report: dict[str, Any],
    options: list[str],
    name: str,
) -> None:
    redis_server.cli("SET", "maintenance", "1")
    register("a", **report)
    began = time.monotonic()
    waited = cli("wait", "--timeout", "3", *options, "--backend", redis_url)
    assert 2 < time.monotonic() - began < 15
    assert waited.code == 3
    assert waited.err.endswith(f"still waited for: {name}.\n")
    assert waited.err.count("\n") == 1


def test_wait_does_not_wait_for_requests_unless_asked(
    cli: Cli, redis_url: str, redis_server: RedisServer, register: Register
) -> None:
    redis_server.cli("SET", "maintenance", "1")
    register("a", drained=False, http=2)
    assert cli("wait", "--backend", redis_url).code == 0


def test_wait_for_an_unfenced_worker_names_it_unless_allowed(
    cli: Cli, redis_url: str, register: Register
) -> None:
    register("a", vanished=True)
    waited = cli("wait", "--backend", redis_url)
    assert waited.code == 4
    assert waited.err.startswith("These workers vanished and may still be serving: 4711@web-1. ")
    allowed = cli("wait", "--allow-unfenced", "--backend", redis_url)
    assert (allowed.code, allowed.err) == (0, "")


def test_wait_for_a_fenced_vanished_worker_succeeds(
    cli: Cli, redis_url: str, register: Register
) -> None:
    register("a", vanished=True, fence=2.0)
    assert cli("wait", "--backend", redis_url).code == 0


def test_wait_as_json_always_has_the_same_keys(
    cli: Cli, redis_url: str, redis_server: RedisServer, register: Register
) -> None:
    register("gone", vanished=True)
    unfenced = cli("wait", "--json", "--backend", redis_url)
    assert (
        unfenced.code,
        unfenced.json["ok"],
        [worker["id"] for worker in unfenced.json["unfenced"]],
    ) == (4, False, ["gone"])
    register("late", epoch=0)
    late = cli("wait", "--json", "--timeout", "3", "--backend", redis_url)
    assert (
        late.code,
        late.json["ok"],
        "late" in [worker["id"] for worker in late.json["waiting"]],
    ) == (3, False, True)
    redis_server.cli("DEL", "{maintenance}:registry")
    register("done")
    done = cli("wait", "--json", "--backend", redis_url)
    assert (done.code, done.err, done.json["ok"]) == (0, "", True)
    assert done.json.keys() == late.json.keys() == unfenced.json.keys()


def test_a_registry_that_cannot_be_read_in_time_proves_nothing(cli: Cli, free_port: int) -> None:
    waited = cli("wait", "--timeout", "3", "--backend", f"redis://127.0.0.1:{free_port}")
    assert (waited.code, waited.out) == (3, "")
    assert waited.err.startswith(
        "The registry could not be read in time, so nothing is known of the workers. redis://127.0.0.1:"
    )
    assert "cannot be reached" in waited.err


@pytest.mark.parametrize("command", [("wait",), ("wait", "--json"), ("workers",), ("on", "--wait")])
def test_where_there_is_no_registry_one_sentence_says_so(
    cli: Cli, command: tuple[str, ...], tmp_path: Path
) -> None:
    ran = cli(*command, "--backend", f"file:{tmp_path}/switch.json")
    assert ran.code == 1
    assert (
        ran.err
        == f"file:{tmp_path}/switch.json has no registry of workers; the barrier needs Redis.\n"
    )


@pytest.mark.parametrize("command", ["wait", "on"])
@pytest.mark.parametrize("length", ["0", "soon", "-1", "1.5"])
def test_invalid_length_of_a_wait_is_refused_first(
    cli: Cli, redis_url: str, redis_server: RedisServer, command: str, length: str
) -> None:
    ran = cli(command, f"--timeout={length}", "--backend", redis_url)
    assert (ran.code, ran.out) == (2, "")
    assert "Invalid value for '--timeout'" in ran.err
    assert redis_server.cli("EXISTS", "maintenance", "{maintenance}:epoch") == "0"


# -- on --wait -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--wait", "--drained"])
def test_on_waits_for_the_workers_when_asked(
    cli: Cli, redis_url: str, redis_server: RedisServer, register: Register, option: str
) -> None:
    register("a", drained=option == "--drained")
    on = cli("on", option, "--backend", redis_url)
    assert (on.code, on.err, on.lines[0]) == (0, "", "maintenance: on")
    assert ": maintenance on; 1 " in on.lines[-1]
    register("b", epoch=0) if option == "--wait" else register("b", drained=False, http=1)
    on = cli("on", option, "--timeout", "3s", "--backend", redis_url)
    assert (on.code, on.lines[0]) == (3, "maintenance: on")
    assert "still waited for: 4711@web-1" in on.err
    assert redis_server.cli("EXISTS", "maintenance") == "1", "it stays on"


def test_on_waits_for_nobody_unless_asked(
    cli: Cli, redis_url: str, redis_server: RedisServer, register: Register
) -> None:
    register("a", epoch=0)
    on = cli("on", "--backend", redis_url)
    assert (on.code, on.err) == (0, "")
    assert "4711" not in on.out
    assert redis_server.cli("EXISTS", "{maintenance}:epoch") == "1"


def test_on_tells_of_those_that_vanished_unless_that_is_allowed(
    cli: Cli, redis_url: str, register: Register
) -> None:
    register("a", vanished=True)
    on = cli("on", "--wait", "--backend", redis_url)
    assert (on.code, on.lines[0]) == (4, "maintenance: on")
    assert "vanished and may still be serving: 4711@web-1" in on.err
    assert cli("on", "--wait", "--allow-unfenced", "--backend", redis_url).code == 0


def test_on_does_not_wait_where_it_is_not_on(
    cli: Cli, redis_url: str, take_hold: Callable[..., object], register: Register
) -> None:
    register("a", epoch=0)
    take_hold(redis_url, "h1", enabled=False)
    on = cli("on", "--wait", "--backend", redis_url)
    assert on.code == 1
    assert "still waited for" not in on.err


# -- workers ---------------------------------------------------------------------------------------


def test_workers_lists_the_live_and_the_vanished(
    cli: Cli, redis_url: str, register: Register
) -> None:
    register("a", delivery="tracking", version="1.2", http=3, drained=False, fence=2.5)
    register("gone", vanished=True)
    listed = cli("workers", "--backend", redis_url)
    assert (listed.code, listed.err) == (0, "")
    live, vanished = sorted(listed.lines)
    assert (
        live
        == "a host=web-1 pid=4711 delivery=tracking version=1.2 status=closed http=3 websockets=0 "
        "fence=2.5s"
    )
    assert vanished.startswith("gone host=web-1 pid=4711 delivery=? version=? status=vanished ")
    assert vanished.endswith(" (its record does not say where its process ran)")
    document, gone = sorted(
        cli("workers", "--json", "--backend", redis_url).json, key=lambda one: one["id"]
    )
    assert (document["id"], document["http"], document["fenced"], document["why_not_gone"]) == (
        "a",
        3,
        True,
        None,
    )
    assert "does not say where" in gone["why_not_gone"]


def test_workers_forget_takes_out_only_those_that_vanished(
    cli: Cli, redis_url: str, register: Register
) -> None:
    for id, host in (("a", "web-1"), ("b", "web-2"), ("c", "web-3")):
        register(id, host=host, vanished=True)
    register("d", host="web-1")
    assert cli("wait", "--backend", redis_url).code == 4

    gone = cli("workers", "forget", "a", "web-2", "--backend", redis_url)
    assert (gone.code, sorted(gone.lines)) == (
        0,
        ["Forgot a, 4711@web-1.", "Forgot b, 4711@web-2."],
    )
    left = cli("workers", "forget", "web-1", "--backend", redis_url)
    assert (left.code, left.err) == (1, "No worker of that id or host has vanished.\n")
    assert sorted(one["id"] for one in cli("workers", "--json", "--backend", redis_url).json) == [
        "c",
        "d",
    ]
    assert cli("workers", "forget", "web-3", "--backend", redis_url).code == 0
    assert cli("wait", "--expect", "1", "--backend", redis_url).code == 0


def test_wait_expects_as_many_workers_as_it_is_told(
    cli: Cli, redis_url: str, register: Register
) -> None:
    nobody = cli("wait", "--backend", redis_url)
    assert (
        nobody.code,
        nobody.err.startswith("No worker is registered, so nothing is proved."),
    ) == (4, True)
    assert cli("wait", "--expect", "0", "--backend", redis_url).code == 0
    register("a")
    too_few = cli("wait", "--expect", "2", "--timeout", "3", "--backend", redis_url)
    assert (too_few.code, "Expected workers: 2; registered: 1." in too_few.err) == (3, True)


def test_workers_names_the_ways_around_the_gate(
    cli: Cli, redis_url: str, register: Register
) -> None:
    register("a", unrouted=["/legacy/pay"])
    listed = cli("workers", "--backend", redis_url)

    assert (listed.code, listed.err) == (0, f"/legacy/pay {WAY_AROUND}\n")


def test_no_workers_are_no_lines_and_an_empty_list(cli: Cli, redis_url: str) -> None:
    assert cli("workers", "--backend", redis_url).out == ""
    assert cli("workers", "--json", "--backend", redis_url).json == []


def test_a_terminal_gets_a_table_of_the_workers(
    cli: Cli, redis_url: str, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("a", delivery="tracking")
    console = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(showing, "terminal", lambda: console)
    assert cli("workers", "--backend", redis_url).out == ""
    assert isinstance(console.file, StringIO)
    assert "│ a " in console.file.getvalue()
    assert cli("workers", "--json", "--backend", redis_url).json, "JSON is JSON on a terminal too"


def test_the_workers_of_an_unreachable_redis_cannot_be_listed(cli: Cli, free_port: int) -> None:
    listed = cli("workers", "--backend", f"redis://127.0.0.1:{free_port}")
    assert (listed.code, listed.out) == (1, "")
    assert listed.err.count("\n") == 1


@pytest.mark.parametrize("form", ["", "--json"])
def test_an_interrupted_wait_proves_nothing_and_leaves_the_state(
    cli: Cli,
    redis_url: str,
    redis_server: RedisServer,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    call = RedisBackend.read_registry

    async def interrupted(self: RedisBackend) -> RegistrySnapshot:
        os.kill(os.getpid(), signal.SIGTERM)
        return await call(self)

    monkeypatch.setattr(RedisBackend, "read_registry", interrupted)
    redis_server.cli("SET", "maintenance", "1")
    register("a", epoch=0)
    waited = cli("wait", *form.split(), "--backend", redis_url)
    assert (waited.code, "drained" in waited.out) == (130, False)
    assert waited.err.endswith(
        "Interrupted before it was known whether every worker has followed; the state stays as it "
        "is.\n"
    )
    assert redis_server.cli("GET", "maintenance") == "1"


# -- as processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_is_live_on_a_terminal_until_it_is_interrupted(
    redis_url: str, register: Register, number: signal.Signals
) -> None:
    register("a", epoch=0)
    with Program("wait", "--backend", redis_url, terminal=True) as waiting:
        waiting.until("waiting for 4711@web-1")
        register("b", epoch=0, pid=4712)
        waiting.until("4712@web-1", within=20)
        if number == signal.SIGINT:
            waiting.type("\x03")
        else:
            waiting.signal(number)
        ended = waiting.ended()
    assert ended.code == 130
    assert "Traceback" not in ended.out
    assert "the state stays as it is" in ended.out
    assert ended.out.rindex("\x1b[?25h") > ended.out.rindex("\x1b[?25l"), (
        "the cursor must come back"
    )


def test_an_interrupted_wait_in_a_script_is_one_sentence(
    redis_url: str, register: Register
) -> None:
    register("a", epoch=0)
    with Program("on", "--wait", "--backend", redis_url) as waiting:
        waiting.until("waiting for 4711@web-1")
        waiting.signal(signal.SIGTERM)
        ended = waiting.ended()
    assert (ended.code, ended.err.count("\n")) == (130, 1)


def test_wait_on_a_terminal_ends_with_table_and_verdict(redis_url: str, register: Register) -> None:
    register("a", epoch=0)
    ended = program.run("wait", "--timeout", "3", "--backend", redis_url, terminal=True)
    assert ended.code == 3
    assert "│ a " in ended.out
    assert "still waited for: 4711@web-1." in " ".join(ended.out.split())


def test_a_wait_prints_a_line_for_each_change_to_a_pipe(redis_url: str, register: Register) -> None:
    register("a", drained=False, http=1, pid=1)
    register("b", epoch=0, pid=2)
    with Program("wait", "--backend", redis_url) as waiting:
        waiting.until("waiting for 2@web-1")
        register("b", pid=2, closed=False)
        ended = waiting.ended()
    assert (ended.code, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    assert [line.split(" s: ")[1] for line in ended.lines] == [
        "maintenance off; 1 open, 1 waiting; waiting for 2@web-1",
        "maintenance off; 2 open",
    ]


@pytest.fixture(scope="module")
async def nursery() -> AsyncIterator[Nursery]:
    async with Nursery() as nursery:
        yield nursery


async def outside(*arguments: str) -> Ran:
    return await anyio.to_thread.run_sync(lambda: program.run(*arguments))


@pytest.mark.timeout(120)
async def test_real_workers_are_waited_for_and_told_apart(
    nursery: Nursery, own_redis_server: RedisServerFactory, tmp_path: Path
) -> None:
    """One serves a slow request and is killed, one is paused; what each command says of them is
    what they answer to an outside client.
    """
    server = own_redis_server()
    url = f"{server.url}?ttl=1"
    async with Crew(nursery, url, tmp_path, stale_after=2.0, policy="last-known") as crew:
        busy, paused = await crew.start(), await crew.start()
        await ready(busy)
        await ready(paused)
        listed = await outside("workers", "--json", "--backend", url)
        assert {worker["pid"] for worker in listed.json} == {busy.pid, paused.pid}

        on = await outside("on", "--wait", "--backend", url)
        seen = [len(worker.answers) for worker in crew.workers]
        assert on.code == 0, on.err
        await eventually(
            lambda: all(
                len(worker.answers) > count
                for worker, count in zip(crew.workers, seen, strict=True)
            ),
            within=30,
        )
        late = [
            answer.status
            for worker, count in zip(crew.workers, seen, strict=True)
            for answer in worker.answers[count:]
        ]
        assert set(late) == {503}

        await server.acli("DEL", "maintenance")
        await eventually(lambda: busy.answers[-1].status == 200, within=30)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_slowly, busy, 30.0)
            await eventually(lambda: is_at_work(busy, url), within=30)
            await server.acli("SET", "maintenance", "1")
            slow = await outside("wait", "--drained", "--timeout", "3", "--backend", url)
            assert slow.code == 3
            assert f"still waited for: {busy.pid}@{os.uname().nodename} (1 requests)" in slow.err
            paused.signal(signal.SIGSTOP)
            busy.signal(signal.SIGKILL)
        gone = await outside("wait", "--drained", "--backend", url)
        assert gone.code == 4
        assert f"{paused.pid}@" in gone.err
        assert f"{busy.pid}@" not in gone.err, "a look at its process proved that it is dead"
