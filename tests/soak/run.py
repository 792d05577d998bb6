"""One soak: fault after fault, each judged when every worker must be right again."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .faults import FAULTS, Fault
from .site import Site
from .truth import Verdict

# seconds over every bound, for an answer that waits its turn on a machine with fewer processors
# than processes
SLACK: Final = 0.5
# Seconds under load after the last bound, so that an answer beyond it would be seen.
_AFTER: Final = 0.2
_MEMORY: Final = 8.0  # MiB by which a worker may grow after the warm-up
# connections that may be open at the end and were not before: one that is just being made, for each
# direction
_FILES: Final = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, with what, and how hard. `ttl` is the workers'; `believed_ttl` the one that bounds
    are made of, if another.
    """

    minutes: float = 10.0
    seed: int = 0
    workers: int = 4
    rate: int = 3000
    ttl: float = 1.0
    believed_ttl: float | None = None
    slack: float = SLACK
    faults: Sequence[Fault] = FAULTS


@dataclass(frozen=True, slots=True)
class Sample:
    """What one worker process has: resident memory in MiB, and open files."""

    memory: float
    files: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        """Look at a process, where the system shows it."""
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            return cls(
                pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir(f"/proc/{pid}/fd"))
            )
        except OSError:
            return cls(0.0, 0)


@dataclass
class Outcome:
    """What came of a soak."""

    plan: Plan
    seconds: float = 0.0
    times: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    before: list[Sample] = field(default_factory=list)
    after: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> Verdict:
        """Everything together."""
        total = Verdict()
        for verdict in self.verdicts.values():
            total.add(verdict)
        return total

    @property
    def violations(self) -> list[str]:
        """Every promise that was broken, in words."""
        total = self.total
        found = list(self.failures)
        if total.wrong:
            found.append(f"{total.wrong} answers were wrong later than their bound")
        if total.odd:
            found.append(f"{total.odd} answers were neither the application's nor a proper 503")
        if total.gone:
            found.append(f"{total.gone} connections were ended by a worker that nobody had killed")
        for before, after in zip(self.before, self.after, strict=False):
            if after.memory > before.memory + _MEMORY:
                found.append(f"a worker grew from {before.memory:.1f} to {after.memory:.1f} MiB")
            if after.files > before.files + _FILES:
                found.append(f"a worker had {before.files} files open and then {after.files}")
        return found


async def soak(plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Run it. `say` is given a line of progress after each fault."""
    chance = random.Random(plan.seed)
    outcome = Outcome(plan)
    believed = plan.ttl if plan.believed_ttl is None else plan.believed_ttl
    async with Site(
        chance,
        workers=plan.workers,
        rate=plan.rate,
        ttl=plan.ttl,
        bound_ttl=believed,
        slack=plan.slack,
    ) as site:
        await asyncio.sleep(1.0)
        started = time.monotonic()
        ends = started + 60 * plan.minutes
        # What a worker loads and keeps when it first meets a fault is no leak.
        warm = started + 6 * plan.minutes
        for fault in _bag(plan.faults, chance):
            if time.monotonic() >= ends or outcome.failures:
                break
            await _inject(site, fault, outcome)
            outcome.seconds = time.monotonic() - started
            if not outcome.before and time.monotonic() >= warm:
                outcome.before = _sample(site)
            say(_line(site, outcome, fault))
        outcome.after = _sample(site)
    return outcome


async def _inject(site: Site, fault: Fault, outcome: Outcome) -> None:
    try:
        await fault.inject(site)
    except Exception as error:
        outcome.failures.append(f"{fault.name}: {error!r}")
        return
    await asyncio.sleep(max(0.0, site.truth.due() - time.monotonic()) + _AFTER)
    verdict = site.truth.judge(site.load.take(), frozenset(site.excused))
    outcome.times[fault.name] = outcome.times.get(fault.name, 0) + 1
    outcome.verdicts.setdefault(fault.name, Verdict()).add(verdict)


def _bag(faults: Sequence[Fault], chance: random.Random) -> Iterator[Fault]:
    """Each fault once in every round, in an order of its own."""
    while True:
        yield from chance.sample(faults, len(faults))


def _sample(site: Site) -> list[Sample]:
    return [Sample.of(pid) for pid in site.veterans()]


def _line(site: Site, outcome: Outcome, fault: Fault) -> str:
    total, verdict = outcome.total, outcome.verdicts.get(fault.name, Verdict())
    rate = total.answers / max(outcome.seconds, 1.0)
    memory = "/".join(f"{sample.memory:.1f}" for sample in _sample(site))
    return (
        f"{outcome.seconds:6.1f} s  {sum(outcome.times.values()):4d}  {fault.name:<36} worst "
        f"{verdict.worst * 1000:5.0f} ms   "
        f"{total.answers} answers, {rate:.0f}/s, {total.wrong} wrong, {total.odd} odd, "
        f"{total.gone} gone   {memory} MiB"
    )
