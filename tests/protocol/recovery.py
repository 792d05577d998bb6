"""The restoration of lost data by two workers, as a machine whose every state is visited.

The switch is off (0) or has one of two values that close. It is changed by commands, which move the
epoch, and by bare clients, whose writes the history counts. Each worker reads at any time or never.
Then the data are lost: they are empty, or those of an earlier time. An operator may decide once
more, before, between or after the
restorations of both workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

RULES: Final = frozenset(
    {
        "newer knowledge replaces what older knowledge restored",
        "older knowledge replaces nothing",
        "a noticed write is newer",
        "what was decided since stays",
    }
)
_CHANGES: Final = 2  # before the loss


class Knowledge(NamedTuple):
    """What a worker has read; the first three order it."""

    life: int
    epoch: int
    noticed: int
    value: int
    restored: tuple[tuple[int, int, int], int] | None = None  # with which knowledge, at which epoch


@dataclass(frozen=True, slots=True)
class Data:
    """What Redis has."""

    life: int = 1
    epoch: int = 1
    noticed: int = 0
    value: int = 0
    recorded: int = 0  # the value that the history knows
    is_decided: bool = False  # since the loss
    restored: tuple[tuple[int, int, int], int] | None = None

    def read(self) -> Knowledge:
        return Knowledge(self.life, self.epoch, self.noticed, self.value, self.restored)


_EMPTY: Final = Data(life=0, epoch=0)


@dataclass(frozen=True, slots=True)
class State:
    """Data, workers, and what happened."""

    data: Data = Data()
    saved: Data = Data()
    clock: int = 1
    changes: int = 0
    workers: tuple[Knowledge | None, Knowledge | None] = (None, None)
    returned: tuple[bool, bool] = (False, False)
    lost: Knowledge | None = None  # the newest of what is left and what is known
    only_bare: bool = False  # the loss moved no epoch back
    decision: int | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether both workers are back, and the switch is not what it must be."""
        if self.lost is None or not all(self.returned):
            return False
        if self.decision is not None:
            return self.data.value != self.decision
        # If only bare writes were lost, an old closing stays: nothing proves that it is old.
        stays_closed = self.only_bare and self.lost.value == 0
        return self.data.value != self.lost.value and not stays_closed


def _change(state: State, value: int, *, bare: bool) -> State:
    clock, data = state.clock + 1, replace(state.data, value=value)
    if not bare:
        life = data.life or clock
        data = replace(data, life=life, epoch=clock, recorded=value, is_decided=True)
    elif state.lost is None:
        data = replace(data, noticed=data.noticed + 1, recorded=value)
    return replace(state, data=data, clock=clock)


def _is_lost(known: Knowledge, data: Data) -> bool:
    if data.restored not in (None, known.restored):
        return data.value != known.value
    if data.life != known.life:
        return data.restored is None
    return data.epoch < known.epoch or data.noticed < known.noticed


def _restored(data: Data, known: Knowledge, clock: int, rules: frozenset[str]) -> Data:
    """As the restore step of the script; it comes in time."""
    mine, (last, at) = known[:3], data.restored or ((0, 0, 0), 0)
    if "a noticed write is newer" not in rules:
        mine, last = (*mine[:2], 0), (*last[:2], 0)
    is_another = data.life != known.life
    went_back = not is_another and data.epoch < known.epoch
    first = data.restored is None
    again = not first
    if not is_another:
        first = data.epoch <= known.epoch
        again = last[0] == known.life and known.epoch < at
    if not (first or again) or (
        again and mine < last and "older knowledge replaces nothing" in rules
    ):
        return data
    is_newer = again and mine != last
    is_newer &= "newer knowledge replaces what older knowledge restored" in rules
    is_decided = data.is_decided and (again or is_another)
    if data.value:
        may = is_newer or went_back or (first and not is_another and known.value)
        may = may and data.value == data.recorded
    else:
        may = known.value and not (again and data.recorded)
    if "what was decided since stays" in rules:
        may = may and not is_decided
    elif again or is_another:
        may = True
    if again and not may:
        return data
    value = known.value if may else data.value
    return Data(
        life=data.life or clock,
        epoch=clock,
        noticed=data.noticed,
        value=value,
        recorded=value if may else data.recorded,
        is_decided=is_decided,
        restored=(known[:3], at if again else clock),
    )


def _return(state: State, worker: int, rules: frozenset[str]) -> State:
    """Let a worker read, and restore what it misses."""
    known, data, clock = state.workers[worker], state.data, state.clock + 1
    if known is not None and _is_lost(known, data):
        data = _restored(data, known, clock, rules)
    elif not data.life:
        data = replace(data, life=clock, epoch=clock)
    one, two = state.workers
    workers = (data.read(), two) if worker == 0 else (one, data.read())
    is_lost, (first, second) = state.lost is not None, state.returned
    returned = (is_lost, second) if worker == 0 else (first, is_lost)
    return replace(state, data=data, clock=clock, workers=workers, returned=returned)


def _lose(state: State, left: Data) -> State:
    known = [worker for worker in state.workers if worker is not None]
    lost = max(left.read(), *known, key=lambda knowledge: knowledge[:3])
    same = left.life == lost.life and left.epoch == lost.epoch
    left = replace(left, is_decided=False)
    return replace(state, data=left, lost=lost, only_bare=same)


def _later(state: State, rules: frozenset[str]) -> Iterator[State]:
    for worker in (0, 1):
        yield _return(state, worker, rules)
    others = [value for value in (0, 1, 2) if value != state.data.value]
    if state.lost is None:
        if state.changes < _CHANGES:
            for value in others:
                for bare in (False, True):
                    changed = _change(state, value, bare=bare)
                    yield replace(changed, changes=state.changes + 1)
        if state.saved != state.data:
            yield replace(state, saved=state.data)
        if any(state.workers):
            yield _lose(state, _EMPTY)
            yield _lose(state, state.saved)
    elif state.decision is None:
        for value in (0, 1, 2):
            yield replace(_change(state, value, bare=False), decision=value)
        # A bare DEL before the first restoration cannot be told from the loss.
        for value in others:
            if value or state.data.restored is not None:
                yield replace(_change(state, value, bare=True), decision=value)


def violations(rules: frozenset[str] = RULES) -> Iterator[State]:
    """Visit every state. Yield those in which the switch is wrong."""
    seen = {start := State()}
    pending = [start]
    while pending:
        state = pending.pop()
        if state.is_wrong:
            yield state
            continue
        for later in _later(state, rules):
            # The clock only names moments: a read that changes nothing is no new one.
            same = replace(later, clock=state.clock)
            later = same if same.data == state.data else later
            if later not in seen:
                seen.add(later)
                pending.append(later)
