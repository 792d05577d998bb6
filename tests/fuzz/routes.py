"""Random route trees and requests: is the endpoint that is judged the endpoint that runs?"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_component,
    maintenance_mark,
    maintenance_reads,
    maintenance_writes,
)
from fastapi_maintenance.backends import EnvVarBackend
from fastapi_maintenance.decorators import Marks
from fastapi_maintenance.model.precedence import Closure, DecidedBy, decide
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.routing import RouteMatch, RouteTable
from fastapi_maintenance.routing.resolver import resolve
from fastapi_maintenance.runtime.gate import Gate, GateState

Decorator = Callable[[Any], Any]

DECORATORS: Final[dict[Marks, Decorator]] = {
    Marks(mark="on"): force_maintenance_mode_on,
    Marks(mark="off"): force_maintenance_mode_off,
    Marks(component="billing"): maintenance_component("billing"),
    Marks(component="search"): maintenance_component("search"),
    Marks(effect="reads"): maintenance_reads,
    Marks(effect="writes"): maintenance_writes,
}
SEGMENTS: Final = (
    *["a"] * 4,
    *["b", "{n}", "{n:path}"] * 3,
    *("B", "a.b", "{n:int}", "{n:float}", "x{n}", "a-{n}", "{n:uuid}", ""),
)
METHODS: Final = (
    *["GET"] * 10,
    *("HEAD", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "QUERY"),
    *("PURGE", "DISPATCH", "get", "", "WEBSOCKET"),
)
ENDINGS: Final = (
    *("",) * 20,
    *(
        "%0A",
        "%0A",
        "%0A",
        "%0A",
        "%0D",
        "%0A%0A",
        "%0D%0A",
        "%00",
        "/",
        "//",
        "/%0A",
        "%0A/",
        "%2F",
        "/.",
        "/..",
        ";",
        ";v=1",
        "%20",
    ),
    *("%C3%A9", "%FF", "/%2e%2e", "?", "%0Ax", "%C2%85", "%E2%80%A8", "/a", "9" * 700),
)
VALUES: Final = {
    "n": (
        "1",
        "a",
        "a",
        "b",
        "1.5",
        "a/b",
        "%0A",
        "a%0A",
        "%2F",
        "..",
        "6fa459ea-ee8a-3ca4-894e-db77e160355e",
        "9" * 5000,
    )
}
ROOTS: Final = (*[""] * 6, "/a", "/proxy", "/a/", "/a%")
HOSTS: Final = (b"testserver", b"b.example", b"X.example:80", b"", b"b.example:x", b"[::1]")


async def nothing() -> Message:
    return {"type": "http.disconnect"}


async def swallow(message: Message) -> None: ...


class Picky(APIRoute):
    """Matches nothing without a header."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if (b"x-pick", b"1") in scope["headers"] else (Match.NONE, {})


