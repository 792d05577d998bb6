"""Refusals that are remembered, and what must not be answered from memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    ResponseOptions,
    force_maintenance_mode_off,
    maintenance_component,
)
from fastapi_maintenance.exemptions import Path
from fastapi_maintenance.middleware.refusals import KnownRefusals
from fastapi_maintenance.model.precedence import Closure, DecidedBy
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.responses.response import MaintenanceResponse
from fastapi_maintenance.routing import RouteTable
from fastapi_maintenance.runtime.gate import Gate, GateState

from ..support.asgi import at, exchange
from ..support.doubles import Switchboard


def endpoint() -> Any:
    """One that nobody has marked."""

    async def answer(request: HTTPConnection) -> Response:
        return PlainTextResponse("here")

    return answer


def closed_by(state: MaintenanceState = ON, **components: GateState) -> Gate:
    """A gate that lasts."""
    closure = Closure(DecidedBy.SWITCH, state) if state.enabled else None
    return Gate(closure, state, "test", math.inf, components=components)


class Service:
    """A middleware, the state of which a test sets, and how many routes it has looked for."""

    def __init__(self, app: FastAPI, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.middleware = MaintenanceModeMiddleware(app, backend=Switchboard(), **options)
        self.mode = self.middleware.mode
        self.set(closed_by())
        self.matches = 0
        match = RouteTable.match

        def count(table: RouteTable, *args: Any) -> Any:
            self.matches += 1
            return match(table, *args)

        monkeypatch.setattr(RouteTable, "match", count)

    def set(self, gate: Gate) -> None:
        self.mode.gate = gate.after(self.mode.gate)

    async def ask(self, path: str = "/items", method: str = "GET", **more: Any) -> int:
        start, *_ = await exchange(self.middleware, at(path, method, **more))
        return int(start["status"])


Make = Callable[..., Service]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(*paths: str, **options: Any) -> Service:
        app = FastAPI(openapi_url=None)
        for path in paths or ("/items", "/items/{item}"):
            app.router.routes.append(Route(path, endpoint(), methods=["GET", "POST"]))
        return Service(app, monkeypatch, **options)

    return make


async def test_known_refusal_looks_for_no_route(service: Make) -> None:
    site = service()
    assert [await site.ask() for _ in range(3)] == [503] * 3
    assert site.matches == 1
    assert site.mode.refused_total == 3
    assert not site.mode.requests
    assert await site.ask(method="POST") == 503
    assert site.matches == 2


async def test_known_refusal_ends_with_its_gate(service: Make) -> None:
    site = service()
    await site.ask()
    site.set(closed_by(OFF))
    assert await site.ask() == 200
    site.set(closed_by(ON.replace(mode="read-only")))
    assert [await site.ask(), await site.ask(method="POST")] == [200, 503]
    site.mode.gate = replace(site.mode.gate, until=-math.inf)  # the backend says off
    assert await site.ask(method="POST") == 200


async def test_known_refusal_ends_with_the_next_poll(service: Make) -> None:
    site = service()
    await site.ask()
    site.mode.gate = replace(site.mode.gate)
    matches = site.matches
    assert await site.ask() == 503
    assert site.matches == matches + 1


async def test_known_refusal_ends_with_an_added_route(service: Make) -> None:
    """As soon as a request looks at the routes that is no known refusal, or at the next poll."""
    site = service("/{rest:path}")
    await site.ask()
    app: Any = site.middleware.app
    app.router.routes.insert(0, Route("/items", force_maintenance_mode_off(endpoint())))
    assert await site.ask() == 503
    assert await site.ask("/others") == 503
    assert await site.ask() == 200


async def test_known_refusal_ends_with_an_included_route(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, app = APIRouter(), FastAPI(openapi_url=None)
    app.include_router(inner, prefix="/in")
    app.router.routes.append(Route("/{rest:path}", endpoint()))
    site = Service(app, monkeypatch)
    await site.ask("/in/items")

    @inner.get("/items")
    @force_maintenance_mode_off
    async def items() -> None: ...

    assert await site.ask("/in/others") == 503
    assert await site.ask("/in/items") == 200


async def test_known_refusal_is_of_one_component(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI(openapi_url=None)
    app.router.routes += [
        Route("/bills", maintenance_component("billing")(endpoint())),
        Route("/items", endpoint()),
    ]
    site = Service(app, monkeypatch)
    closure = Closure(DecidedBy.SWITCH, ON)
    site.set(closed_by(OFF, billing=GateState(closure, ON)))
    assert [await site.ask(path) for path in ("/bills", "/items") * 2] == [503, 200] * 2


async def test_known_refusal_is_of_one_root_path(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI(openapi_url=None)
    app.router.routes += [
        Route("/items", endpoint()),
        Mount("/v1", routes=[Route("/items", force_maintenance_mode_off(endpoint()))]),
    ]
    site = Service(app, monkeypatch)
    asked = [await site.ask("/v1/items", root_path=root) for root in ("/v1", "", "/v1", "")]
    assert asked == [503, 200, 503, 200]


async def test_known_refusal_is_of_one_application(service: Make) -> None:
    """The marks of the application around count."""
    site, free = service(), force_maintenance_mode_off(FastAPI())
    assert [await site.ask(app=app) for app in (FastAPI(), free)] == [503, 200]


class EmptyRules(list[Any]):
    """A handler that is false, as an empty list is."""

    def __call__(self, connection: HTTPConnection) -> bool:
        return False


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"exempt_handler": EmptyRules()}, ON),
        ({"exempt_handler": lambda connection: b"x-pass" in dict(connection.scope["headers"])}, ON),
        ({"exempt_handler": Path("/other")}, ON),
        ({}, ON.replace(allow=("10.0.0.0/8",))),
        ({"response_handler": lambda request: PlainTextResponse("closed", 503)}, ON),
    ],
    ids=["false handler", "exempt handler", "rule", "allow list", "response handler"],
)
async def test_refusal_by_the_request_is_not_kept(
    service: Make, options: Any, state: MaintenanceState
) -> None:
    site = service(**options)
    site.set(closed_by(state))
    assert [await site.ask() for _ in range(2)] == [503, 503]
    assert site.matches == 2


async def test_known_refusals_are_bounded_for_any_client(service: Make) -> None:
    site = service("/items/{item}", "/any/{rest:path}")
    any_method: Any = site.middleware.app
    any_method.router.routes[1].methods = None
    for number in range(3000):
        await site.ask(f"/items/{number}")
        await site.ask("/any/x", f"M{number}")
        await site.ask(f"/unknown/{number}")
    await site.ask(f"/items/{'x' * 5000}")
    known = site.middleware._known._known.responses
    assert 0 < len(known) <= 1024
    assert all(len(path) <= 640 and len(methods) <= 6 for path, methods in known.items())


async def test_known_refusal_is_readable_across_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI(openapi_url=None)
    app.router.routes.append(Route("/items", endpoint()))
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    site = Service(app, monkeypatch)
    headers = {"origin": "https://shop.example"}
    first, *_ = await exchange(site.middleware, at("/items", headers=headers))
    again, *_ = await exchange(site.middleware, at("/items", headers=headers))
    assert site.matches == 1
    assert again == first
    assert (b"access-control-allow-origin", b"https://shop.example") in again["headers"]


async def test_head_after_get_has_no_body(service: Make) -> None:
    site = service()
    get = await exchange(site.middleware, at("/items"))
    assert await exchange(site.middleware, at("/items")) == get
    head = await exchange(site.middleware, at("/items", "HEAD"))
    assert head == [get[0], {**get[1], "body": b""}]


async def test_known_refusals_share_no_message(service: Make) -> None:
    """Outer middlewares write into the messages."""
    site = service(response=ResponseOptions(headers={"x-team": "shop"}))
    for _ in range(3):
        start, body = await exchange(site.middleware, at("/items"))
        assert (b"x-team", b"shop") in start["headers"]
        start["headers"].clear()
        body.clear()


@contextmanager
def at_each_line(function: Any, meanwhile: Callable[[int], object]) -> Iterator[None]:
    """Call something with a number before each line of a function, as another thread may."""
    before, numbers = sys.gettrace(), count()

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code is not function.__code__:
            return None
        meanwhile(next(numbers))
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


async def test_known_refusal_is_of_one_gate_in_each_thread() -> None:
    """The event loops of an application share what is known."""
    app = FastAPI(openapi_url=None)
    app.router.routes.append(Route("/items", endpoint()))
    table, get, post = RouteTable(app), at("/items"), at("/items", "POST")
    table.scan(get)
    old, new = closed_by(), closed_by(ON.replace(mode="read-only"))
    response = MaintenanceResponse(ON)

    def kept() -> KnownRefusals:
        known = KnownRefusals(table)
        known.add(old, get, response)
        return known

    known, seen = kept(), list[object]()
    with at_each_line(KnownRefusals.add, lambda number: seen.append(known.find(new, get))):
        known.add(new, post, response)
    assert len(seen) >= 5
    assert not any(seen), "no GET was refused behind the new gate"

    for wanted in range(len(seen)):
        known = kept()

        def change(number: int, known: KnownRefusals = known, wanted: int = wanted) -> None:
            if number == wanted:
                known.add(new, post, response)

        with at_each_line(KnownRefusals.add, change):
            known.add(old, get, response)
        assert known.find(new, get) is None
