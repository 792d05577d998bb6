"""Map backend errors to HTTP status codes. 503 is never used: clients read it as maintenance."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError, ValidationException
from pydantic import BaseModel

from .._internal.logging import log_fields
from ..backends.base import as_backend_error
from ..exceptions import (
    BackendError,
    BackendUnavailableError,
    InvalidStateError,
    ReadOnlyBackendError,
    UnsupportedError,
)
from ..exemptions.tokens import NotGrantedError, UnknownBypassError
from .dependencies import Mode

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
    400: "The body cannot be read.",
    403: "Cross-site request.",
    404: "Not found.",
    409: "The current switch or the backend does not allow it.",
    412: "The switch has changed: If-Match does not match.",
    415: "The body is not JSON.",
    428: "If-Match is missing.",
    501: "The backend does not support it.",
    502: "The backend returned an error.",
    504: "The backend did not answer in time.",
}


class ErrorDetail(BaseModel):
    """The reason of a failure, and what to do instead."""

    detail: str


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe these status codes, and those that every operation may answer, for OpenAPI."""
    return {
        code: {"model": ErrorDetail, "description": _DESCRIPTIONS[code]}
        for code in sorted({*codes, 501, 502, 504})
    }


def invalid(location: str, message: str) -> RequestValidationError:
    """Return an error that is answered with 422, like one that FastAPI itself finds."""
    return RequestValidationError(
        [{"type": "value_error", "loc": (location,), "msg": message, "input": None}]
    )


async def translate_errors(mode: Mode) -> AsyncIterator[None]:
    """Translate errors of the backend into HTTP errors."""
    try:
        yield
    except (HTTPException, ValidationException):
        raise
    except Exception as error:  # a custom backend may raise anything
        if isinstance(error, InvalidStateError):
            raise invalid("body", str(error)) from error
        known = as_backend_error(error, mode.backend)
        if known is not error:
            logger.warning(
                "%s",
                known,
                exc_info=error,
                extra=log_fields("backend-failed", backend=mode.backend.describe()),
            )
        raise HTTPException(
            next(code for kind, code in _STATUS if isinstance(known, kind)), str(known)
        ) from error
