"""The files of one switch: itself, the holds beside it and their lock. Blocking."""

from __future__ import annotations

import errno
import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from ...exceptions import BackendError, InvalidStateError
from ...snapshot import Hold, Reading
from ...state import MAX_BYTES, OFF, MaintenanceState
from .disk import explaining, marks_of, read_file, remove_file, replace_file
from .lease import Lease, dump_leases, parse_leases
from .lock import FileLock, Locked
from .owner import Owner

__all__ = ["Sight", "SwitchFiles"]

_MAX_HOLDS_BYTES: Final = 1024 * 1024
_SETTLED_AFTER: Final = 2.0  # seconds; the coarsest time stamps of any file system


@dataclass(frozen=True, slots=True)
class Sight:
    """What the files said, and the marks by which to see that they still do; None while marks prove nothing."""

    switch: MaintenanceState | None
    leases: dict[str, Lease] | None
    error: str | None
    exists: bool
    marks: tuple[tuple[int, ...], ...] | None

    def reading(self) -> Reading:
        """What that means now: a hold whose time is up or whose process is gone does not count."""
        now = time.time()
        holds = None if self.leases is None else tuple(lease.hold for lease in self.leases.values() if lease.stands_at(now))
        return Reading(self.switch, holds, now, error=self.error)


class SwitchFiles:
    """Reads and changes the files. Its methods block, and may be called from any thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.holds_path = path + ".holds"
        self.lock = FileLock(path + ".lock")
        self._last_leases: dict[str, Lease] = {}

    # -- reading -------------------------------------------------------------------------------------------------------

    def look(self, last: Sight | None = None) -> Sight:
        """Read the files, unless they are as `last` saw them. Needs no lock and creates nothing."""
        asked_at = time.time()
        marks = (marks_of(self.path), marks_of(self.holds_path))
        if last is not None and last.marks == marks:
            return last
        # The holds first: whoever ends a hold and keeps the switch on writes the switch first, so no reader can see neither.
        leases, holds_error = self._try_leases()
        exists, switch, switch_error = self._try_switch()
        error = " ".join(filter(None, (switch_error, holds_error))) or None
        settled = error is None and all(_is_settled(mark, asked_at) for mark in marks)
        return Sight(switch, leases, error, exists, marks if settled else None)

    def _try_switch(self) -> tuple[bool, MaintenanceState | None, str | None]:
        try:
            raw = read_file(self.path, MAX_BYTES)
            return raw is not None, MaintenanceState.parse(raw), None
        except (OSError, InvalidStateError) as problem:
            return True, None, _sentence("The file", problem)

    def _try_leases(self) -> tuple[dict[str, Lease] | None, str | None]:
        try:
            return self._read_leases(), None
        except (OSError, InvalidStateError) as problem:
            return None, _sentence(self.holds_path, problem)

    def _read_leases(self) -> dict[str, Lease]:
        raw = read_file(self.holds_path, _MAX_HOLDS_BYTES)
        if raw is not None and len(raw) > _MAX_HOLDS_BYTES:
            raise InvalidStateError(f"It is over {_MAX_HOLDS_BYTES} bytes long.")
        self._last_leases = leases = {} if raw is None else parse_leases(raw)
        return leases

    # -- the switch ----------------------------------------------------------------------------------------------------

    def write(self, state: MaintenanceState, expires_in: float | None = None) -> None:
        """Write the switch, unless it says the same already. Raises `BackendError`."""
        state = _expiring(state, expires_in)
        text = state.dump()
        if not self._says(state):
            with explaining(self.path):
                replace_file(self.path, text.encode())

    def amend(self, seen: MaintenanceState | None, state: MaintenanceState) -> bool:
        """Write the switch if it still says what was seen; False if not. Raises `BackendError`."""
        with self.lock.held():
            _, switch, _ = self._try_switch()
            if switch is None or switch != seen:
                return False
            self.write(state)
        return True

    def exchange(self, seen: MaintenanceState | None, state: MaintenanceState, *, end_holds: bool) -> bool:
        """As `amend`, also where neither then nor now it could be read; with `end_holds`, `clear` instead."""
        with self.lock.held() as locked:
            _, switch, _ = self._try_switch()
            if switch != seen:
                return False
            if end_holds:
                self._clear(locked)
            else:
                self.write(state)
        return True

    def _says(self, state: MaintenanceState) -> bool:
        try:
            raw = read_file(self.path, MAX_BYTES)
            return raw is not None and MaintenanceState.parse(raw) == state
        except (OSError, InvalidStateError):
            return False

    # -- holds ---------------------------------------------------------------------------------------------------------

    def acquire(self, hold: Hold, lease: float) -> Hold:
        """Add a hold, and return it as it stands. Raises `BackendError`."""
        with self.lock.held() as locked:
            leases = self._standing_leases()
            now = time.time()
            # Later than the last clear even if the clock was set back, else the new hold would look revoked.
            since = max(now, math.nextafter(locked.cleared_at(), math.inf))
            standing = replace(hold, since=since, deadline=now + lease)
            self._write_leases(leases | {hold.id: Lease(standing, Owner.current())})
        return standing

    def renew(self, hold: Hold, lease: float) -> bool:
        """Move a hold's deadline, or put it back if it vanished; False if it was revoked. Raises `BackendError`."""
        with self.lock.held() as locked:
            leases = self._standing_leases()
            known = leases[hold.id].hold if hold.id in leases else hold
            if known.since <= locked.cleared_at():
                return False
            renewed = replace(known, deadline=time.time() + lease)
            self._write_leases(leases | {hold.id: Lease(renewed, Owner.current())})
        return True

    def release(self, hold: Hold, keep: MaintenanceState | None) -> None:
        """Remove a hold, after writing `keep` to the switch where given. Raises `BackendError`."""
        with self.lock.held():
            if keep is not None and hold.scope is None:
                self.write(keep)
            leases = self._standing_leases()
            if leases.pop(hold.id, None) is not None:
                self._write_leases(leases)

    def clear(self) -> None:
        """Revoke every hold and turn the switch off. Raises `BackendError`."""
        with self.lock.held() as locked:
            self._clear(locked)

    def _clear(self, locked: Locked) -> None:
        leases, _ = self._try_leases()
        # Not before any hold was taken even if the clock was set back, else that hold would not look revoked.
        taken = [lease.hold.since for lease in (self._last_leases if leases is None else leases).values()]
        locked.note_cleared(max([time.time(), *taken]))
        with explaining(self.holds_path):
            remove_file(self.holds_path)
        self.write(OFF)

    def _standing_leases(self) -> dict[str, Lease]:
        """Those to start a change from: garbage is replaced by what was last known here, as its holders will renew the rest."""
        with explaining(self.holds_path):
            try:
                leases = self._read_leases()
            except InvalidStateError:
                leases = self._last_leases
        now = time.time()
        return {id: lease for id, lease in leases.items() if lease.stands_at(now)}

    def _write_leases(self, leases: dict[str, Lease]) -> None:
        content = dump_leases(leases)
        if len(content) > _MAX_HOLDS_BYTES:
            raise BackendError(f"{self.holds_path} would be over {_MAX_HOLDS_BYTES} bytes long: shorten the texts of the holds.")
        with explaining(self.holds_path):
            if leases:
                replace_file(self.holds_path, content)
            else:
                remove_file(self.holds_path)


def _sentence(what: str, problem: OSError | InvalidStateError) -> str:
    detail = problem.strerror or "no reason given" if isinstance(problem, OSError) else str(problem)
    return f"{what} cannot be read: {detail.removesuffix('.')}."


def _is_settled(mark: tuple[int, ...], asked_at: float) -> bool:
    """Whether another change would show: two within one tick of the file system's clock leave the same marks."""
    return mark == (errno.ENOENT,) or (len(mark) > 1 and asked_at - mark[0] / 1e9 > _SETTLED_AFTER)


def _expiring(state: MaintenanceState, expires_in: float | None) -> MaintenanceState:
    """The state with its time to live as its end. Raises `InvalidStateError` where it could never be on."""
    if expires_in is None or not state.enabled:
        return state
    try:
        end = datetime.fromtimestamp(time.time() + expires_in, UTC)
    except (OverflowError, ValueError, OSError):
        raise InvalidStateError(f"It cannot last {expires_in:g} s: that is beyond the calendar.") from None
    if state.starts_at is not None and state.starts_at >= end:
        raise InvalidStateError(f"It would be over after {expires_in:g} s, before it starts at {state.starts_at}.")
    return state if state.ends_at is not None and state.ends_at <= end else state.model_copy(update={"ends_at": end})
