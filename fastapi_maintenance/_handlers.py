"""Calls what users pass in, and gives its errors the error handling of their app."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException, WebSocketException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._fields import fields
from .responses import fit
from .types import ExemptHandler, ResponseHandler

__all__ = ["Replay", "answer_with", "call_handler", "handle_error", "is_async", "is_exempt", "name_of"]

logger = logging.getLogger("fastapi_maintenance")

Result = TypeVar("Result")

_INTERNAL_ERROR: Final = 1011  # in IANA's registry of WebSocket close codes
_NO_FAILURES: Final = (HTTPException, WebSocketException, ClientDisconnect)  # an answer that was meant, or a client that left


class Replay:
    """A `receive` that can be read a second time: what an exempt handler took of the body is there again for the app."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._taken: deque[Message] = deque()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._taken.append(message)
        return message

    async def again(self) -> Message:
        """The `receive` for the app: first what was taken, then what comes."""
        return self._taken.popleft() if self._taken else await self._receive()


async def is_exempt(handler: ExemptHandler, scope: Scope, receive: Receive, send: Send) -> bool:
    """Ask an exempt handler. Raises what it raised, logged and with a note that names it: for `handle_error`.

    Where the request goes on afterwards, give a `Replay` as `receive`, and `replay.again` to whoever comes next.
    """
    with _blaming("exempt_handler", handler):
        return bool(await call_handler(handler, _connection(scope, receive, send)))


async def answer_with(handler: ResponseHandler, scope: Scope, receive: Receive, send: Send) -> None:
    """Send what a response handler makes; its errors get the app's error handling, and are raised where that has none."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        with _blaming("response_handler", handler):
            response: Any = await call_handler(handler, _connection(scope, receive, send))
            if not callable(response) or isinstance(response, type):
                raise TypeError(f"{name_of(handler)} returned {type(response).__name__}; a response_handler must return a Response.")
        await response(scope, receive, send)

    await _as_in_the_app(answer, scope, receive, fit(scope, send))


async def handle_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the app answers when an endpoint raises this error; raises it where the app has no handler for it."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    await _as_in_the_app(fail, scope, receive, fit(scope, send, code=_INTERNAL_ERROR, reason="Internal error"))


async def call_handler(handler: Callable[[Any], Result | Awaitable[Result]], subject: object) -> Result:
    """Call a handler, in the thread pool unless it is async, and await what it returns if that can be awaited."""
    if is_async(handler):
        result = handler(subject)
    else:
        result = await run_in_threadpool(handler, subject)
    return await result if isawaitable(result) else result


def is_async(handler: Any) -> bool:
    """Whether calling it makes a coroutine: an async function, a partial of one, or an object with an async `__call__`."""
    while isinstance(handler, partial):
        handler = handler.func
    return iscoroutinefunction(handler) or iscoroutinefunction(handler.__call__)


def _connection(scope: Scope, receive: Receive, send: Send) -> HTTPConnection:
    return Request(scope, receive, send) if scope["type"] == "http" else HTTPConnection(scope)


@contextmanager
def _blaming(role: str, handler: object) -> Iterator[None]:
    """Say which handler raised: in the log and, for whoever prints the traceback, on the exception."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _NO_FAILURES):
            logger.error("The %s %s failed: %r", role, name_of(handler), error, extra=fields("handler-failed", handler=name_of(handler)))
        note = f"Raised by the {role} {name_of(handler)}."
        if note not in getattr(error, "__notes__", ()):  # an exception that is one object for all requests would collect them
            error.add_note(note)
        raise


def name_of(handler: object) -> str:
    """How a handler is called in messages."""
    while isinstance(handler, partial):
        handler = handler.func
    named: Any = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


async def _as_in_the_app(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `app` where endpoints run: inside the error handling that lies beneath our middleware in the real app.

    Handlers of 500 and of Exception are left out. They belong to Starlette's ServerErrorMiddleware, outside of ours.
    """
    known = getattr(scope.get("app"), "exception_handlers", {})
    handlers = {key: handler for key, handler in known.items() if key not in (500, Exception)}
    await ExceptionMiddleware(app, handlers)(scope, receive, send)
