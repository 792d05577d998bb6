"""The ASGI middleware for HTTP, WebSockets and lifespan."""

from __future__ import annotations

import logging
from dataclasses import KW_ONLY, dataclass
from functools import partial
from random import choice
from time import monotonic
from typing import Final, Literal, NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._internal.logging import log_fields
from .._internal.validation import require, require_choice
from ..backends import BaseStateBackend, EnvVarBackend
from ..backends.default import backend_or_default
from ..exceptions import ConfigurationError
from ..exemptions.rules import ExemptHandler
from ..model.precedence import DecidedBy
from ..model.state import ON, MaintenanceState
from ..responses.negotiation import preferences
from ..responses.options import ResponseOptions
from ..responses.response import MaintenanceResponse, ResponseHandler, announcement
from ..routing import RouteTable
from ..runtime.gate import FENCED, Gate
from ..runtime.mode import MaintenanceMode
from ..runtime.options import MaintenanceOptions
from ..runtime.requests import InFlightRequest, reset_current_request, set_current_request
from ..runtime.watches import running_loop
from .cors import CORSPassthrough
from .handlers import ReplayableReceive, answer_with, handle_error, is_exempt, takes_state
from .refusals import KnownRefusals
from .websocket import ClosableStream, ClosableWebSocket

logger = logging.getLogger("fastapi_maintenance")

UnknownRoutes = Literal["pass", "refuse"]

_UPCOMING_READABLE: Final = (b"access-control-expose-headers", b"x-maintenance-coming")
_FENCED_STATES: Final = tuple(
    FENCED.model_copy(update={"retry_after": seconds}) for seconds in range(2, 6)
)
_REFUSALS: Final = (401, 403, 404, 405)  # status codes that do not answer an unknown route


