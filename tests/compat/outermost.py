"""A pytest plugin that adds a middleware outermost to every application that a test suite builds.

Load it with `-p outermost` and this directory in PYTHONPATH. `--outermost` names the middleware:
`bare` none, `open` ours, `judged` a probe that lets every request through and compares two facts:
whether a closed gate would have refused it, and whether an endpoint was reached.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi import routing as fastapi_routing
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(eq=False)
class Judgement:
    """One request in one application: what the closed gate said, and what the application did."""

    scope: Scope
    outer: Judgement | None
    routed: bool = False  # it reached the application's router with the path that the gate saw
    delegated: bool = False  # to a mounted application, whose router it has yet to reach
    reached: bool = False  # an endpoint
    documentation: bool = False  # that endpoint serves the OpenAPI schema or a page for it
    refused: bool = True
    error: str = ""  # of the gate

    def reach(self, *, documentation: bool = False) -> None:
        """Note that an endpoint was reached, in the applications around this one too."""
        judgement: Judgement | None = self
        while judgement is not None:
            judgement.reached, judgement.documentation = True, documentation
            judgement = judgement.outer

    def __str__(self) -> str:
        said = self.error or ("refused" if self.refused else "let through")
        did = "" if self.reached else "not "
        what = (
            f"{self.scope.get('method', 'websocket')} {self.scope['root_path']!r} "
            f"{self.scope['path']!r}"
        )
        return f"{what} was {said}, and an endpoint was {did}reached"


_current: ContextVar[Judgement | None] = ContextVar("compat_judgement", default=None)


class Judge:
    """The probe: asks a closed gate about each request, and then lets the application answer it."""

    recorder: Recorder
    middleware: Callable[..., ASGIApp]

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._gate = self.middleware(_LetThrough(app), enable_maintenance=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        # Some tests make scopes by hand, and leave out what every server sends.
        judgement = Judgement({"headers": [], "root_path": "", **scope}, _current.get())
        token = _current.set(judgement)
        try:
            try:
                await self._gate(dict(judgement.scope), _nothing_to_receive, _discard)
            except Exception as error:
                judgement.error = f"answered by {error!r}"
            await self.app(scope, receive, send)
        finally:
            _current.reset(token)
            if judgement.outer is not None and judgement.outer.delegated:
                judgement.outer.routed = judgement.routed
            self.recorder.judge(judgement)


class _LetThrough:
    """Stands behind the gate in place of the application, whose routes the gate finds in it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        judgement = _current.get()
        assert judgement is not None
        judgement.refused = False


async def _nothing_to_receive() -> Message:
    raise AssertionError("The gate read from the client.")


async def _discard(message: Message) -> None: ...


# -- what reaches an endpoint ----------------------------------------------------------------------


