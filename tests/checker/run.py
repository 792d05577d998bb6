"""Runs schedules, and says which proofs were wrong and how often each fault was drawn.

The promise: after a strict barrier has returned, and until the next opening, no gated request is
let in anywhere; and after a drained one none is still running.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fastapi_maintenance import BarrierResult, maintenance_mode_on, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import MaintenanceError
from fastapi_maintenance.model.workers import RegistrySnapshot

from .crew import Crew, Cut, Nursery, Worker, ask_slowly, ready
from .judge import Interval, Proof, Record, count_in_flight, judge
from .schedule import Step, draw, is_behind_sentinels
from .sites import Sentinels, Single, Site
from .variants import VARIANTS

_TTL: Final = 0.2
_LIFETIME: Final = 3 * _TTL
_STALE_AFTER: Final = 0.55  # just below what a fence may take of that
_LONG_FENCE: Final = 1.5  # above it
_CREW: Final = 3
_MOST_WORKERS: Final = 7
_JOINS: Final = 1000
_TIMEOUT: Final = 2.5  # of a barrier
_SENTINEL_TIMEOUT: Final = 8.0  # which may span a failover
_SETTLING: Final = 1.0  # seconds after a release, for a hold that a worker puts back
_LEASE: Final = 4.0
# Seconds after which a hold that could not be released has surely run out, also in a frozen Redis.
_ORPHANED: Final = 2 * _LEASE + 2.5
_BY_PROXY: Final = ("cut off", "strand")
_CUTS: Final[tuple[Cut, ...]] = ("silent", "silent", "deaf", "mute", "refused")
_APART: Final = 0.5  # seconds between the return of a stranded worker and of the others
_STEPS: Final = (5, -5, 60, -60, 3600, -3600)
_LOSE: Final = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"


@dataclass
class Outcome:
    """What came of one schedule."""

    seed: int
    steps: list[Step]
    is_behind_sentinels: bool = False
    proofs: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    in_flight: int = 0
    joins: int = 0
    violations: list[str] = field(default_factory=list)


class _Timed(RedisBackend):
    """Remembers when the roll was first and last called."""

    begun = asked = 0.0

    async def begin_barrier(self) -> RegistrySnapshot:
        self.asked = time.monotonic()
        self.begun = self.begun or self.asked
        return await super().begin_barrier()

    async def read_registry(self) -> RegistrySnapshot:
        self.asked = time.monotonic()
        return await super().read_registry()


class _Driver:
    """Performs one schedule."""

    def __init__(self, site: Site, crew: Crew) -> None:
        self.record = Record()
        self.joins = 0
        self._site = site
        self._crew = crew
        self._url = site.url(f"ttl={_TTL}&timeout=0.5")
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
        match step.action.split():
            case "close", *of:
                await self._command("SET", _switch(of), "1")
            case "open", *of:
                await self._open(_switch(of), "billing" if of else None)
            case ["hold"]:
                await self._hold(step.length)
            case ["mistyped", "barrier"]:
                await self._command("SET", "maintenence", "1")
                await self._barrier(drained=False, query="&key=maintenence")
            case *how, "barrier":
                component = "billing" if "component" in how else None
                await self._barrier(drained="drained" in how, component=component)
            case "start", *how:
                await self._start(how)
            case ["join"]:
                await self._join(step.length)
            case ["pause"]:
                worker.signal(signal.SIGSTOP)
                await asyncio.sleep(step.length)
                worker.signal(signal.SIGCONT)
            case ["kill"]:
                worker.signal(signal.SIGKILL)
            case ["leave"]:
                worker.signal(signal.SIGTERM)
            case ["request"]:
                path = ("/slow", "/slow", "/billing/slow", "/stray")[int(step.kind * 4)]
                await ask_slowly(worker, 1.5 * step.length, path=path)
            case ["cut", "off"]:
                worker.cut_off(_CUTS[int(step.kind * len(_CUTS))])
                await asyncio.sleep(step.length)
                worker.reconnect()
            case ["strand"]:
                await self._strand(worker, step.length)
            case ["cut", "links"]:
                await self._command("CLIENT", "KILL", "TYPE", "normal")
                await self._command("CLIENT", "KILL", "TYPE", "pubsub")
            case ["flush"]:
                await self._lose(self.record.losses, self._command("FLUSHALL"))
            case "lose", what:
                reports = what == "reports"
                pattern = "w:*" if reports else "registry" if step.kind < 0.3 else "[rw]*"
                losing = self._command("EVAL", _LOSE, "0", "{maintenance}:" + pattern)
                await (losing if reports else self._lose(self.record.lost_registries, losing))
            case ["evict"]:
                await self._command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
                await self._command("CONFIG", "SET", "maxmemory", "1")
                await asyncio.sleep(step.length)
                await self._command("CONFIG", "SET", "maxmemory", "0")
            case _:
                async with self._surgery:
                    await self._operate(step)

    async def _operate(self, step: Step) -> None:
        site = self._site
        if isinstance(site, Sentinels):
            with suppress(OSError):  # the Sentinels are paused, or slow
                await self._operate_group(site, step)
            return
        match step.action:
            case "freeze redis":
                await site.freeze(step.length)
            case "restart redis":
                await self._lose(self.record.losses, site.restart(step.length / 4, keep=False))
            case "roll back redis":
                await self._command("SAVE")
                await asyncio.sleep(step.length)
                await self._lose(self.record.losses, site.restart(step.length / 4, keep=True))
            case "step clock":
                site.step_clock(_STEPS[int(step.kind * len(_STEPS))])
            case action:
                raise AssertionError(f"nothing performs {action!r}")

    async def _operate_group(self, group: Sentinels, step: Step) -> None:
        match step.action:
            case "isolate master" | "fail over":
                await self._lose(self.record.losses, group.replace_master(step.action))
            case "cut replica":
                await group.cut_replica(step.length)
            case "pause sentinels":
                await group.pause_sentinels(1 if step.kind < 0.3 else 2, step.length)
            case action:
                raise AssertionError(f"nothing performs {action!r}")

    async def _command(self, *words: str) -> bytes:
        """A bare client's command, and the first bytes of the reply; it is not tried again."""
        return (await self._commands([words]))[:100]

    async def _commands(self, commands: Iterable[Sequence[str]]) -> bytes:
        """The last line of the reply to several at once."""
        try:
            reader, writer, skipped = await self._site.connect()
        except OSError:
            return b""
        sent = list(commands)
        try:
            writer.writelines(map(_packed, sent))
            async with asyncio.timeout(5):
                for _ in range(skipped + len(sent) - 1):
                    await reader.readline()
                return await reader.readline()
        except (OSError, TimeoutError):
            return b""
        finally:
            writer.close()

    async def _open(self, switch: str, component: str | None) -> None:
        begun = time.monotonic()
        await self._command("DEL", switch)  # whatever comes of it
        self.record.openings.append(Interval(begun, time.monotonic(), component))

    async def _lose(self, losses: list[Interval], losing: Awaitable[object]) -> None:
        # Until it is over, it counts as not over.
        losses.append(Interval(time.monotonic(), float("inf")))
        at = losses[-1]
        try:
            await losing
        finally:
            losses[losses.index(at)] = Interval(at.begun, time.monotonic())

    async def _strand(self, worker: Worker, length: float) -> None:
        """Let a worker come back first after a flush that it has spent cut off."""
        worker.cut_off("silent")
        await asyncio.sleep(length)
        others = [other for other in self._crew.workers if other is not worker]
        for other in others:
            other.refuse()
        await self._lose(self.record.losses, self._flush_for(worker))
        for other in others:
            other.reconnect()

    async def _flush_for(self, worker: Worker) -> None:
        await self._command("FLUSHALL")
        worker.reconnect()
        await asyncio.sleep(_APART)

    async def _hold(self, length: float) -> None:
        # If it cannot be entered, it may have been taken all the same, only the reply being lost.
        began = ended = time.monotonic()
        with suppress(MaintenanceError):
            async with maintenance_mode_on(self._backend, lease=_LEASE):
                await asyncio.sleep(length)
                ended = time.monotonic()
        none_is_left = await self._command("EXISTS", "{maintenance}:holds") == b":0\r\n"
        # Where Redis loses its data, workers put back what they know of, also a hold whose release
        # they have not heard of.
        await asyncio.sleep(_SETTLING)
        put_back = any(loss.ended > began for loss in self.record.losses)
        left = 0 if none_is_left and not put_back else _ORPHANED
        self.record.openings.append(Interval(ended, time.monotonic() + left))

    async def _start(self, how: list[str]) -> None:
        if len(self._crew.workers) >= _MOST_WORKERS:
            return
        login, fence = "", None
        if "rights" in how:
            rules = "on", "nopass", "~*", "&*", "+@all", "-@write"
            await self._command("ACL", "SETUSER", "reader", *rules)
            login = "reader@"
        if "fence" in how:
            fence = _LONG_FENCE
        await self._crew.start(login=login, fence=fence)

    async def _join(self, length: float) -> None:
        """Register workers that do not exist, all at once, and take them out again."""
        ids = [f"joined{number}" for number in range(_JOINS)]
        record = json.dumps({"host": "elsewhere", "fence": _STALE_AFTER, "lifetime": _LIFETIME})
        report = json.dumps({"closed": True, "drained": True})
        px = str(round(_LIFETIME * 1000))
        reports = ("{maintenance}:w:" + id for id in ids)
        registry = "{maintenance}:registry"
        joining = [
            command
            for id, key in zip(ids, reports, strict=True)
            for command in (
                ("SET", key, f"1 {report}", "PX", px),
                ("HSETNX", registry, "#generation", "joined"),
                ("HSET", registry, id, record),
            )
        ]
        await asyncio.gather(*(self._commands(joining[at::20]) for at in range(20)))
        self.joins += _JOINS
        await asyncio.sleep(length)
        await self._commands(
            [("HDEL", registry, *ids), ("DEL", *("{maintenance}:w:" + id for id in ids))]
        )

    async def _barrier(
        self, *, drained: bool, component: str | None = None, query: str = ""
    ) -> None:
        backend = _Timed(self._url + query)
        timeout = _SENTINEL_TIMEOUT if isinstance(self._site, Sentinels) else _TIMEOUT
        result: BarrierResult = await wait_until_applied(
            backend, component=component, drained=drained, timeout=timeout
        )
        if not (result.ok and result.state.enabled):
            self.record.refused += 1
            return
        closed = frozenset(worker.pid for worker in (*result.drained, *result.applied))
        known = closed.union(worker.pid for worker in result.expired)
        times = backend.begun, backend.asked, time.monotonic()
        self.record.proofs.append(Proof(*times, known, closed, drained, component, _LIFETIME))


