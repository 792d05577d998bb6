"""What cannot be done, as status codes: none is a 500, and none a 503, which would look like the maintenance itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError, ValidationException
from pydantic import BaseModel

from .._fields import fields
from ..backends.base import as_backend_error
from ..exceptions import BackendError, BackendUnavailableError, InvalidStateError, ReadOnlyBackendError, UnsupportedError
from ..grants import NotGrantedError, UnknownBypassError
from .at_hand import Mode

__all__ = ["Problem", "explained", "invalid", "responses"]

logger = logging.getLogger("fastapi_maintenance")

_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (UnknownBypassError, 404),
    (NotGrantedError, 409),
    (ReadOnlyBackendError, 409),
    (UnsupportedError, 501),
    (BackendUnavailableError, 504),
    (BackendError, 502),
)

_DESCRIPTIONS: Final = {
    400: "The body could not be read.",
    403: "It was sent by a page of another site.",
    404: "There is no such thing.",
    409: "What is written now does not let it be done.",
    412: "The switch is another one by now than was seen: If-Match does not match.",
    415: "It was not sent as JSON.",
    428: "If-Match is missing, so it could overwrite what somebody else wrote.",
    501: "The backend, or what it permits, lacks what this needs.",
    502: "The backend refused.",
    504: "The backend did not answer in time.",
}


class Problem(BaseModel):
    """Why something was not done, and what to do instead."""

    detail: str


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of these status codes, and of those that every operation may answer."""
    return {code: {"model": Problem, "description": _DESCRIPTIONS[code]} for code in sorted({*codes, 501, 502, 504})}


def invalid(location: str, message: str) -> RequestValidationError:
    """Return an error that is answered with 422, like one that FastAPI itself finds."""
    return RequestValidationError([{"type": "value_error", "loc": (location,), "msg": message, "input": None}])


async def explained(mode: Mode) -> AsyncIterator[None]:
    """Answer errors of a backend with a status code and a sentence."""
    try:
        yield
    except (HTTPException, ValidationException):
        raise
    except Exception as error:  # a backend of a user's own may raise anything
        if isinstance(error, InvalidStateError):
            raise invalid("body", str(error)) from error
        known = as_backend_error(error, mode.backend)
        if known is not error:
            logger.warning("%s", known, exc_info=error, extra=fields("backend-failed", backend=mode.backend.describe()))
        raise HTTPException(next(code for kind, code in _STATUS if isinstance(known, kind)), str(known)) from error