def _patch(owner: type, name: str, note: Callable[[Any, Scope, Judgement], None]) -> None:
    """Call `note` before a method of a router or a route that takes a request."""
    original = getattr(owner, name)

    async def patched(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if (judgement := _current.get()) is not None and scope["type"] != "lifespan":
            note(self, scope, judgement)
        await original(self, scope, receive, send)

    setattr(owner, name, patched)


def _note_router(router: Router, scope: Scope, judgement: Judgement) -> None:
    seen = judgement.scope
    judgement.routed |= all(seen.get(name) == scope.get(name) for name in ("path", "method"))


def _watch_custom_route(route: type[BaseRoute]) -> None:
    """Note what reaches a route of a class of the suite's own."""
    if "handle" in vars(route) and not issubclass(route, Route | WebSocketRoute | Mount | Host):
        _patch(route, "handle", lambda route, scope, judgement: judgement.reach())


def _note_route(route: Any, scope: Scope, judgement: Judgement) -> None:
    included = fastapi_routing._get_scope_effective_route_context(scope)
    mine = included if included is not None and included.original_route is route else route
    endpoint = route.endpoint
    if mine.methods and scope["method"] not in mine.methods:
        return
    if isclass(endpoint) and issubclass(endpoint, HTTPEndpoint):
        method = scope["method"].lower()
        if not hasattr(endpoint, method) and not (method == "head" and hasattr(endpoint, "get")):
            return
    name = getattr(endpoint, "__qualname__", "")
    judgement.reach(documentation=name.startswith("FastAPI.setup.<locals>."))


def _note_mount(mount: Mount | Host, scope: Scope, judgement: Judgement) -> None:
    app: object = getattr(mount, "_base_app", mount.app)
    while app is not None and not isinstance(app, Router | Starlette):
        app = getattr(app, "app", None)
    if app is None:
        judgement.reach()
    elif isinstance(app, Starlette):
        judgement.delegated, judgement.routed = True, False


def _note_frontend(group: Any, scope: Scope, judgement: Judgement) -> None:
    if scope["method"] in ("GET", "HEAD"):
        judgement.reach()


def _note_websocket(route: WebSocketRoute, scope: Scope, judgement: Judgement) -> None:
    judgement.reach()


def _watch_routing() -> None:
    _patch(Router, "__call__", _note_router)
    _patch(Route, "handle", _note_route)
    _patch(fastapi_routing.APIRoute, "handle", _note_route)
    _patch(WebSocketRoute, "handle", _note_websocket)
    _patch(Mount, "handle", _note_mount)
    _patch(Host, "handle", _note_mount)
    _patch(fastapi_routing._FrontendRouteGroup, "handle", _note_frontend)
    BaseRoute.__init_subclass__ = classmethod(_watch_custom_route)  # type: ignore[assignment]


def _add_outermost(middleware: Callable[[ASGIApp], ASGIApp]) -> None:
    """Build every application as if `add_middleware(middleware)` had been called last."""
    for owner in (Starlette, FastAPI):
        original = owner.build_middleware_stack

        def build(app: Starlette, original: Callable[[Any], ASGIApp] = original) -> ASGIApp:
            app.user_middleware.insert(0, Middleware(middleware))
            try:
                return original(app)
            finally:
                del app.user_middleware[0]

        owner.build_middleware_stack = build  # type: ignore[assignment, method-assign]


# -- pytest ----------------------------------------------------------------------------------------


class Recorder:
    """Writes down the outcome of every test and every difference that a `Judge` finds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, str] = {}
        self._compared = self._not_routed = 0
        self._differences: list[str] = []

    def judge(self, judgement: Judgement) -> None:
        """Compare what the gate said with what the application did."""
        if not judgement.routed:  # a middleware of the application answered it, or changed the path
            self._not_routed += 1
            return
        self._compared += 1
        right = judgement.reached and not judgement.documentation
        if judgement.error or judgement.refused != right:
            test = os.environ.get("PYTEST_CURRENT_TEST", "between tests").removesuffix(" (call)")
            self._differences.append(f"{test}: {judgement}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(
            json.dumps(
                {
                    "outcomes": self._outcomes,
                    "compared": self._compared,
                    "not_routed": self._not_routed,
                    "differences": self._differences,
                }
            )
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add this plugin's options."""
    parser.addoption("--outermost", choices=["bare", "open", "judged"], required=True)
    parser.addoption("--outermost-results", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Patch the frameworks before the suite builds its first application."""
    mode = config.getoption("--outermost")
    recorder = Judge.recorder = Recorder(config.getoption("--outermost-results"))
    config.pluginmanager.register(recorder)
    if mode == "bare":
        return
    if mode == "judged":
        _watch_routing()  # before our package looks at the methods that this replaces
    from fastapi_maintenance import MaintenanceModeMiddleware

    Judge.middleware = MaintenanceModeMiddleware
    _add_outermost(MaintenanceModeMiddleware if mode == "open" else Judge)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what runs under trio, which the middleware refuses."""
    under_trio = [item for item in items if any(_names_trio(item))]
    config.hook.pytest_deselected(items=under_trio)
    items[:] = [item for item in items if item not in under_trio]


def _names_trio(item: pytest.Item) -> Iterator[bool]:
    callspec = getattr(item, "callspec", None)
    for value in callspec.params.values() if callspec is not None else ():
        yield (value[:1] if isinstance(value, tuple) else (value,)) == ("trio",)