def _switch(component: Sequence[str]) -> str:
    return "maintenance:billing" if component else "maintenance"


def _packed(words: Sequence[str]) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(
        b"$%d\r\n%s\r\n" % (len(part), part) for part in parts
    )


async def _run(seed: int, steps: list[Step], nursery: Nursery, site: Site, variant: str) -> Outcome:
    outcome = Outcome(seed, steps, isinstance(site, Sentinels))
    with TemporaryDirectory(prefix="checker-") as home:
        async with Crew(
            nursery,
            site.url(f"ttl={_TTL}"),
            Path(home),
            stale_after=_STALE_AFTER,
            variant=variant,
            ports=site.ports if any(step.action in _BY_PROXY for step in steps) else (),
        ) as crew:
            driver = _Driver(site, crew)
            before = await site.count_failovers() if isinstance(site, Sentinels) else 0
            await driver.perform(outcome.steps)
            after = await site.count_failovers() if isinstance(site, Sentinels) else 0
        record, runs = driver.record, crew.runs
        if after - before > len(record.losses):  # Sentinels took a slow server for a dead one
            record.losses.append(Interval(0.0, float("inf")))
    for proof in record.proofs:
        kind = "component" if proof.component else "drained" if proof.is_drained else "plain"
        outcome.proofs[kind] += 1
    outcome.proofs["refused"] = record.refused
    outcome.answers = sum(len(worker.answers) for worker in crew.workers)
    outcome.in_flight = count_in_flight(record, runs)
    outcome.joins = driver.joins
    outcome.violations = judge(record, crew.workers, runs)
    if outcome.violations:
        outcome.violations.append(f"of which the driver knows: {record}")
    return outcome


