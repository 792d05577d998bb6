"""The counted requests. callgrind writes its counters at each os.getsid(0), which is unused."""

from __future__ import annotations

import asyncio
import gc
import math
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from time import monotonic
from typing import Any, Final, cast

from redis.asyncio.connection import Connection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.backends import BaseStateBackend, RedisBackend
from fastapi_maintenance.backends.redis.connection import RedisConnection
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.sync import Sync
from fastapi_maintenance.model.state import ON
from fastapi_maintenance.responses.negotiation import preferences
from fastapi_maintenance.runtime.mode import MaintenanceMode
from fastapi_maintenance.runtime.requests import (
    InFlightRequest,
    reset_current_request,
    set_current_request,
)

from .subjects import HandWritten, PassThrough, make, receive, scope_of, send

REQUESTS: Final = 15
PHASES: Final = 2
_WARM: Final = 60  # until the interpreter has specialised everything
_AT_HAND: ContextVar[object] = ContextVar("at_hand", default=None)

Counted = Callable[[Scope], Awaitable[object]]


class Off(BaseStateBackend):
    """Two methods, as a user writes them."""

    kind = "off"

    async def get_value(self) -> bool:
        return False

    async def set_value(self, value: bool) -> None:
        raise NotImplementedError

    def describe(self) -> str:
        return "off:"