class PickyRouter(APIRouter):
    """Its routes match nothing without a header."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if (b"x-pick", b"1") in scope["headers"] else (Match.NONE, {})


class Lenient(Route):
    """Runs its endpoint for every method."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Layer:
    """A middleware that keeps what it wraps as `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Behind(Layer):
    """Stands behind a gate in place of an application, whose routes the gate finds in it."""

    passed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.passed = True


FULL, READ_ONLY = (
    Closure(DecidedBy.SWITCH, ON.replace(mode=mode)) for mode in ("full", "read-only")
)
GATES: Final = (
    Gate(FULL, FULL.state, "test", math.inf),
    Gate(READ_ONLY, READ_ONLY.state, "test", math.inf),
    Gate(None, OFF, "test", math.inf),
    Gate(None, OFF, "test", math.inf, components={"billing": GateState(FULL, FULL.state)}),
    Gate(FULL, FULL.state, "test", math.inf, components={"search": GateState(None, OFF)}),
)


class Probe(Layer):
    """Stands where the middleware would stand, and notes what is judged.

    It also asks a middleware whose gate changes, which must refuse what the rules refuse. It is
    asked twice, because it remembers refusals until routes are added or the gate is derived anew.
    """

    def __init__(self, app: ASGIApp, judged: list[RouteMatch]) -> None:
        super().__init__(app)
        self.table = RouteTable(app)
        self.judged = judged
        self.behind = Behind(app)
        self.middleware = MaintenanceModeMiddleware(self.behind, backend=EnvVarBackend("UNSET"))
        self.rng = Random(0)
        self.scan = self.table.current

    async def ask_gate(self, found: RouteMatch, scope: Scope) -> None:
        mode = self.middleware.mode
        if self.rng.random() < 0.1 or mode.gate.source != "test":
            mode.gate = self.rng.choice(GATES).after(mode.gate)
        if self.table.current is not self.scan:  # a poll, which notices any change
            self.scan = self.table.current
            mode.gate = replace(mode.gate)
        decision = decide(
            mark=found.mark,
            found=found.found,
            exempt=found.docs,
            closure=mode.gate.for_component(found.component).closure,
            method=scope.get("method"),
            effect=found.effect,
        )
        for _ in range(2):
            self.behind.passed = False
            await self.middleware(dict(scope), nothing, swallow)
            passed = "let through" if self.behind.passed else "refused"
            assert self.behind.passed != decision.refused, f"{found} was {passed} by {mode.gate}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        before = dict(scope)
        found = self.table.match(scope)
        with suppress(Exception):  # `match` takes that for found
            assert found == resolve(self.app, scope), "the lookup differs from asking every route"
        assert scope == before, "judging has changed the scope"
        await self.ask_gate(found, scope)
        self.judged.append(found)
        await self.app(scope, receive, send)


class Site:
    """An application drawn at random: `expected` has the marks of each endpoint, by its label."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.expected: dict[object, Marks] = {}
        self.ran: list[object] = []
        self.judged: list[RouteMatch] = []
        self.paths = ["/", "/docs"]
        self.routers: list[tuple[Router, Marks]] = []
        app = FastAPI(openapi_url="/openapi.json" if rng.random() < 0.2 else None)
        app.router.redirect_slashes = rng.random() < 0.7
        self.fill(app.router, self.of_application(app, Marks()), "", 0)
        if rng.random() < 0.3:
            app.root_path = rng.choice(("/a", "/api", "/a/"))
        if rng.random() < 0.5:
            self.app: ASGIApp = Probe(app, self.judged)
        else:
            app.add_middleware(Probe, judged=self.judged)
            self.app = app

    # -- marks ---

    def draw_marks(self) -> tuple[Marks, list[Decorator]]:
        """Return marks, mostly none, and the decorators that make them."""
        drawn = self.rng.sample([*DECORATORS], self.rng.choice((0, 0, 0, 1, 1, 2)))
        marks = Marks()
        for each in drawn:
            marks = each.over(marks)
        return marks, [DECORATORS[each] for each in drawn]

    def mark(self, bearer: Any, outer: Marks) -> Marks:
        """Mark an object. Returns the marks that apply inside."""
        marks, decorators = self.draw_marks()
        for decorate in decorators:
            decorate(bearer)
        return marks.over(outer)

    def dependencies(self, outer: Marks) -> tuple[list[Any], Marks]:
        marks, decorators = self.draw_marks()
        return [maintenance_mark(*decorators)] if decorators else [], marks.over(outer)

    # -- trees ---

    def fill(self, router: Router, outer: Marks, prefix: str, depth: int) -> None:
        self.routers.append((router, outer))
        for _ in range(self.rng.randint(0 if depth else 2, max(1, 5 - depth))):
            self.rng.choice([*[self.leaf] * 5, *([self.branch] * 4 if depth < 3 else [])])(
                router, outer, prefix, depth
            )
        if self.rng.random() < 0.5:  # for what an earlier route should have answered
            self.leaf(router, outer, prefix, depth, "/{rest:path}")
        if (
            isinstance(router, APIRouter)
            and hasattr(router, "frontend")
            and self.rng.random() < 0.2
        ):
            self.frontend(router, outer, prefix)

    def path(self, depth: int) -> str:
        drawn = [
            self.rng.choice(SEGMENTS).replace("{n", f"{{n{depth}{place}")
            for place in range(self.rng.choice((0, 1, 1, 2)))
        ]
        return "/" + "/".join(drawn)

    def leaf(self, router: Router, outer: Marks, prefix: str, depth: int, path: str = "") -> None:
        rng, path, label = self.rng, path or self.path(depth), len(self.expected)
        methods = [
            *(["GET"] if rng.random() < 0.8 else []),
            *rng.sample(["HEAD", "POST", "PUT", "BREW"], rng.choice((1, 1, 2))),
        ]
        self.paths.append(prefix + path)
        if isinstance(router, APIRouter):
            given, inner = self.dependencies(outer)
            kind = rng.choice(
                ("function", "method", "object", "partial", "picky", "websocket", "plain", "class")
            )
            if kind == "websocket":
                endpoint, self.expected[label] = self.endpoint("talk", label, inner)
                router.add_api_websocket_route(path, endpoint, dependencies=given)
                return
            if kind not in ("plain", "class"):
                endpoint, self.expected[label] = self.endpoint(kind, label, inner)
                picky: Any = Picky if kind == "picky" else None
                router.add_api_route(
                    path,
                    endpoint,
                    methods=methods,
                    dependencies=given,
                    response_model=None,
                    route_class_override=picky,
                )
                return
        kind = rng.choice(("function", "method", "class", "handler", "lenient", "app", "asgi"))
        if kind == "app":
            inner_app = Starlette()
            route = Route(path, inner_app)
            self.fill(
                inner_app.router, self.mark(inner_app, self.mark(route, outer)), prefix, depth + 2
            )
        elif kind == "lenient":
            endpoint, _ = self.endpoint("bare", label, outer)
            route = Lenient(path, endpoint, methods=methods)
            self.expected[label] = self.mark(endpoint, self.mark(route, outer))
        else:
            endpoint, own = self.endpoint(kind, label, Marks())
            route = Route(
                path, endpoint, methods=methods if kind in ("function", "method") else None
            )
            self.expected[label] = own.over(self.mark(route, outer))
        router.routes.append(route)

    def endpoint(self, kind: str, label: int, outer: Marks) -> tuple[Any, Marks]:
        """Return an endpoint that notes that it runs, and its marks."""
        ran = self.ran

        async def answer(request: Request) -> Response:
            ran.append(label)
            return PlainTextResponse("ran")

        async def talk(websocket: WebSocket) -> None:
            ran.append(label)
            await websocket.close()

        class Object:
            async def __call__(self, request: Request) -> Response:
                return await answer(request)

            async def method(self, request: Request) -> Response:
                return await answer(request)

        class Application:
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                ran.append(label)
                await PlainTextResponse("ran")(scope, receive, send)

        class Endpoint(HTTPEndpoint):
            async def get(self, request: Request) -> Response:
                return await answer(request)

            query = put = get

        made: dict[str, Any] = {
            "talk": talk,
            "object": Object(),
            "method": Object().method,
            "class": Endpoint,
            "handler": Endpoint,
        }
        made |= {"partial": partial(answer), "asgi": Application()}
        endpoint = made.get(kind, answer)
        if kind == "handler":
            class_marks = self.mark(Endpoint, outer)
            return endpoint, self.mark(Endpoint.get, class_marks)
        return endpoint, outer if kind == "bare" else self.mark(endpoint, outer)

    def frontend(self, router: APIRouter, outer: Marks, prefix: str) -> None:
        label, ran, path = len(self.expected), self.ran, self.rng.choice(("/", "/a", "/ui"))
        self.expected[label] = outer
        self.paths += [f"{prefix}{path}", f"{prefix}{path}/app.js"]

        class Files:
            async def get_response_for_scope(self, scope: Scope) -> Response:
                if scope["method"] in ("GET", "HEAD"):
                    ran.append(label)
                return PlainTextResponse("file", 200 if scope["method"] in ("GET", "HEAD") else 405)

        router.frontend(path, directory=os.curdir)
        group: Any = router._frontend_routes
        group.routes[-1].app = Files()

    def of_application(self, app: FastAPI, outer: Marks) -> Marks:
        """Mark an application in one of three ways, and with it its documentation."""
        given, marks = self.dependencies(outer)
        app.router.dependencies += given
        if not given:
            marks = self.mark(self.rng.choice((app, app.router)), outer)
        self.expected |= {route.endpoint: marks for route in app.routes if isinstance(route, Route)}
        return marks

    def branch(self, router: Router, outer: Marks, prefix: str, depth: int) -> None:
        rng = self.rng
        beneath = rng.choice(("", "", "", "/a", "/a", "/b", f"/{{y{depth}}}", "/A"))
        if isinstance(router, APIRouter) and rng.random() < 0.6:
            given, marks = self.dependencies(outer)
            own, inner = self.dependencies(marks)
            included = rng.choice((APIRouter, APIRouter, APIRouter, PickyRouter))(dependencies=own)
            if not own:
                inner = self.mark(included, marks)
            self.fill(included, inner, prefix + beneath, depth + 1)
            with suppress(Exception):  # FastAPI refuses an empty path
                router.include_router(included, prefix=beneath, dependencies=given)
                if rng.random() < 0.2 and not given:
                    router.include_router(included, prefix="/again" + beneath)
            return
        app: Any = rng.choice((FastAPI, Starlette, Router))()
        is_router = isinstance(app, Router)
        inside: Router = app if is_router else app.router
        route: BaseRoute
        if rng.random() < 0.2:
            route = Host(rng.choice(("b.example", "{sub}.example")), app)
        else:
            route = Mount(beneath, Layer(app) if rng.random() < 0.3 else app)
            prefix += beneath
        marks = self.mark(route, outer)
        marks = (
            self.of_application(app, marks) if isinstance(app, FastAPI) else self.mark(app, marks)
        )
        if isinstance(app, FastAPI) and rng.random() < 0.1:
            app.root_path = rng.choice(("/a", "/proxy", prefix))
        inside.redirect_slashes = rng.random() < 0.7
        if rng.random() < 0.1:
            label = len(self.expected)
            inside.default, self.expected[label] = self.endpoint("asgi", label, marks)
        self.fill(inside, marks, prefix, depth + 1)
        router.routes.append(route)

    def change(self) -> None:
        """Move, remove and replace routes behind everybody's back."""
        (router, marks), rng = self.rng.choice(self.routers), self.rng
        if not router.routes:
            return
        how = rng.choice(("reverse", "remove", "shuffle", "replace", "twice"))
        if how == "reverse":
            router.routes.reverse()
        elif how == "remove":
            router.routes.pop(rng.randrange(len(router.routes)))
        elif how == "shuffle":
            router.routes = rng.sample(router.routes, len(router.routes))
        elif how == "replace":
            label = len(self.expected)

            async def answer(request: Request) -> Response:
                self.ran.append(label)
                return PlainTextResponse("ran")

            self.expected[label] = marks
            router.routes[rng.randrange(len(router.routes))] = Route("/{rest:path}", answer)
        else:
            router.routes.append(router.routes[0])

    # -- requests ---

    def draw_request(self) -> Scope:
        rng = self.rng
        raw = rng.choice(self.paths)
        while "{" in raw:
            before, _, rest = raw.partition("{")
            raw = before + rng.choice(VALUES["n"]) + rest.partition("}")[2]
        raw += rng.choice(ENDINGS)
        if rng.random() < 0.1:
            raw = rng.choice(
                (
                    raw.upper(),
                    raw.replace("/", "//", 1),
                    raw.replace("/", "%2F"),
                    raw[1:],
                    "*",
                    "/..%2f" + raw,
                )
            )
        root_path = rng.choice(ROOTS)
        path = (root_path if rng.random() < 0.8 else "") + unquote(raw)
        headers = [
            (b"host", rng.choice(HOSTS)),
            *([(b"x-pick", b"1")] if rng.random() < 0.5 else []),
        ]
        method = rng.choice(METHODS)
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": raw.encode(),
            "query_string": b"",
        }
        if method == "WEBSOCKET":
            scope["type"] = "websocket"
            del scope["method"]
        scope.update(
            root_path=root_path, headers=headers, server=("testserver", 80), scheme="http", state={}
        )
        return scope

    async def ask(self, scope: Scope) -> str | None:
        """Send a request. Returns what differs, if anything does."""
        del self.ran[:], self.judged[:]
        asked = dict(scope)
        failed: Exception | None = None

        async def receive() -> Message:
            return (
                {"type": "websocket.connect"}
                if scope["type"] == "websocket"
                else {"type": "http.request", "body": b""}
            )

        async def send(message: Message) -> None: ...

        try:
            await self.app(scope, receive, send)
        except AssertionError as error:
            return f"{error}: {asked}"
        except Exception as error:
            failed = error
        (judged,) = self.judged
        ran = list(self.ran)
        endpoint = scope.get("endpoint")
        if not ran and judged.docs and endpoint in self.expected:
            ran = [endpoint]
        if not ran:
            return (
                f"{judged} was judged and nothing ran: {asked}"
                if judged.found and failed is None
                else None
            )
        marks = self.expected[ran[0]]
        right = RouteMatch(True, *marks, judged.docs and not isinstance(ran[0], int))
        return (
            None
            if judged == right
            else f"{judged} was judged and {ran[0]} ran, which is {right}: {asked}"
        )


async def _compare(seed: int, requests: int) -> list[str]:
    site = Site(Random(seed))
    differences: list[str] = []
    for number in range(requests):
        if number and number % 50 == 0:
            site.change()
        if (difference := await site.ask(site.draw_request())) is not None:
            differences.append(f"seed {seed}, request {number}: {difference}")
    return differences


def compare(seeds: range, *, requests: int) -> list[str]:
    """Return every difference between what is judged and what runs, for the tree of each seed."""
    with asyncio.Runner() as runner:
        return [difference for seed in seeds for difference in runner.run(_compare(seed, requests))]
