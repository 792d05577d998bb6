"""Call exempt and response handlers, and route their errors through the application's exception handlers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
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
from ..responses import adapt_send
from ..responses.response import ResponseHandler

__all__ = ["ReplayableReceive", "answer_with", "handle_error", "is_exempt", "takes_state"]

logger = logging.getLogger("fastapi_maintenance")


_INTERNAL_ERROR: Final = 1011  # in IANA's registry of WebSocket close codes


_NO_FAILURES: Final = (
    HTTPException,
    WebSocketException,
    ClientDisconnect,
)  # an answer that was meant, or a client that left


class ReplayableReceive:
    """A `receive` that can be read a second time: what an exempt handler took of the body is there again for the app."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._taken: deque[Message] = deque()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._taken.append(message)
        return message

    async def replay(self) -> Message:
        """The `receive` for the app: first what was taken, then what comes."""
        return self._taken.popleft() if self._taken else await self._receive()


async def is_exempt(handler: ExemptHandler, scope: Scope, receive: Receive, send: Send) -> bool:
    """Ask an exempt handler. Raises what it raised, logged and with a note that names it: for `handle_error`.

    Where the request goes on afterwards, give a `ReplayableReceive` as `receive`, and `replay.again` to whoever comes next.
    """
    connection = _connection(scope, receive, send)
    with _annotate_errors("exempt_handler", handler):
        try:
            return bool(await call_handler(handler, connection))
        except AttributeError as error:
            if not _asks_for_a_request(error, connection):
                raise
            return False


async def answer_with(
    handler: ResponseHandler,
    state: MaintenanceState | None,
    default: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Send the response of a handler, which gets the state too unless that is None.

    Errors of the handler get the app's error handling, and are raised where that has none. `default` answers a WebSocket if the
    handler can only answer requests.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        connection = _connection(scope, receive, send)
        with _annotate_errors("response_handler", handler):
            try:
                response: Any = await call_handler(
                    handler, connection, *([] if state is None else [state])
                )
            except AttributeError as error:
                if not _asks_for_a_request(error, connection):
                    raise
                response = default
            if not callable(response) or isinstance(response, type):
                raise TypeError(
                    f"{qualified_name(handler)} returned {type(response).__name__}; a response_handler must return a Response."
                )
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
    """Answer as the app answers when an endpoint raises this error; raises it where the app has no handler for it."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    await _with_app_error_handlers(
        fail, scope, receive, adapt_send(scope, send, code=_INTERNAL_ERROR, reason="Internal error")
    )


def _connection(scope: Scope, receive: Receive, send: Send) -> HTTPConnection:
    return Request(scope, receive, send) if scope["type"] == "http" else HTTPConnection(scope)


def _asks_for_a_request(error: AttributeError, connection: HTTPConnection) -> bool:
    """Return whether a handler failed only because a WebSocket's handshake is no `Request`, and has no method and no body."""
    return error.obj is connection and hasattr(Request, error.name or "")


@contextmanager
def _annotate_errors(role: str, handler: object) -> Iterator[None]:
    """Say which handler raised: in the log and, for whoever prints the traceback, on the exception."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _NO_FAILURES):
            logger.error(
                "The %s %s failed: %r",
                role,
                qualified_name(handler),
                error,
                extra=log_fields("handler-failed", handler=qualified_name(handler)),
            )
        note = f"Raised by the {role} {qualified_name(handler)}."
        if note not in getattr(
            error, "__notes__", ()
        ):  # an exception that is one object for all requests would collect them
            error.add_note(note)
        raise


async def _with_app_error_handlers(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run `app` where endpoints run: inside the error handling that lies beneath our middleware in the real app.

    Handlers of 500 and of Exception are left out. They belong to Starlette's ServerErrorMiddleware, outside of ours.
    """
    known = getattr(scope.get("app"), "exception_handlers", {})
    handlers = {key: handler for key, handler in known.items() if key not in (500, Exception)}
    await ExceptionMiddleware(app, handlers)(scope, receive, send)
