"""The protocol of one worker, one barrier and the registry, as a machine whose every state is
visited.

A second worker, always closed and drained, is taken for granted: so a worker that is not in the
registry is not waited for. The switch is turned on, then the barrier begins; meanwhile the worker
may start, be cut off, have a request in flight, and be lost from the registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Final

ORDER: Final = ("arm", "register", "read")
ORDERS: Final = tuple(permutations(ORDER))
RULES: Final = frozenset(
    {
        "a report says what was read before it",
        "a worker that cannot register closes itself",
        "a worker that vanished must have drained",
        "silence is waited for, longer than a fence takes",
        "a lost registry is waited for",
    }
)
"""What the proof stands on. Without any one of them, it is wrong in some state."""

_LIFETIME: Final = 2  # of a registration, in ticks that the observer counts without a report
_FENCE: Final = 1  # ticks after which a worker closes itself that could not register
_NEVER: Final = 9  # registered


@dataclass(frozen=True, slots=True)
class State:
    """What Redis has, what the worker knows and does, and what the observer has seen."""

    on: bool = False
    epoch: int = 0
    recorded: bool = False
    lost: bool = False  # the registry was
    report: tuple[int, bool, bool] | None = None  # the epoch, closed, drained
    armed: bool = False
    pushed: bool = False

    running: bool = False
    connected: bool = True
    step: int = 0  # of the poll
    knows: tuple[int, bool] | None = None  # the epoch, on
    in_flight: bool = False
    age: int = _NEVER  # ticks since it registered

    barrier: int | None = None
    seen: tuple[int, bool, bool] | None = None
    silent: int = 0
    proved: bool = False

    @property
    def serves(self) -> bool:
        """Whether the worker lets a request in."""
        return self.running and self.knows is not None and not self.knows[1] and self.age <= _FENCE

    @property
    def is_deaf(self) -> bool:
        """Whether the worker rests, knows another state than there is, and no push is
        on its way.
        """
        rests = self.running and self.connected and self.step == 0 and self.knows is not None
        return rests and self.knows != (self.epoch, self.on) and not self.pushed


def _worker(state: State, order: tuple[str, ...], rules: frozenset[str]) -> Iterator[State]:
    if not state.running:
        yield replace(state, running=True)
    elif state.serves and not state.in_flight:
        yield replace(state, in_flight=True)
    if state.in_flight:
        yield replace(state, in_flight=False)
    if state.running and state.connected:
        yield _poll(state, order[state.step], len(order), rules)


def _poll(state: State, command: str, length: int, rules: frozenset[str]) -> State:
    later = replace(state, step=(state.step + 1) % length)
    if command == "arm":
        return replace(later, armed=True, pushed=False)
    if command == "read":
        return replace(later, knows=(state.epoch, state.on))
    epoch, on = state.knows or (-1, False)
    if "a report says what was read before it" not in rules:
        epoch, on = state.epoch, state.on
    return replace(later, recorded=True, report=(epoch, on, on and not state.in_flight), age=0)


def _world(state: State, rules: frozenset[str], drained: bool) -> Iterator[State]:
    pushed = state.pushed or state.armed
    if not state.on:
        yield replace(state, on=True, armed=False, pushed=pushed)
    elif state.barrier is None:
        epoch = state.epoch + 1
        yield replace(state, epoch=epoch, barrier=epoch, armed=False, pushed=pushed)
    if state.running and state.connected and state.step == 0:
        yield replace(state, connected=False, armed=False)
    if not state.connected:
        yield replace(state, report=None)  # it ran out or was evicted, or a clock was set
        if not state.lost:
            yield replace(state, recorded=False, report=None, lost=True, silent=0)
        # Time goes on for all of them. Only what is counted without a report matters.
        fenced = "a worker that cannot register closes itself" in rules
        yield replace(
            state,
            age=min(_NEVER, state.age + fenced),
            silent=min(_LIFETIME, state.silent + (state.barrier is not None)),
        )
    if state.barrier is not None:
        yield from _observer(state, state.barrier, rules, drained)


def _observer(state: State, barrier: int, rules: frozenset[str], drained: bool) -> Iterator[State]:
    if state.recorded and state.report is not None and state.report != state.seen:
        yield replace(state, seen=state.report, silent=0)
        return
    patient = state.silent >= _LIFETIME
    said = state.seen is not None and state.seen[0] >= barrier and state.seen[1]
    said = said and (not drained or (state.seen is not None and state.seen[2]))
    if not state.recorded:
        waits = state.lost and "a lost registry is waited for" in rules
        # A drained proof over a lost registry is outside of the promise: docs/security.md says so.
        if state.seen is None and (patient or not waits) and not (drained and waits):
            yield replace(state, proved=True)
    elif said or (
        not state.connected
        and (
            (patient or "silence is waited for, longer than a fence takes" not in rules)
            and (not drained or "a worker that vanished must have drained" not in rules)
        )
    ):
        yield replace(state, proved=True)


def violations(
    order: tuple[str, ...] = ORDER, rules: frozenset[str] = RULES, *, drained: bool
) -> list[State]:
    """Visit every state. Return those in which the proof is wrong, or the worker deaf."""
    seen = {start := State()}
    pending = [start]
    wrong: list[State] = []
    while pending:
        state = pending.pop()
        if state.is_deaf or (state.proved and (state.serves or (drained and state.in_flight))):
            wrong.append(state)
            continue
        for later in (*_worker(state, order, rules), *_world(state, rules, drained)):
            if later not in seen:
                seen.add(later)
                pending.append(later)
    return wrong
