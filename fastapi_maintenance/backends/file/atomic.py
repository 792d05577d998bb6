"""Read files within bounds, and replace them atomically. Blocking."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ...exceptions import BackendUnavailableError, ReadOnlyBackendError

_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBADF)


def read_file(path: str, max_bytes: int) -> bytes | None:
    """Return the content of a regular file, at most `max_bytes` + 1; None for a missing file.

    Raises `OSError`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for a writer
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        content = b""
        while part := os.read(descriptor, max_bytes + 1 - len(content)):
            content += part
        return content
    finally:
        os.close(descriptor)


def replace_file(path: str, content: bytes) -> None:
    """Replace a file atomically: readers, and a crash, find the old content or the new one.

    The new file keeps the permissions of the old one. Of a symbolic link, the target is replaced.
    Raises `OSError`.
    """
    target = os.path.realpath(path)
    directory, name = os.path.split(target)
    temporary = os.path.join(directory, f".{name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            _take_over_permissions(descriptor, target)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def remove_file(path: str) -> None:
    """Remove a file if it is there. Raises `OSError`."""
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def translating_os_errors(path: str) -> Iterator[None]:
    """Raise an `OSError` about `path` as a `BackendError` that says what to do."""
    try:
        yield
    except OSError as error:
        kind = ReadOnlyBackendError if error.errno in _FORBIDDEN else BackendUnavailableError
        raise kind(
            f"{path} cannot be written ({error.strerror or error}){_advice(error, path)}."
        ) from error


def _advice(error: OSError, path: str) -> str:
    directory = os.path.dirname(path)
    if error.errno == errno.EROFS:
        return ": keep it on a file system that is not read-only"
    if error.errno in _FORBIDDEN:
        return f": give this user permission to write it and its directory {directory}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f": make the directory {directory} first"
    if error.errno == errno.EISDIR:
        return ": name a file, not a directory"
    if error.errno == errno.EBUSY:
        return ": a file that is mounted by itself cannot be replaced, so mount its directory"
    return ""


def _take_over_permissions(descriptor: int, target: str) -> None:
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return
    # If root flips the switch, the owner must keep access to it.
    for user, group in ((-1, old.st_gid), (old.st_uid, -1)):
        with suppress(OSError):
            os.fchown(descriptor, user, group)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_directory(directory: str) -> None:
    # Some network file systems cannot sync a directory; the file is in place all the same.
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
