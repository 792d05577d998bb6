"""The history of changes, a capped stream in Redis: reading it, and following it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, get_args

from redis.exceptions import NoPermissionError

from ..._internal.logging import log_fields
from ...exceptions import BackendError, InvalidStateError, UnsupportedError
from ...model.history import Attribution, Change, Kind, truncated
from ...model.holds import Hold
from ...model.state import MaintenanceState
from .connection import Ask, Command, Reply

logger = logging.getLogger("fastapi_maintenance")

_BLOCK: Final = 1.0  # seconds; then who owns the switch is found out again
_AT_ONCE: Final = 100  # entries
# Entries that are asked for where only some are wanted; ten times what is kept.
_MOST: Final = 10_000
_KINDS: Final[Mapping[str, Kind]] = {kind: kind for kind in get_args(Kind)}


class History:
    """Reads the stream under a key."""

    def __init__(self, key: str, ask: Ask, pause: float) -> None:
        self._key = key
        self._ask = ask
        self._pause = pause

    async def newest(self, limit: int, component: str | None) -> tuple[Change, ...]:
        """Return the newest changes, oldest first (XREVRANGE). Raises `BackendError`."""
        count = limit if component is None else _MOST
        reply = await self._read(("XREVRANGE", self._key, "+", "-", "COUNT", count))
        changes = [
            change
            for _, change in _entries(reply)
            if change is not None and component in (None, change.component)
        ]
        return tuple(reversed(changes[:limit]))

    async def follow(self, after: str) -> AsyncIterator[Change]:
        """Yield changes as they come, after the one with this identifier (XREAD).

        Retry while Redis does not answer.

        Raises `UnsupportedError` if Redis does not permit that.
        """
        last = after or "0"
        while True:
            try:
                read = f"XREAD COUNT {_AT_ONCE} BLOCK {_BLOCK * 1000:.0f} STREAMS".split()
                reply = await self._read((*read, self._key, last), _BLOCK)
                entries = list(_entries(_of_stream(reply)))
            except UnsupportedError:
                raise
            except BackendError:
                await asyncio.sleep(self._pause)
                continue
            for id, change in entries:
                last = id
                if change is not None:
                    yield change

    async def _read(self, command: Command, blocks_for: float = 0.0) -> Reply:
        reply = await self._ask(command, blocks_for)
        if isinstance(reply, NoPermissionError):
            raise UnsupportedError(
                f"Redis does not permit this user to read the history: {reply}"
            ) from reply
        if isinstance(reply, Exception):
            raise BackendError(f"The history under {self._key} cannot be read: {reply}") from reply
        return reply


class HistoryGapLog:
    """Log that changes are missing from the history, once for each cause."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._said: set[str] = set()

    def tell(self, unrecorded: str) -> None:
        """Log why Redis refused to record what was changed all the same, unless that is known.

        Empty where it did not.
        """
        code = unrecorded.partition(" ")[0]
        if not code or code in self._said:
            return
        self._said.add(code)
        extra = log_fields("unrecorded", backend=self._backend)
        logger.warning(
            "changes take effect, but the history of %s lacks them: %s",
            self._backend,
            unrecorded,
            extra=extra,
        )


def read_entry(id: bytes, fields: Mapping[bytes, bytes]) -> Change | None:
    """Read what `maintenance.lua` entered.

    None for what cannot be read, as of a newer version or of another program.
    """
    try:
        name, kind = id.decode(), _KINDS[fields[b"kind"].decode()]
        at = datetime.fromtimestamp(int(name.partition("-")[0]) / 1000, UTC)
        component, hold, error = (_text(fields.get(part)) for part in (b"scope", b"hold", b"error"))
        note = Attribution.parse(fields.get(b"note", b"{}"))
    # The second is also what an InvalidStateError is.
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    state, its_component = note.state, note.component
    if state is None:
        try:
            state, its_component = _state_of(kind, hold, fields.get(b"value"), error)
        except InvalidStateError as unreadable:
            error = str(unreadable)
    by = note.by or (None if state is None else state.by)
    state = None if state is None else truncated(state)
    return Change(
        name, at, kind, component or its_component, hold, state, by, note.host, note.pid, error
    )


def _state_of(
    kind: str, hold: str | None, value: bytes | None, error: str | None
) -> tuple[MaintenanceState | None, str | None]:
    """Return the state that a raw value says, and its component."""
    if error is not None or kind == "lost":
        return None, None
    if hold is None:
        return MaintenanceState.parse(value), None
    if value is None:
        return None, None
    parsed = Hold.parse(hold, 0.0, value)
    return parsed.state, parsed.component


def _entries(reply: Any) -> Iterator[tuple[str, Change | None]]:
    """Return identifiers with readable entries.

    Raises `BackendError` if the reply is no list of entries.
    """
    try:
        for id, fields in reply:
            values = fields or ()  # none where the entry was deleted meanwhile
            yield id.decode(), read_entry(id, dict(zip(values[::2], values[1::2], strict=True)))
    except (TypeError, ValueError, AttributeError):
        raise BackendError("Redis answered with something else than a history.") from None


def _of_stream(reply: Any) -> Any:
    """Return the entries of the one stream of an XREAD; none after a timeout."""
    match reply:
        case None | []:
            return []
        case [[_, entries]]:
            return entries
    raise BackendError("Redis answered with something else than a history.")


def _text(raw: bytes | None) -> str | None:
    return None if not raw else raw.decode(errors="replace")
