"""Call exempt and response handlers, with the application's error handling."""

from __future__ import annotations

import logging
from collections import deque
from inspect import signature
from typing import Any, Final

from starlette.exceptions import HTTPException, WebSocketException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._internal.callables import call_handler, qualified_name
from .._internal.logging import log_fields
from ..exemptions.rules import ExemptHandler
from ..model.state import MaintenanceState
from ..responses.response import ResponseHandler
from ..responses.transport import adapt_send

logger = logging.getLogger("fastapi_maintenance")

_INTERNAL_ERROR: Final = 1011  # in IANA's registry of WebSocket close codes
# Intended answers, and clients that left.
_EXPECTED: Final = (HTTPException, WebSocketException, ClientDisconnect)


class ReplayableReceive:
    """A `receive` whose messages can be read a second time: by a handler, then by the app."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._taken: deque[Message] = deque()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._taken.append(message)
        return message

    async def replay(self) -> Message:
        """Return the kept messages first, then what comes."""
        return self._taken.popleft() if self._taken else await self._receive()


async def is_exempt(handler: ExemptHandler, scope: Scope, receive: Receive, send: Send) -> bool:
    """Return the answer of an exempt handler. Its error is logged, annotated and raised.

    The body stays readable with a `ReplayableReceive` as `receive` and its `replay` afterwards. For
    a WebSocket, a handler that only works on requests exempts nothing.
    """
    connection = _connection(scope, receive, send)
    return bool(await _ask("exempt_handler", handler, connection, default=False))


async def answer_with(
    handler: ResponseHandler,
    state: MaintenanceState | None,
    default: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Send the response of a handler, which also gets the state unless that is None.

    The application's exception handlers answer its errors. `default` answers a WebSocket if the
    handler only works on requests.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        connection, more = _connection(scope, receive, send), [] if state is None else [state]
        response = await _ask("response_handler", handler, connection, *more, default=default)
        await response(scope, receive, send)

    await _with_app_error_handlers(answer, scope, receive, adapt_send(scope, send))


def takes_state(handler: ResponseHandler) -> bool:
    """Return whether a response handler cannot be called with a request alone."""
    try:
        signature(handler).bind(None)
    except TypeError:
        return True
    except ValueError:  # a callable of C without a signature
        pass
    return False


async def handle_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer like the app if an endpoint raised this error. Without a handler there, raise it."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    await _with_app_error_handlers(
        fail, scope, receive, adapt_send(scope, send, code=_INTERNAL_ERROR, reason="Internal error")
    )


def _connection(scope: Scope, receive: Receive, send: Send) -> HTTPConnection:
    return Request(scope, receive, send) if scope["type"] == "http" else HTTPConnection(scope)


async def _ask(
    role: str, handler: Any, connection: HTTPConnection, *more: object, default: Any
) -> Any:
    """Call a handler. Its error is raised with a note that names it, and logged if unexpected.

    `default` replaces the result of a handler that failed on what a WebSocket's handshake lacks.
    """
    try:
        result = await call_handler(handler, connection, *more)
        if role == "response_handler" and (not callable(result) or isinstance(result, type)):
            raise TypeError(
                f"{qualified_name(handler)} returned {type(result).__name__}; "
                "a response_handler must return a Response."
            )
        return result
    except Exception as error:
        if _lacks_a_request(error, connection):
            return default
        name = qualified_name(handler)
        if not isinstance(error, _EXPECTED):
            extra = log_fields("handler-failed", handler=name)
            logger.error("The %s %s failed: %r", role, name, error, extra=extra)
        note = f"Raised by the {role} {name}."
        if note not in getattr(error, "__notes__", ()):  # one object may be raised many times
            error.add_note(note)
        raise


def _lacks_a_request(error: Exception, connection: HTTPConnection) -> bool:
    """Return whether a handler failed on what a `Request` has and a WebSocket lacks."""
    if not isinstance(error, AttributeError) or error.obj is not connection:
        return False
    return hasattr(Request, error.name or "")


async def _with_app_error_handlers(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run `app` inside the exception handlers of the real application.

    Handlers of 500 and Exception are left out: they belong to Starlette's ServerErrorMiddleware,
    which is outside of this middleware.
    """
    known = getattr(scope.get("app"), "exception_handlers", {})
    handlers = {key: handler for key, handler in known.items() if key not in (500, Exception)}
    await ExceptionMiddleware(app, handlers)(scope, receive, send)
