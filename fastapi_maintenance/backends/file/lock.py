"""The lock beside the switch: whoever has it may change the holds. Blocking."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import ModuleType
from typing import Final

from ...exceptions import BackendUnavailableError, UnsupportedError
from .disk import explaining

__all__ = ["FileLock", "Locked"]

_PATIENCE: Final = 5.0  # seconds
_PAUSE: Final = 0.005
_NOTE_BYTES: Final = 64


class Locked:
    """The locked file. It is never removed, so it is where the time of the last `clear` is noted."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def cleared_at(self) -> float:
        """When all holds were last revoked, by the wall clock; minus infinity for never."""
        note = os.pread(self._descriptor, _NOTE_BYTES, 0)
        try:
            at = float(note)
        except ValueError:  # never written, or not by us
            return -math.inf
        return at if math.isfinite(at) else -math.inf

    def note_cleared(self, at: float) -> None:
        """Revoke all holds that were taken up to `at`. Raises `BackendError`."""
        with explaining(self._path):
            note = f"{at!r}\n".encode()
            os.pwrite(self._descriptor, note, 0)
            os.ftruncate(self._descriptor, len(note))


class FileLock:
    """A lock among processes and among threads, by flock(2) on a file of its own."""

    def __init__(self, path: str, patience: float = _PATIENCE) -> None:
        self.path = path
        self.patience = patience

    @contextmanager
    def held(self) -> Iterator[Locked]:
        """Hold it. Raises `BackendUnavailableError` when somebody else does for longer than `patience` seconds."""
        fcntl = _fcntl()
        descriptor = self._take(fcntl, time.monotonic() + self.patience)
        try:
            yield Locked(self.path, descriptor)
        finally:
            # Said and not left to close(): a child forked meanwhile has the file open too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _take(self, fcntl: ModuleType, deadline: float) -> int:
        while (descriptor := self._try(fcntl)) is None:
            if time.monotonic() >= deadline:
                raise BackendUnavailableError(
                    f"{self.path} has been locked for over {self.patience:g} s by another process: end that process, or try again."
                )
            time.sleep(_PAUSE)
        return descriptor

    def _try(self, fcntl: ModuleType) -> int | None:
        with explaining(self.path), ExitStack() as on_exit:
            descriptor = self._open()
            on_exit.callback(os.close, descriptor)
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:  # else it was removed meanwhile, and whoever comes next locks another file
                    on_exit.pop_all()
                    return descriptor
        return None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:
            if not os.path.exists(self.path):
                raise
            # Made by another user; the right to read it is enough to lock it.
            return os.open(self.path, os.O_RDONLY)


def _fcntl() -> ModuleType:
    # Not imported at the top, so that the rest of the package can be where there is none.
    try:
        import fcntl
    except ImportError:
        raise UnsupportedError("Holds in a file need POSIX file locks, which this system has not: keep the switch in Redis.") from None
    return fcntl
