"""ETags of the switch, so that no operator overwrites the change of another."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Request

from ..model.snapshot import Snapshot
from ..model.state import MaintenanceState

__all__ = ["IF_MATCH", "IfMatch", "etag_of", "matches"]

_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')
_LENGTH: Final = 32  # hexadecimal digits


def etag_of(reading: Snapshot) -> str:
    """Return a strong tag (RFC 9110, 8.8.3) of the switch and everything that decides together with it."""
    text = reading.fingerprint or _written(reading)
    return f'"{sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_LENGTH]}"'


def matches(field: str, etag: str) -> bool:
    """Return whether If-Match (RFC 9110, 13.1.1) lets a request through.

    A weak tag matches like a strong one: proxies that compress, as nginx does, make ours weak.
    """
    return field.strip() == "*" or etag in _TAG.findall(field)


def _written(reading: Snapshot) -> str:
    """Return a fingerprint for a backend without one."""
    holds = (
        None if reading.holds is None else sorted((hold.id, hold.dump()) for hold in reading.holds)
    )
    components = {
        name: _text(own.switch) for name, own in sorted((reading.components or {}).items())
    }
    return json.dumps(
        [
            _text(reading.switch),
            holds,
            components,
            reading.error if reading.switch is None else None,
        ]
    )


def _text(state: MaintenanceState | None) -> str | None:
    return None if state is None else state.model_dump_json()


async def if_match_given(request: Request) -> str:
    """Return the condition of the request, which must have one (RFC 6585, 3)."""
    field = ", ".join(request.headers.getlist("if-match"))
    if not field:
        raise HTTPException(
            428,
            "If-Match is missing. Send the ETag that GET answered, or * to overwrite any value.",
        )
    return field


IfMatch = Annotated[str, Depends(if_match_given)]

# Declared by hand: FastAPI would answer 422, and not 428, to a request without a required header.
IF_MATCH: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "If-Match",
            "in": "header",
            "required": True,
            "description": "The ETag that GET answered, or * to overwrite any value.",
            "schema": {"type": "string", "minLength": 1},
        }
    ]
}
