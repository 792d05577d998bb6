"""Runs schedules and says which promises were broken.

The promise: after a strict barrier has returned, and until somebody opens again, no gated request
is let in anywhere; and none that was let in before is still running in a worker that the barrier
called drained.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fastapi_maintenance import BarrierResult, maintenance_mode_on, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import MaintenanceError
from fastapi_maintenance.model.workers import RegistrySnapshot

from ..support.servers import RedisServer
from .crew import Crew, Nursery, Worker, ask_slowly, ready
from .schedule import Step, draw

_TTL: Final = 0.2
_STALE_AFTER: Final = 0.4  # below the registry's lifetime, three ttl
_CREW: Final = 3
# Seconds; for a response on its way through a machine that is busy, or stands still for a moment.
_SLACK: Final = 1.0
_LEASE: Final = 4.0
# Seconds; after that a hold that nobody could release has surely run out, also in a Redis that was
# frozen.
_ORPHANED: Final = 2 * _LEASE + 2.5


@dataclass(frozen=True, slots=True)
class _Proof:
    """What a barrier said when it returned, and when it last asked before that: what opened later,
    it did not know of.
    """

    asked: float
    at: float
    closed: frozenset[int]
    wants_drained: bool


@dataclass
class Outcome:
    """What came of one schedule."""

    seed: int
    steps: list[Step]
    proofs: int = 0
    answers: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass
class _Record:
    """What the driver did and was told, with local monotonic times."""

    # From when until when it may have happened.
    openings: list[tuple[float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    proofs: list[_Proof] = field(default_factory=list)

    def until(self, proof: _Proof) -> float:
        """When the proof ends: with the next opening, also one that was under way when the barrier
        asked.
        """
        return min(
            (begun for begun, ended in self.openings if ended > proof.asked), default=float("inf")
        )


class _Timed(RedisBackend):
    """Remembers when the roll was last called."""

    asked = 0.0

    async def begin_barrier(self) -> RegistrySnapshot:
        self.asked = time.monotonic()
        return await super().begin_barrier()

    async def read_registry(self) -> RegistrySnapshot:
        self.asked = time.monotonic()
        return await super().read_registry()


class _Driver:
    """Performs one schedule."""

    def __init__(self, server: RedisServer, crew: Crew, record: _Record) -> None:
        self._server = server
        self._crew = crew
        self._record = record
        self._url = f"{server.url}?ttl={_TTL}&timeout=0.5"
        self._backend = RedisBackend(self._url)
        self._tasks: set[asyncio.Task[None]] = set()
        self._surgery = asyncio.Lock()  # one operation on the server at a time

    async def perform(self, steps: Sequence[Step]) -> None:
        for worker in [await self._crew.start() for _ in range(_CREW)]:
            await ready(worker)
        for step in steps:
            await asyncio.sleep(step.after)
            task = asyncio.create_task(self._do(step))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.gather(*self._tasks)
        await asyncio.sleep(0.2)

    async def _do(self, step: Step) -> None:
        worker = self._crew.workers[int(step.which * len(self._crew.workers))]
        match step.action:
            case "close":
                await self._command("SET", "maintenance", "1")
            case "open":
                await self._command("DEL", "maintenance")
            case "hold":
                await self._hold(step.length)
            case "barrier":
                await self._barrier(drained=step.which < 0.5)
            case "start":
                await self._crew.start()
            case "pause":
                worker.signal(signal.SIGSTOP)
                await asyncio.sleep(step.length)
                worker.signal(signal.SIGCONT)
            case "kill":
                worker.signal(signal.SIGKILL)
            case "leave":
                worker.signal(signal.SIGTERM)
            case "slow":
                await ask_slowly(worker, 2 * step.length)  # some of them for longer than the slack
            case "freeze redis":
                async with self._surgery:
                    self._server.pause()
                    await asyncio.sleep(step.length)
                    self._server.resume()
            case "cut links":
                await self._command("CLIENT", "KILL", "TYPE", "normal")
                await self._command("CLIENT", "KILL", "TYPE", "pubsub")
            case "flush":
                self._record.losses.append(time.monotonic())
                await self._command("FLUSHALL")
            case "restart redis":
                async with self._surgery:
                    self._record.losses.append(time.monotonic())
                    await asyncio.to_thread(self._server.kill)
                    await asyncio.sleep(step.length / 4)
                    await asyncio.to_thread(self._server.start)

    async def _command(self, *words: str) -> bytes:
        """A bare client's command, and what it is answered; one that Redis is not there for is not
        tried again.
        """
        begun = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        except OSError:
            return b""
        writer.write(" ".join(words).encode() + b"\r\n")
        try:
            return await asyncio.wait_for(reader.readline(), 5)
        except (OSError, TimeoutError):
            return b""
        finally:
            if words[0] == "DEL":  # whatever comes of it
                self._record.openings.append((begun, time.monotonic()))
            writer.close()

    async def _hold(self, length: float) -> None:
        # If it cannot be entered: it may have been taken all the same, only the reply being lost.
        began = ended = time.monotonic()
        with suppress(MaintenanceError):
            async with maintenance_mode_on(self._backend, lease=_LEASE):
                await asyncio.sleep(length)
                ended = time.monotonic()
        none_is_left = await self._command("EXISTS", "{maintenance}:holds") == b":0\r\n"
        # Where Redis loses its data, workers put back what they know of, also a hold whose release
        # they have not heard of.
        await asyncio.sleep(_SLACK)
        put_back = any(at > began for at in self._record.losses)
        self._record.openings.append(
            (ended, time.monotonic() + (0 if none_is_left and not put_back else _ORPHANED))
        )

    async def _barrier(self, *, drained: bool) -> None:
        backend = _Timed(self._url)
        result: BarrierResult = await wait_until_applied(backend, drained=drained, timeout=2.5)
        if result.ok and result.state.enabled:
            closed = frozenset(worker.pid for worker in (*result.drained, *result.applied))
            self._record.proofs.append(_Proof(backend.asked, time.monotonic(), closed, drained))


def _judge(record: _Record, workers: Iterable[Worker]) -> list[str]:
    violations = []
    for proof in record.proofs:
        until = _until(record, proof, workers)
        for worker in workers:
            violations += _let_in(worker, proof, until, record.losses)
            violations += _still_running(worker, proof, until)
    return violations


def _until(record: _Record, proof: _Proof, workers: Iterable[Worker]) -> float:
    """Where Redis lost its data, the proof goes on only if a worker was there that knew, and could
    put it back.
    """
    until = record.until(proof)
    undisturbed = any(worker.pid in proof.closed and not worker.disturbed for worker in workers)
    losses = [at for at in record.losses if at > proof.asked]
    return until if undisturbed or not losses else min(until, *losses)


def _let_in(worker: Worker, proof: _Proof, until: float, losses: Sequence[float]) -> list[str]:
    if any(worker.started > at - 1.0 for at in losses):
        return []  # it may have asked an empty server first, before those who knew were back
    return [
        f"worker {worker.pid} let a request in {answer.sent - proof.at:.3f} s after a barrier had "
        "proved it closed"
        for answer in worker.answers
        if answer.status == 200 and answer.sent >= proof.at and answer.received <= until
    ]


def _still_running(worker: Worker, proof: _Proof, until: float) -> list[str]:
    """Whatever became of the worker: a request that was in flight at the proof was not drained."""
    if not proof.wants_drained:
        return []
    return [
        f"worker {worker.pid} answered a request {answer.received - proof.at:.3f} s after a "
        "barrier had proved all drained"
        for answer in worker.answers
        if answer.status == 200
        and answer.sent < proof.at
        and proof.at + _SLACK < answer.received <= until
    ]


async def _run(seed: int, steps: list[Step], nursery: Nursery, home: Path, broken: bool) -> Outcome:
    outcome = Outcome(seed, steps)
    record = _Record()
    server = RedisServer()
    try:
        await asyncio.to_thread(server.start)
        async with Crew(
            nursery, f"{server.url}?ttl={_TTL}", home, stale_after=_STALE_AFTER, broken=broken
        ) as crew:
            await _Driver(server, crew, record).perform(outcome.steps)
    finally:
        await asyncio.to_thread(server.close)
    outcome.proofs = len(record.proofs)
    outcome.answers = sum(len(worker.answers) for worker in crew.workers)
    outcome.violations = _judge(record, crew.workers)
    if outcome.violations:
        outcome.violations.append(f"of which the driver knows: {record}")
    return outcome


async def run_schedules(
    seeds: Iterable[int],
    *,
    lanes: int = 4,
    broken: bool = False,
    stop_at_first: bool = False,
    plan: Callable[[int], list[Step]] = draw,
) -> list[Outcome]:
    """Run the schedule that `plan` makes of each seed, some at a time."""
    waiting = iter(seeds)
    outcomes: list[Outcome] = []

    async def lane(home: Path) -> None:
        async with Nursery() as nursery:
            for seed in waiting:
                outcomes.append(await _run(seed, plan(seed), nursery, home, broken))
                if stop_at_first and any(outcome.violations for outcome in outcomes):
                    return

    with TemporaryDirectory(prefix="checker-") as directory:
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(lane(Path(directory)))
    return outcomes
