"""The script that does each step atomically, and the commands that run it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.resources import files
from typing import Final

from redis.exceptions import ConnectionError, NoPermissionError, NoScriptError, ResponseError

from ...exceptions import BackendError, BackendUnavailableError, InvalidStateError, UnsupportedError
from ...model.holds import Hold
from ...model.state import MAX_BYTES
from .cluster import is_slot_migrating
from .connection import Command, NotSlotOwnerError, RedisConnection
from .keys import Keys

_SOURCE: Final = files(__package__).joinpath("maintenance.lua").read_bytes()
_DIGEST: Final = hashlib.sha1(_SOURCE, usedforsecurity=False).hexdigest()

_NOT_PERMITTED: Final = (
    "unknown command",
    "unknown redis command",
    "acl failure in script",
    "can't run this command",
)


_HANGS_UP: Final = (
    "A proxy closes the connection at EVALSHA. Holds, barriers and the history need scripts: "
    "connect to Redis itself, or let the proxy pass EVALSHA and EVAL."
)
_RETRY_AFTER: Final = 10.0  # seconds, for which no script is run after two hang-ups


class Script:
    """Builds the commands that run a step of `maintenance.lua` on the keys of one switch."""

    def __init__(self, keys: Keys, components: Callable[[], Iterable[str]] = tuple) -> None:
        self._keys = keys
        self._components = components
        self._hung_up, self._again_at = 0, 0.0

    @property
    def is_suspect(self) -> bool:
        """Return whether the last connection that a script was sent on has ended."""
        return self._hung_up > 0

    @property
    def is_refused(self) -> bool:
        """Return whether scripts are not run for now, as connections end at them."""
        return time.monotonic() < self._again_at

    def _note_hang_up(self) -> None:
        self._hung_up += 1
        if self._hung_up > 1:
            self._again_at = time.monotonic() + _RETRY_AFTER

    def by_digest(self, step: str, *args: str | int) -> Command:
        """Run a step that the server has loaded; else it answers NOSCRIPT."""
        return ("EVALSHA", _DIGEST, *self._tail(step, *args))

    def whole(self, step: str, *args: str | int) -> Command:
        """Run a step and load the script with it."""
        return ("EVAL", _SOURCE, *self._tail(step, *args))

    async def run(self, connection: RedisConnection, step: str, *args: str | int) -> object:
        """Run a step now.

        Raises `UnsupportedError` if scripts are not permitted, or if the connection has ended at
        two of them in a row, and `BackendError` if this one is refused.
        """
        if self.is_refused:
            raise UnsupportedError(_HANGS_UP)
        try:
            (reply,) = await connection.call(self.by_digest(step, *args))
            if is_unknown_script(reply):
                (reply,) = await connection.call(self.whole(step, *args))
        except BackendUnavailableError as error:
            if isinstance(error.__cause__, ConnectionError):  # not for a reply that is late
                self._note_hang_up()
            raise
        self._hung_up = 0
        if is_slot_migrating(reply):
            raise NotSlotOwnerError(
                f"the cluster is moving the switch to another node; try again in a moment ({reply})"
            ) from reply
        if isinstance(reply, NoPermissionError) or is_unknown(reply):
            raise UnsupportedError(
                "Redis does not permit this user what holds and the barrier need; ACL LOG "
                f"names it: {reply}"
            ) from reply
        if isinstance(reply, Exception):
            raise BackendError(f"Redis refused: {reply}") from reply
        return reply

    def _tail(self, step: str, *args: str | int) -> Command:
        keys = *self._keys.all, *(self._keys.component(name) for name in sorted(self._components()))
        return (len(keys), *keys, step, self._keys.events, *args)


def is_unknown_script(reply: object) -> bool:
    """Return whether the server wants to be sent the script whole.

    What imitates Redis may say so without the error code.
    """
    return isinstance(reply, ResponseError) and (
        isinstance(reply, NoScriptError) or str(reply).startswith("No matching script")
    )


def dump_hold(hold: Hold) -> str:
    """Dump a hold without its times.

    Raises `InvalidStateError` over 64 KiB: each worker reads it every `ttl`.
    """
    text = replace(hold, since=0.0).dump()
    if len(text) > MAX_BYTES:
        raise InvalidStateError(
            f"The hold is {len(text)} bytes long; {MAX_BYTES} is the most one may have. "
            "Shorten its texts."
        )
    return text


def is_unknown(reply: object) -> bool:
    """Return whether the server does not know or permit a command."""
    return isinstance(reply, ResponseError) and any(
        sign in str(reply).lower() for sign in _NOT_PERMITTED
    )
