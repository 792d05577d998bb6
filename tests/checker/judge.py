"""Decides from what clients and workers saw which proofs were wrong. Pure, with monotonic times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fastapi_maintenance.model.workers import FENCE_MARGIN

from .crew import Run, Worker

_RESTORED_WITHIN: Final = 2.0  # seconds after a loss, by the table of failures


@dataclass(frozen=True, slots=True)
class Interval:
    """Something that happened between `begun` and `ended`; to a component, if it is named."""

    begun: float
    ended: float
    component: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What a barrier said when it returned, and when it last asked before that."""

    begun: float
    asked: float
    at: float
    known: frozenset[int]
    closed: frozenset[int]
    is_drained: bool
    component: str | None
    lifetime: float


@dataclass
class Record:
    """What the driver did and was told."""

    openings: list[Interval] = field(default_factory=list)
    losses: list[Interval] = field(default_factory=list)  # of the data, and with them the registry
    lost_registries: list[Interval] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    refused: int = 0

    def until(self, proof: Proof, workers: Iterable[Worker]) -> float:
        """When a proof ends: with the next opening, also one that was under way when it asked.

        Where Redis lost its data, it goes on only if a worker was there that could restore them.
        """
        ends = [
            opening.begun
            for opening in self.openings
            if opening.ended > proof.asked and opening.component in (None, proof.component)
        ]
        if not any(worker.pid in proof.closed and not worker.disturbed for worker in workers):
            ends += [loss.begun for loss in self.losses if loss.ended > proof.asked]
        return min(ends, default=float("inf"))

    def has_forgotten(self, worker: Worker, proof: Proof) -> bool:
        """Return whether the registry may have lost a worker that the proof did not know again."""
        lost = any(
            loss.begun < proof.at and loss.ended > worker.started
            for loss in (*self.losses, *self.lost_registries)
        )
        return lost and worker.pid not in proof.known


def judge(record: Record, workers: Sequence[Worker], runs: Iterable[Run]) -> list[str]:
    """Return each request that a proof says cannot have been."""
    by_pid = {worker.pid: worker for worker in workers}
    violations = []
    for proof in record.proofs:
        until = record.until(proof, workers)
        for worker in workers:
            violations += _let_in(record, worker, proof, until)
        for run in runs:
            violations += _still_running(record, by_pid[run.pid], run, proof, until)
    return violations


def count_in_flight(record: Record, runs: Iterable[Run]) -> int:
    """Count the slow requests that were in flight while a drained barrier waited or was proved."""
    return sum(
        run.begun < proof.at and run.ended > proof.begun
        for proof in record.proofs
        if proof.is_drained
        for run in runs
    )


def _let_in(record: Record, worker: Worker, proof: Proof, until: float) -> list[str]:
    # A worker that comes or comes back without knowing, before those who know, may follow what is
    # there until they have restored the state.
    excused = [
        (loss.begun, loss.ended + _RESTORED_WITHIN)
        for loss in record.losses
        if loss.ended > proof.asked and worker.pid not in proof.closed
    ]
    if worker.fence > FENCE_MARGIN * proof.lifetime and record.has_forgotten(worker, proof):
        return []  # a limit that is documented: nobody knows that there is such a fence
    return [
        f"worker {worker.pid} let a request in {answer.sent - proof.at:.3f} s after {_name(proof)}"
        for answer in worker.answers
        if answer.status == 200
        and answer.sent >= proof.at
        and answer.received <= until
        and not any(begun <= answer.received and answer.sent <= end for begun, end in excused)
        and (answer.in_component or proof.component is None)
    ]


def _still_running(
    record: Record, worker: Worker, run: Run, proof: Proof, until: float
) -> list[str]:
    """Whatever became of the worker: a request that was in flight at the proof was not drained.

    One without a route is let in while the service is closed, so it counts only if it was there
    before the barrier.
    """
    concerned = run.kind == proof.component or proof.component is None
    begun_by = proof.begun if run.kind == "stray" else min(proof.at, until)
    if not (proof.is_drained and concerned and run.begun < begun_by and run.ended > proof.at):
        return []
    if until < proof.at or record.has_forgotten(worker, proof):
        return []  # another limit: who is cut off and was lost with the data cannot be known of
    length = run.ended - proof.at
    return [f"worker {worker.pid} ran a {run.kind} request for {length:.3f} s after {_name(proof)}"]


def _name(proof: Proof) -> str:
    drained = "a drained" if proof.is_drained else "a plain"
    return f"{drained} proof of {proof.component or 'the service'} at {proof.at:.3f}"