async def run_schedules(
    seeds: Iterable[int],
    *,
    lanes: int = 4,
    variant: str = "",
    stop_at_first: bool = False,
    tell: Callable[[Outcome], None] | None = None,
    behind_sentinels: Callable[[int], bool] = is_behind_sentinels,
) -> list[Outcome]:
    """Run the schedule of each seed, some at a time; those behind Sentinels beside the others."""
    seeds = list(seeds)
    rule = VARIANTS.get(variant)
    favours: Mapping[str, float] = rule.favours if rule else {}
    behind = [seed for seed in seeds if (rule.sentinels if rule else behind_sentinels(seed))]
    outcomes: list[Outcome] = []

    async def lane(waiting: Iterator[int], nursery: Nursery, *, sentinels: bool) -> None:
        group = Sentinels() if sentinels else None
        try:
            for seed in waiting:
                steps = draw(seed, favours, sentinels=sentinels)
                async with group or Single(steps) as site:
                    outcome = await _run(seed, steps, nursery, site, variant)
                outcomes.append(outcome)
                if tell is not None:
                    tell(outcome)
                if stop_at_first and any(outcome.violations for outcome in outcomes):
                    return
        finally:
            if group is not None:
                await group.close()

    waiting = iter([seed for seed in seeds if seed not in set(behind)])
    lanes = min(lanes, len(seeds) - len(behind))
    with rule.observing() if rule else nullcontext():
        async with Nursery() as nursery, asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(lane(waiting, nursery, sentinels=False))
            if behind:
                group.create_task(lane(iter(behind), nursery, sentinels=True))
    return outcomes