@dataclass(eq=False, repr=False, match_args=False)
class MaintenanceModeMiddleware(MaintenanceOptions):
    """Answers 503 while maintenance is on. Pure ASGI, for HTTP, WebSockets and lifespan.

    Add it by `app.add_middleware(MaintenanceModeMiddleware, backend="redis://localhost")`.
    With invalid options the application refuses to start.

    `enable_maintenance` overrides the switch, but no hold. `backend` is a backend or its URL. By
    default it is the URL in `FASTAPI_MAINTENANCE_BACKEND`, else the backend of `configure_backend`,
    else the variable `FASTAPI_MAINTENANCE_MODE`. `exempt_handler` returns whether a request passes,
    `response_handler` makes the response; both may be sync or async. `response` has the options of
    the standard response.

    `announce` announces an upcoming window in the header `X-Maintenance-Coming`. `exempt_docs`
    exempts the documentation pages and the OpenAPI document. `unknown_routes="refuse"` also closes
    requests without a route, which a middleware inside the application may answer.

    The options from `fallback` to `on_change_once` are those of `MaintenanceOptions`.
    """

    app: ASGIApp
    enable_maintenance: bool | None = None
    backend: str | BaseStateBackend | None = None
    exempt_handler: ExemptHandler | None = None
    response_handler: ResponseHandler | None = None
    _: KW_ONLY
    response: ResponseOptions | None = None
    announce: bool = False
    exempt_docs: bool = True
    unknown_routes: UnknownRoutes = "pass"

    def __post_init__(self) -> None:
        exempt_handler, response_handler = self.exempt_handler, self.response_handler
        try:
            for name in ("exempt_handler", "response_handler"):
                handler = getattr(self, name)
                require(handler is None or callable(handler), f"{name} must be callable", handler)
            _check_response(self.response, response_handler)
            require_choice("unknown_routes", self.unknown_routes, UnknownRoutes)
            self.mode = MaintenanceMode(
                backend_or_default(self.backend),
                enable_maintenance=self.enable_maintenance,
                classifier=self._classify,
                **self.mode_options(),
            )
        except ConfigurationError as error:
            # FastAPI builds its middlewares inside the lifespan. Servers would take an exception
            # for an application without a lifespan.
            self.app = _refuse_to_start(error)
            self.mode = MaintenanceMode(EnvVarBackend(), enable_maintenance=False)
            self.response = None
        self._enter_and_leave = self.mode.requests.add, self.mode.requests.discard
        closes = self.close_websockets is not None or self.close_streams is not None
        self._wraps = closes or self.announce
        self._gives_state = response_handler is not None and takes_state(response_handler)
        self._routes = RouteTable(self.app, self._follow_components)
        self._cors = CORSPassthrough(self.app, MaintenanceModeMiddleware)
        self._known = KnownRefusals(self._routes)
        others = exempt_handler, response_handler, self.bypass
        self._decides_alone = all(other is None for other in others)  # one may be false
        self._plain = MaintenanceResponse(ON, self.mode.now, self.response)
        self._responses: dict[object, tuple[MaintenanceState, MaintenanceResponse]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request. It waits for I/O only before the first state is known."""
        if "path" not in scope:
            await self._run_lifespan(scope, receive, send)
            return
        mode = self.mode
        gate = mode.gate
        if not gate.is_open and (response := self._known.find(gate, scope)) is not None:
            mode.refused_total += 1
            preferred = preferences(scope)
            if preferred[2]:  # an Origin
                await self._cors.wrap(response, scope)(scope, receive, send)
                return
            start, body = response.messages(scope, preferred)
            await send(start)
            await send(body)
            return
        request = InFlightRequest()
        request.owner = mode
        request.scope = {**scope}
        request.token = token = set_current_request(request)
        enter, leave = self._enter_and_leave
        enter(request)  # before the gate is read: a closing after that finds the request
        gate = mode.gate
        catch_up = False
        try:
            # Before a refresh, as a new route may add a component.
            scan = self._routes.current
            routes = scan.router.routes
            if (
                len(routes) != scan.size
                or routes[-1] is not scan.last
                or (scan.nested and sum(map(len, scan.nested)) != scan.nested_size)
            ):
                scan = self._routes.scan(scope)
            if monotonic() >= gate.until:
                catch_up = mode.has_stood_still()
                gate = await mode.refresh()
            request.gate = gate
            if scan.forced_on or not gate.is_open:
                request.route = self._routes.match(scope, scan)
                await self._decide(request, gate, scope, receive, send)
            elif self._wraps:
                await self._serve(request, gate, scope, receive, send)
            else:
                app = self.app
                await app(scope, receive, send)
        finally:
            leave(request)
            if (now := mode.gate) is not gate and now.version != gate.version and not now.is_open:
                mode.drain_progressed()  # it was admitted before the closing, and may be the last
            reset_current_request(token)
            request.token = None  # it keeps the previous request of a pipeline in memory
        if catch_up:
            await mode.catch_up()  # after the response

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch the backend from before the startup until after the shutdown."""

        async def stop_at_shutdown(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.mode.stop()  # servers end the event loop after this message
            await send(message)

        try:
            running_loop()
        except ConfigurationError as error:
            await _refuse_to_start(error)(scope, receive, send)
        token = set_current_request(InFlightRequest.of(self.mode, scope))
        try:
            self._routes.scan(scope)  # finds the components for the first read
            async with self.mode:
                await self.app(scope, receive, stop_at_shutdown)
        finally:
            reset_current_request(token)

    async def _decide(
        self, request: InFlightRequest, gate: Gate, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve or refuse a request behind a closed gate, or in an app with forced-on routes.

        From its refusal on it blocks no drain, also while the exempt handler is asked.
        """
        mode, route = self.mode, request.route
        assert route is not None
        if mode.granted.bypass is not None and not gate.is_open:
            redirect = mode.granted.bypass_redirect(scope, gate.closed_states())
            if redirect is not None:
                mode.requests.discard(request)
                await redirect(scope, receive, send)
                return
        if route.component is not None and route.component not in mode.components:
            self._follow_components(frozenset({route.component}))  # of a mark put on since
        # Rules and handlers see the path as the routes do. The application gets it as it came.
        outside = self._routes.application is not None
        seen = request.scope if outside and self._routes.set_root_path(request.scope) else scope
        request.exempt = (route.docs and self.exempt_docs) or None
        decision = request.decide(gate, found=route.found or self.unknown_routes == "refuse")
        if decision.refused:
            fenced = decision.state is FENCED
            request.refused_by = choice(_FENCED_STATES) if fenced else decision.state
            if self.exempt_handler is not None and decision.rule is not DecidedBy.FORCED_ON:
                replayable = ReplayableReceive(receive)
                receive = replayable.replay
                try:
                    request.exempt = await is_exempt(self.exempt_handler, seen, replayable, send)
                except Exception as error:
                    await self._send(partial(handle_error, error), scope, receive, send)
                    return
            if not request.exempt or decision.rule is DecidedBy.FORCED_ON:
                alone = self._decides_alone and not fenced and not decision.state.allow
                if alone and seen is scope:
                    known = self._response_for(decision.state, route.component)
                    self._known.add(gate, scope, known)
                await self._refuse(request, seen, receive, send)
                return
            request.refused_by = None
        elif decision.rule is DecidedBy.NO_ROUTE and request.blocks_drain(gate):
            send = self._noting_answers(request, gate, send)
        await self._serve(request, gate, scope, receive, send)

    async def _refuse(
        self, request: InFlightRequest, scope: Scope, receive: Receive, send: Send
    ) -> None:
        state = request.refused_by
        assert state is not None
        self.mode.refused_total += 1
        response: ASGIApp = self._response_for(state, request.component)
        if (handler := self.response_handler) is not None:
            given = state if self._gives_state else None
            response = partial(answer_with, handler, given, response)
        await self._send(response, scope, receive, send)

    async def _send(self, response: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"origin" in dict(scope["headers"]):
            response = self._cors.wrap(response, scope)
        await response(scope, receive, send)

    def _response_for(self, state: MaintenanceState, component: str | None) -> MaintenanceResponse:
        """Return the response for a state, encoded once for each state of a component."""
        if state is ON:  # forced-on routes and enable_maintenance ignore the switch's details
            return self._plain
        key = state.retry_after if state.reason is FENCED.reason else component
        known, response = self._responses.get(key, (ON, self._plain))
        if known is not state:
            response = MaintenanceResponse(state, self.mode.now, self.response)
            self._responses[key] = state, response
        return response

    async def _serve(
        self, request: InFlightRequest, gate: Gate, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "websocket":
            if self.close_websockets is not None:
                websocket = ClosableWebSocket(receive, send)
                request.close = websocket.close
                receive, send = websocket.receive, websocket.send
            await self.app(scope, receive, send)
            return
        if self.announce:
            component = self._routes.match(scope).component if gate.components else None
            if (upcoming := gate.for_component(component).upcoming) is not None:
                send = _announcing(upcoming, scope, send)
        if self.close_streams is not None:
            stream = ClosableStream(receive, send)
            request.close = stream.close
            await stream.run(self.app, scope)
        else:
            await self.app(scope, receive, send)

    def _noting_answers(self, request: InFlightRequest, gate: Gate, send: Send) -> Send:
        """Wrap `send` to notice that a middleware answers a request without a route."""

        async def note(message: Message) -> None:
            if _is_answer(request.scope, message):
                await self._classify(request)  # asks the exempt handler
                if request.blocks_drain(gate):
                    self.mode.note_unrouted(request.scope["path"])
            await send(message)

        return note

    async def _classify(self, request: InFlightRequest) -> None:
        """Find the route of a request that was admitted while open, and whether it is exempt."""
        route = request.route = self._routes.match(request.scope)
        self._routes.set_root_path(request.scope)
        exempt = route.docs and self.exempt_docs
        if not exempt and self.exempt_handler is not None:
            try:
                exempt = await is_exempt(self.exempt_handler, request.scope, _answered, _answered)
            except Exception:  # logged already
                exempt = False
        request.exempt = exempt

    def _follow_components(self, names: frozenset[str]) -> None:
        try:
            self.mode.follow_components(names)
        except ConfigurationError as error:
            self.app = _refuse_to_start(error)


def _is_answer(scope: Scope, message: Message) -> bool:
    """Return whether a message begins a real answer: no refusal, redirect or preflight."""
    if message["type"] != "http.response.start":
        return bool(message["type"] == "websocket.accept")
    if scope["method"] == "OPTIONS" and b"access-control-request-method" in dict(scope["headers"]):
        return False
    status: int = message["status"]
    return status not in _REFUSALS and status // 100 != 3


def _announcing(upcoming: MaintenanceState, scope: Scope, send: Send) -> Send:
    headers = [announcement(upcoming)]
    if b"origin" in dict(scope["headers"]):
        headers.append(_UPCOMING_READABLE)

    async def announce(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return announce


async def _answered(*message: Message) -> NoReturn:
    """Refuse body and response to an exempt handler that is asked while the application runs."""
    what = " already" if message else "; its body cannot be read again"
    raise RuntimeError(f"The application is answering this request{what}.")


def _check_response(response: object, response_handler: object) -> None:
    if response is None:
        return
    require(isinstance(response, ResponseOptions), "response must be a ResponseOptions", response)
    if response_handler is not None:
        raise ConfigurationError(
            "response must be None beside a response_handler, got both. The handler makes the "
            "whole response: give one of them."
        )


def _refuse_to_start(error: ConfigurationError) -> ASGIApp:
    """Return an application that fails its startup and every request with this error."""
    logger.critical(
        "MaintenanceModeMiddleware has an invalid configuration: %s",
        error,
        extra=log_fields("misconfigured"),
    )

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            text = f"MaintenanceModeMiddleware: {error}"
            await send({"type": "lifespan.startup.failed", "message": text})
        raise error  # in a lifespan too: TestClient goes on after one that just ends

    return refuse
