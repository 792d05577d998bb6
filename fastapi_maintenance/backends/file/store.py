"""The files of one switch: switch, holds and lock. Blocking."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from ...exceptions import BackendError, BackendUnavailableError, InvalidStateError
from ...model.holds import Hold
from ...model.snapshot import Snapshot
from ...model.state import MAX_BYTES, OFF, MaintenanceState
from .atomic import read_file, remove_file, replace_file, translating_os_errors

_MAX_HOLDS_BYTES: Final = 1024 * 1024
_LOCK_TIMEOUT: Final = 5.0  # seconds
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredHolds:
    """The content of the holds file: the holds, and the time of the last `clear`."""

    by_id: Mapping[str, Hold] = field(default_factory=dict)
    cleared_at: float = -math.inf

    @classmethod
    def parse(cls, raw: bytes) -> StoredHolds:
        """Read what `dump` wrote. Raises `InvalidStateError` for anything else."""
        try:
            content = json.loads(raw)
            holds = {
                id: Hold.parse(id, _finite(entry["deadline"]), json.dumps(entry))
                for id, entry in content["holds"].items()
            }
            cleared_at = _finite(content["cleared_at"]) if "cleared_at" in content else -math.inf
            return cls(holds, cleared_at)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise InvalidStateError("It is not JSON as this package writes it.") from None

    def dump(self) -> bytes:
        """Return the content of the file; empty if there is nothing to store."""
        cleared = {} if self.cleared_at == -math.inf else {"cleared_at": self.cleared_at}
        if not self.by_id and not cleared:
            return b""
        holds = {
            id: json.loads(hold.dump()) | {"deadline": hold.deadline}
            for id, hold in self.by_id.items()
        }
        return json.dumps(cleared | {"holds": holds}, indent=1).encode()

    def with_hold(self, hold: Hold) -> StoredHolds:
        return replace(self, by_id={**self.by_id, hold.id: hold})

    def live(self, now: float) -> StoredHolds:
        """Drop the holds whose lease is over."""
        live = {id: hold for id, hold in self.by_id.items() if now < hold.deadline}
        return replace(self, by_id=live)


class SwitchFiles:
    """Reads and changes the files. The methods block, and may be called from any thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.holds_path = path + ".holds"
        self.lock_path = path + ".lock"
        self.lock_timeout = _LOCK_TIMEOUT
        self._last_holds = StoredHolds()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from changing the files. Raises `BackendError`."""
        from filelock import FileLock, Timeout  # not above: few need it, and it takes 18 ms

        # Any user may take the lock: root may change the switch of a service. One per use, for
        # filelock refuses a lock that was made before a fork.
        options: Any = {"mode": 0o666, "poll_interval": 0.005, "fallback_to_soft": False}
        lock = FileLock(self.lock_path, self.lock_timeout, **options)
        with translating_os_errors(self.lock_path):
            os.stat(os.path.dirname(self.lock_path))  # otherwise the lock would make that directory
            try:
                taken = lock.acquire()
            except Timeout:
                raise BackendUnavailableError(
                    f"{self.lock_path} has been locked for over {self.lock_timeout:g} s "
                    "by another process: end that process, or try again."
                ) from None
        with taken:
            yield

    # -- reading -----------------------------------------------------------------------------------

    def read(self) -> tuple[Snapshot, bool]:
        """Read the files, without a lock; also return whether there is a switch."""
        # The holds first: a release that keeps the switch on writes the switch first.
        holds, error = _try(self.holds_path, self._read_holds)
        switch, switch_error = _try("The file", self._read_switch)
        exists = switch is not None or switch_error is not None
        now = time.time()
        live = None if holds is None else tuple(holds.live(now).by_id.values())
        error = " ".join(filter(None, (switch_error, error))) or None
        return Snapshot(switch if exists else OFF, live, now, error=error), exists

    def _read_switch(self) -> MaintenanceState | None:
        raw = read_file(self.path, MAX_BYTES)
        return None if raw is None else MaintenanceState.parse(raw)

    def _read_holds(self) -> StoredHolds:
        raw = read_file(self.holds_path, _MAX_HOLDS_BYTES)
        if raw is not None and len(raw) > _MAX_HOLDS_BYTES:
            raise InvalidStateError(f"It is over {_MAX_HOLDS_BYTES} bytes long.")
        self._last_holds = holds = StoredHolds() if raw is None else StoredHolds.parse(raw)
        return holds

    # -- the switch, under the lock ----------------------------------------------------------------

    def write(self, state: MaintenanceState, expires_in: float | None = None) -> None:
        """Write the switch, unless it has that state already. Raises `BackendError`."""
        state = _expiring(state, expires_in)
        if _try(self.path, self._read_switch)[0] != state:
            with translating_os_errors(self.path):
                replace_file(self.path, state.dump().encode())

    def compare_and_set(
        self, expected: MaintenanceState | None, state: MaintenanceState, *, end_holds: bool = False
    ) -> bool:
        """Write the switch, or `clear` all, if it is as expected; otherwise return False."""
        if self.read()[0].switch != expected:
            return False
        if end_holds:
            self.clear()
        else:
            self.write(state)
        return True

    # -- the holds, under the lock -----------------------------------------------------------------

    def acquire(self, hold: Hold, lease: float) -> Hold:
        """Add a hold, and return it as stored."""
        stored, now = self._stored(), time.time()
        # After the last clear, even if the clock was set back; otherwise it looks revoked.
        since = max(now, math.nextafter(stored.cleared_at, math.inf))
        taken = replace(hold, since=since, deadline=now + lease)
        self._store(stored.with_hold(taken))
        return taken

    def renew(self, hold: Hold, lease: float) -> bool:
        """Extend a hold, or store it again if its file was lost; return False if it was revoked."""
        stored = self._stored()
        known = stored.by_id.get(hold.id, hold)
        if known.since <= stored.cleared_at:
            return False
        self._store(stored.with_hold(replace(known, deadline=time.time() + lease)))
        return True

    def release(self, hold: Hold, keep: MaintenanceState | None) -> None:
        """Remove a hold, after writing `keep` to the switch if given."""
        if keep is not None and hold.component is None:
            self.write(keep)
        stored = self._stored()
        if hold.id in stored.by_id:
            others = {id: other for id, other in stored.by_id.items() if id != hold.id}
            self._store(replace(stored, by_id=others))

    def clear(self) -> None:
        """Revoke every hold, and turn the switch off."""
        holds, _ = _try(self.holds_path, self._read_holds)
        # After every hold was taken, even if the clock was set back; otherwise it does not count.
        taken = [hold.since for hold in (holds or self._last_holds).by_id.values()]
        self._store(StoredHolds(cleared_at=max([time.time(), *taken])))
        self.write(OFF)

    def _stored(self) -> StoredHolds:
        """Return the live holds, to change them; the last known ones if the file is invalid."""
        with translating_os_errors(self.holds_path):
            try:
                holds = self._read_holds()
            except InvalidStateError:  # the other holders renew, and so store theirs again
                holds = self._last_holds
        return holds.live(time.time())

    def _store(self, holds: StoredHolds) -> None:
        content = holds.dump()
        if len(content) > _MAX_HOLDS_BYTES:
            raise BackendError(
                f"{self.holds_path} would be over {_MAX_HOLDS_BYTES} bytes long: "
                "shorten the texts of the holds."
            )
        with translating_os_errors(self.holds_path):
            if content:
                replace_file(self.holds_path, content)
            else:
                remove_file(self.holds_path)


def _finite(number: Any) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError
    return value


def _try(what: str, read: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return what is read, or a sentence that says why it cannot be read."""
    try:
        return read(), None
    except OSError as error:
        reason = error.strerror or "no reason given"
    except InvalidStateError as error:
        reason = str(error)
    return None, f"{what} cannot be read: {reason.removesuffix('.')}."


def _expiring(state: MaintenanceState, expires_in: float | None) -> MaintenanceState:
    """Return the state with its time to live as its end.

    Raises `InvalidStateError` if that is before the start, or beyond the calendar.
    """
    if expires_in is None or not state.enabled:
        return state
    try:
        end = datetime.fromtimestamp(time.time() + expires_in, UTC)
    except (OverflowError, ValueError, OSError):
        raise InvalidStateError(
            f"It cannot last {expires_in:g} s: that is beyond the calendar."
        ) from None
    if state.starts_at is not None and state.starts_at >= end:
        raise InvalidStateError(
            f"It would be over after {expires_in:g} s, before it starts at {state.starts_at}."
        )
    return state if state.ends_at and state.ends_at <= end else state.replace(ends_at=end)