class Step:
    """What the yardstick makes."""

    __slots__ = ("outer", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.outer = _AT_HAND.get()


async def yardstick(scope: Scope) -> None:
    """Python of the kind that is measured, and never changed: what one interpreter does with more instructions, it does here, too."""
    for _ in range(20):
        step = Step(dict(scope))
        token = _AT_HAND.set(step)
        kept = {step}
        try:
            if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
                raise AssertionError
            await send({"type": "http.response.start", "headers": [*scope["headers"]]})
        finally:
            kept.discard(step)
            _AT_HAND.reset(token)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """The application beneath, of which nothing is counted."""


async def ours(routes: int, *, closed: bool) -> MaintenanceModeMiddleware:
    """Our middleware over so many routes, always sure of what it knows, with an application that does nothing."""
    app = make("bare", routes)
    app.add_middleware(MaintenanceModeMiddleware, backend=Off(), enable_maintenance=closed)

    async def swallow(message: Message) -> None: ...

    await app(scope_of("/"), receive, swallow)  # builds the middlewares
    layer: Any = app.middleware_stack
    while not isinstance(layer, MaintenanceModeMiddleware):
        layer = layer.app
    await layer.mode.stop()  # no poll while instructions are counted
    layer.mode.gate = replace(layer.mode.gate, until=math.inf)
    if not closed:
        layer.app = nothing
    return layer


_EPOCH: Final = b"$39\r\n1764547200000000 1764547200000000 0 0 0\r\n"
_READ: Final = b"%b$0\r\n\r\n:-2\r\n%%0\r\n*2\r\n$10\r\n1764547200\r\n$6\r\n123456\r\n%b" % (
    _EPOCH,
    _EPOCH,
)
_PLACE: Final = b"*5\r\n$2\r\n{}\r\n$12\r\n0123456789ab\r\n_\r\n_\r\n_\r\n"
_JOIN: Final = b"+OK\r\n:1\r\n+OK\r\n:1\r\n:1\r\n:0\r\n" + _PLACE + _READ
_POLL: Final = b"+OK\r\n" + _PLACE + _READ


class _Transport(asyncio.Transport):
    """Answers each batch with the same bytes."""

    def __init__(self, wire: RedisConnection) -> None:
        super().__init__()
        self._wire = wire
        self.reply = _JOIN

    def write(self, data: Any) -> None:
        asyncio.get_running_loop().call_soon(self._wire.data_received, self.reply)

    def is_closing(self) -> bool:
        return False


async def polls() -> Callable[[object], Awaitable[object]]:
    """Return a function that polls once for a real worker, without a change."""
    wire = RedisConnection(Connection(), within=5.0)
    wire._transport = transport = _Transport(wire)
    backend = RedisBackend("redis://")
    mode = MaintenanceMode(backend)
    options: dict[str, Any] = {"ttl": backend.ttl, "on_data_loss": "follow", "report": mode.report}
    sync = Sync(backend._server, Keys.of("maintenance"), mode, "0123456789ab", **options)
    sync.begin()

    async def poll(scope: object) -> None:
        await sync.poll(wire, arm=True, delivery="tracking")
        sync._polls = 1  # without the look for versions before 1.0 in every tenth poll

    await poll(None)
    transport.reply = _POLL
    return poll


def profile(
    layer: MaintenanceModeMiddleware, closed: MaintenanceModeMiddleware
) -> dict[str, Counted]:
    """What the two paths are made of, piece by piece."""
    mode, routes = layer.mode, layer._routes
    admission = InFlightRequest.of(mode, scope_of("/"))
    admission.route = routes.match(admission.scope)
    admission.refused_by = ON

    async def copy(scope: Scope) -> None:
        {**scope}  # noqa: B018

    async def record(scope: Scope) -> None:
        request = InFlightRequest()
        request.owner = mode
        request.scope = scope
        request.gate = mode.gate

    async def at_hand(scope: Scope) -> None:
        reset_current_request(set_current_request(admission))

    async def in_and_out(scope: Scope) -> None:
        enter, leave = layer._enter_and_leave
        enter(admission)
        leave(admission)

    async def current(scope: Scope) -> None:
        scan = routes.current
        listed = scan.router.routes
        if len(listed) != scan.size or listed[-1] is not scan.last or scan.nested:
            raise AssertionError

    async def clock(scope: Scope) -> None:
        assert monotonic() < mode.gate.until

    async def find(scope: Scope) -> None:
        closed._known.find(closed.mode.gate, scope)

    async def prefer(scope: Scope) -> None:
        preferences(scope)

    async def messages(scope: Scope) -> None:
        closed._plain.messages(scope, preferred)

    async def resolve(scope: Scope) -> None:
        routes.match(scope)

    async def decide(scope: Scope) -> None:
        admission.decide(closed.mode.gate, found=True)

    async def answer(scope: Scope) -> None:
        await layer._refuse(admission, scope, receive, send)

    preferred = preferences(admission.scope)
    pieces = {
        "open: the copy of the scope": copy,
        "open: the record of the request": record,
        "open: the context variable, set and reset": at_hand,
        "open: in flight, in and out": in_and_out,
        "open: whether routes were added": current,
        "open: whether the gate is still valid": clock,
        "503: whether the refusal is known": find,
        "503: what the client prefers": prefer,
        "503: the two messages": messages,
        "first 503 of a path: which route": resolve,
        "first 503 of a path: the rules": decide,
        "first 503 of a path: the response": answer,
    }
    return {f"– {name}": asking_with(piece) for name, piece in pieces.items()}


def asking_with(piece: Counted) -> Counted:
    """As `asking`, of a piece."""
    return lambda scope: piece(dict(scope))


def asking(app: object) -> Counted:
    """One request to an app."""
    called = cast("ASGIApp", app)
    return lambda scope: called(dict(scope), receive, send)


async def main() -> None:
    bare, refusing = make("bare"), await ours(1, closed=True)
    await asking(refusing)(scope_of("/"))  # the next one like it is a known refusal
    counted: dict[str, Counted] = {
        "nothing": asking(nothing),
        "yardstick": yardstick,
        "pass-through": asking(PassThrough(nothing)),
        "bare": asking(bare),
        "hand-written 503": asking(HandWritten(nothing)),
        "open": asking(await ours(1, closed=False)),
        "open, 100 routes": asking(await ours(100, closed=False)),
        "503": asking(await ours(1, closed=True)),
        "503, 1,000 routes": asking(await ours(1000, closed=True)),
        "poll": await polls(),
        **profile(await ours(1, closed=False), refusing),
    }
    scopes = {
        name: scope_of("/things-999/1/parts" if name == "503, 1,000 routes" else "/")
        for name in counted
    }
    for name, count in counted.items():
        for _ in range(_WARM):
            await count(scopes[name])
    gc.collect()
    gc.disable()
    ballast: list[object] = []
    for phase in range(PHASES):
        # Where the next block of memory comes from depends on all that was there before, so each phase begins with the heap otherwise.
        ballast += [bytes(size) for size in range(16, 512, 16) for _ in range(37 * phase)]
        for name, count in counted.items():
            scope = scopes[name]
            os.getsid(0)
            for _ in range(REQUESTS):
                await count(scope)
    os.getsid(0)
    print("\n".join(counted))


if __name__ == "__main__":
    asyncio.run(main())
