"""The door for requests: a pure ASGI middleware for http, websocket and lifespan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from random import choice
from time import monotonic
from typing import Final, Literal, get_args

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._internal.logging import log_fields
from ..backends import BaseStateBackend, EnvVarBackend
from ..backends.default import backend_or_default
from ..exceptions import ConfigurationError
from ..exemptions.bypass import Bypass
from ..exemptions.proxies import ForwardedHeader
from ..exemptions.rules import ExemptHandler
from ..model.policy import DecidedBy
from ..model.state import ON, MaintenanceState
from ..responses import MaintenanceResponse, ResponseOptions, announcement
from ..responses.response import ResponseHandler
from ..routing import RouteTable
from ..runtime.cache import FENCED, OutagePolicy
from ..runtime.gate import Gate
from ..runtime.hooks import ChangeHook
from ..runtime.mode import MaintenanceMode
from ..runtime.requests import InFlightRequest, current_request
from ..runtime.watches import running_loop
from .cors import CORSPassthrough
from .handlers import ReplayableReceive, answer_with, handle_error, is_exempt, takes_state
from .websocket import ClosableStream, ClosableWebSocket

__all__ = ["MaintenanceModeMiddleware", "UnknownRoutes"]

logger = logging.getLogger("fastapi_maintenance")

UnknownRoutes = Literal["pass", "refuse"]

_COMING_READABLE: Final = (b"access-control-expose-headers", b"x-maintenance-coming")
_FENCED_STATES: Final = tuple(
    FENCED.model_copy(update={"retry_after": seconds}) for seconds in range(2, 6)
)
_NO_ANSWERS: Final = (401, 403, 404, 405)  # of these a middleware did nothing else


class MaintenanceModeMiddleware:
    """Answers 503 while maintenance is on: `app.add_middleware(MaintenanceModeMiddleware, backend="redis://localhost")`.

    `enable_maintenance` overrides the switch. `backend` is a backend or its URL; without it, the environment variable
    `FASTAPI_MAINTENANCE_BACKEND` names one, else `configure_backend` set one, else `FASTAPI_MAINTENANCE_MODE` is the switch.
    `exempt_handler` lets requests through, `response_handler` makes the answer; both may be sync or async. `answer` has the
    options of the answer that is made without a handler.
    With `announce`, responses say in the header `X-Maintenance-Coming` when a window will begin.
    `exempt_docs=False` closes the documentation pages and the OpenAPI document too.
    `unknown_routes="refuse"` also refuses requests that no route takes, which a middleware inside the application may answer.
    Further options are those of `MaintenanceMode`: `fallback`, `on_unreachable`, `stale_after`, `close_websockets`,
    `close_streams`, `trusted_proxies`, `forwarded`, `bypass`, `on_change` and `on_change_once`.
    With options that cannot be meant, the application refuses to start and says why.
    """

    def __init__(
        self,
        app: ASGIApp,
        enable_maintenance: bool | None = None,
        backend: str | BaseStateBackend | None = None,
        exempt_handler: ExemptHandler | None = None,
        response_handler: ResponseHandler | None = None,
        *,
        fallback: str | BaseStateBackend | Sequence[str | BaseStateBackend] = (),
        on_unreachable: OutagePolicy = "last-known",
        stale_after: float | None = None,
        close_websockets: float | None = None,
        close_streams: float | None = None,
        trusted_proxies: str | Sequence[str] = (),
        forwarded: ForwardedHeader = "x-forwarded-for",
        bypass: Bypass | None = None,
        on_change: ChangeHook | None = None,
        on_change_once: ChangeHook | None = None,
        response: ResponseOptions | None = None,
        announce: bool = False,
        exempt_docs: bool = True,
        unknown_routes: UnknownRoutes = "pass",
    ) -> None:
        self.app = app
        self.exempt_handler = exempt_handler
        self.response_handler = response_handler
        try:
            _check_handlers(exempt_handler=exempt_handler, response_handler=response_handler)
            _check_answer(response, response_handler)
            if unknown_routes not in get_args(UnknownRoutes):
                raise ConfigurationError(
                    f"unknown_routes must be one of {', '.join(get_args(UnknownRoutes))}, not {unknown_routes!r}."
                )
            # Declared here and there: type checkers accept `add_middleware(…, **options)` only for options that are written out.
            self.mode = MaintenanceMode(
                backend_or_default(backend),
                enable_maintenance=enable_maintenance,
                fallback=fallback,
                on_unreachable=on_unreachable,
                stale_after=stale_after,
                close_websockets=close_websockets,
                close_streams=close_streams,
                trusted_proxies=trusted_proxies,
                forwarded=forwarded,
                bypass=bypass,
                on_change=on_change,
                on_change_once=on_change_once,
                classifier=self._classify,
            )
        except ConfigurationError as error:
            # FastAPI builds its middlewares inside the lifespan, where servers take an exception for "no lifespan here".
            self.app = _refuse_to_start(error)
            self.mode = MaintenanceMode(EnvVarBackend(), enable_maintenance=False)
            response = None
        self._close_websockets = close_websockets is not None
        self._close_streams = close_streams is not None
        self._announce = announce
        self._wraps = self._close_websockets or self._close_streams or announce
        self._exempt_docs = exempt_docs
        self._refuse_unknown = unknown_routes == "refuse"
        self._gives_state = response_handler is not None and takes_state(response_handler)
        self._routes = RouteTable(self.app, self._follow_components)
        self._cross_origin = CORSPassthrough(self.app, MaintenanceModeMiddleware)
        self._options = response
        self._plain = MaintenanceResponse(ON, self.mode.now, response)
        self._responses: dict[str | None, tuple[MaintenanceState, MaintenanceResponse]] = {}
        self._fenced: dict[int | None, MaintenanceResponse] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it. Waits for nothing, except where no state was ever known."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        mode = self.mode
        # A copy, for routers write into the scope: `Mount` moves its root_path. What is in flight is classified as it came.
        request = InFlightRequest(mode, dict(scope))
        token = current_request.set(request)
        # First in, then look: whoever closes the gate after this look finds the request in flight.
        requests = mode.in_flight
        requests.add(request)
        gate = mode.gate
        try:
            routes = self._routes.scan(
                scope
            )  # first, for a new route may bring a new component to ask about
            if monotonic() >= gate.until:
                gate = await mode.refresh()
            request.gate = gate
            if routes.forced_on or not gate.is_open:
                request.route = routes.resolve(scope)
                await self._judge(request, gate, scope, receive, send)
            elif self._wraps:
                await self._serve(request, gate, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            requests.discard(request)
            now = mode.gate
            if now is not gate and now.version != gate.version and not now.is_open:
                mode.drain_progressed()  # it was let in before the closing, and may be the last
            current_request.reset(token)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch the backend from before the application starts until after it has shut down."""

        async def tell(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await (
                    self.mode.stop()
                )  # now, as servers end the event loop when they have heard this
            await send(message)

        try:
            running_loop()
        except ConfigurationError as error:
            await _refuse_to_start(error)(scope, receive, send)
        token = current_request.set(InFlightRequest(self.mode, scope))
        try:
            self._routes.scan(scope)  # which tells what components there are, for the first reading
            async with self.mode:
                await self.app(scope, receive, tell)
        finally:
            current_request.reset(token)

    async def _judge(
        self, request: InFlightRequest, gate: Gate, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Decide on a request, and answer or serve it. Refused, it is in no drain's way, also while a handler is asked."""
        mode, route = self.mode, request.route
        assert route is not None
        if (
            not gate.is_open
            and (welcome := mode.granted.bypass_redirect(scope, gate.closed_states())) is not None
        ):
            mode.in_flight.discard(request)
            await welcome(scope, receive, send)
            return
        if (
            route.component is not None and route.component not in mode.components
        ):  # of a route that was added meanwhile
            self._follow_components(frozenset({route.component}))
        # Rules and handlers see the path that the routes see. What is passed on stays as it came.
        outside = self._routes.application is not None
        seen = request.scope if outside and self._routes.localize(request.scope) else scope
        request.exempt = (route.docs and self._exempt_docs) or None
        decision = request.decide(gate, found=route.found or self._refuse_unknown)
        if decision.refused:
            request.refused_by = (
                choice(_FENCED_STATES) if decision.state is FENCED else decision.state
            )
            if self.exempt_handler is not None and decision.rule is not DecidedBy.FORCED_ON:
                replay = ReplayableReceive(receive)
                receive = replay.replay
                try:
                    request.exempt = await is_exempt(self.exempt_handler, seen, replay, send)
                except Exception as error:
                    await self._cross_origin.send(
                        partial(handle_error, error), scope, receive, send
                    )
                    return
            if not request.exempt or decision.rule is DecidedBy.FORCED_ON:
                mode.refused_total += 1
                await self._answer(request.refused_by, route.component, seen, receive, send)
                return
            request.refused_by = None
        elif (
            request.exempt is None and gate.for_component(route.component).closure is not None
        ):  # else nothing was asked yet
            request.exempt = False
            if decision.rule is DecidedBy.NO_ROUTE and request.blocks_drain(gate):
                send = self._noting_answers(request, gate, send)
        await self._serve(request, gate, scope, receive, send)

    async def _answer(
        self, state: MaintenanceState, of: str | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        answer: ASGIApp = self._respond(state, of)
        if self.response_handler is not None:
            answer = partial(
                answer_with, self.response_handler, state if self._gives_state else None, answer
            )
        await self._cross_origin.send(answer, scope, receive, send)

    async def _serve(
        self, request: InFlightRequest, gate: Gate, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "websocket":
            if self._close_websockets:
                websocket = ClosableWebSocket(receive, send)
                request.close = websocket.close
                receive, send = websocket.receive, websocket.send
            await self.app(scope, receive, send)
            return
        if self._announce:
            of = self._routes.resolve(scope).component if gate.components else None
            if (coming := gate.for_component(of).upcoming) is not None:
                send = _announcing(coming, scope, send)
        if not self._close_streams:
            await self.app(scope, receive, send)
            return
        stream = ClosableStream(receive, send)
        request.close = stream.close
        try:
            await self.app(scope, stream.receive, stream.send)
        except Exception as error:
            if not (stream.closed and _is_disconnect(error)):
                raise

    def _noting_answers(self, request: InFlightRequest, gate: Gate, send: Send) -> Send:
        """Note which path a middleware inside the application answers, though no route has it and routes are closed."""

        async def note(message: Message) -> None:
            if _is_answer(request.scope, message):
                await self._classify(request)  # which asks the exempt handler, too
                if request.blocks_drain(gate):
                    self.mode.note_unrouted(request.scope["path"])
            await send(message)

        return note

    async def _classify(self, request: InFlightRequest) -> None:
        """Find out about a request that was let in while the service was open what the precedence rules ask."""
        route = request.route = self._routes.resolve(request.scope)
        self._routes.localize(request.scope)
        exempt = route.docs and self._exempt_docs
        if not exempt and self.exempt_handler is not None:
            try:
                exempt = await is_exempt(
                    self.exempt_handler, request.scope, _nothing_more, _nowhere
                )
            except (
                Exception
            ):  # logged already; a request that cannot be classified blocks the drain
                exempt = False
        request.exempt = exempt

    def _follow_components(self, names: frozenset[str]) -> None:
        try:
            self.mode.follow_components(names)
        except ConfigurationError as error:
            self.app = _refuse_to_start(error)

    def _respond(self, state: MaintenanceState, of: str | None) -> MaintenanceResponse:
        """The answer for the state of a component or, if None, the general one, encoded when the state is first asked for."""
        if state is ON:  # as forced-on routes are, also while the switch says something else
            return self._plain
        if state.reason is FENCED.reason:
            if state.retry_after not in self._fenced:
                self._fenced[state.retry_after] = MaintenanceResponse(
                    state, self.mode.now, self._options
                )
            return self._fenced[state.retry_after]
        known, response = self._responses.get(of, (ON, self._plain))
        if known is not state:
            response = MaintenanceResponse(state, self.mode.now, self._options)
            self._responses[of] = state, response
        return response


def _is_disconnect(error: Exception) -> bool:
    """Return whether an application ended with this only because it saw a disconnect."""
    if isinstance(error, ExceptionGroup):
        return all(map(_is_disconnect, error.exceptions))
    return isinstance(error, OSError | ClientDisconnect)


def _is_answer(scope: Scope, message: Message) -> bool:
    """Return whether this begins a response of content: no error for a missing route, no redirect, no answer to a preflight."""
    if message["type"] != "http.response.start":
        return bool(message["type"] == "websocket.accept")
    status: int = message["status"]
    preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in dict(
        scope["headers"]
    )
    return not preflight and status not in _NO_ANSWERS and status // 100 != 3


def _announcing(coming: MaintenanceState, scope: Scope, send: Send) -> Send:
    headers = [announcement(coming)]
    if b"origin" in dict(scope["headers"]):
        headers.append(_COMING_READABLE)

    async def announce(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return announce


async def _nothing_more() -> Message:
    """A `receive` for a handler that asks too late: the application has the body."""
    raise RuntimeError("The request is being answered already; its body cannot be read any more.")


async def _nowhere(message: Message) -> None:
    raise RuntimeError("The request is being answered already.")


def _check_handlers(**handlers: object) -> None:
    for name, handler in handlers.items():
        if handler is not None and not callable(handler):
            raise ConfigurationError(f"{name} must be callable, not {handler!r}.")


def _check_answer(answer: object, response_handler: object) -> None:
    if answer is None:
        return
    if not isinstance(answer, ResponseOptions):
        raise ConfigurationError(f"response must be a ResponseOptions, not {answer!r}.")
    if response_handler is not None:
        raise ConfigurationError(
            "response_handler makes the whole answer, so response= would do nothing beside it: give one of them."
        )


def _refuse_to_start(error: ConfigurationError) -> ASGIApp:
    """What stands in for an application that is configured wrongly."""
    logger.critical(
        "MaintenanceModeMiddleware is configured wrongly: %s",
        error,
        extra=log_fields("misconfigured"),
    )

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise error
        await receive()
        await send(
            {"type": "lifespan.startup.failed", "message": f"MaintenanceModeMiddleware: {error}"}
        )
        raise error  # TestClient goes by that, and takes a lifespan that ends without for one that goes on

    return refuse
