"""ETags of the switch, so that no operator overwrites the change of another."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Request

from ..model.snapshot import Snapshot

_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')
_LENGTH: Final = 32  # hexadecimal digits
_IF_MATCH: Final = "The ETag that GET answered, or * to overwrite any value."


def etag_of(snapshot: Snapshot) -> str:
    """Return a strong ETag (RFC 9110, 8.8.3) of the switch, holds and component switches."""
    text = snapshot.fingerprint or _content(snapshot)
    return f'"{sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_LENGTH]}"'


def matches(field: str, etag: str) -> bool:
    """Return whether If-Match (RFC 9110, 13.1.1) lets a request through.

    A weak tag matches like a strong one: proxies that compress, as nginx does, make ours weak.
    """
    return field.strip() == "*" or etag in _TAG.findall(field)


def _content(snapshot: Snapshot) -> str:
    """Return a fingerprint for a backend without one. It does not depend on the time."""
    holds = snapshot.holds and sorted((hold.id, hold.dump()) for hold in snapshot.holds)
    components = {name: own.switch for name, own in sorted((snapshot.components or {}).items())}
    error = snapshot.error if snapshot.switch is None else None
    return repr((snapshot.switch, holds, components, error))


async def if_match_given(request: Request) -> str:
    """Return the condition of the request, which must have one (RFC 6585, 3)."""
    field = ", ".join(request.headers.getlist("if-match"))
    if not field:
        raise HTTPException(428, f"If-Match is missing. Send it: {_IF_MATCH}")
    return field


IfMatch = Annotated[str, Depends(if_match_given)]

# Declared by hand: FastAPI would answer 422, and not 428, to a request without a required header.
IF_MATCH: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "If-Match",
            "in": "header",
            "required": True,
            "description": _IF_MATCH,
            "schema": {"type": "string", "minLength": 1},
        }
    ]
}
