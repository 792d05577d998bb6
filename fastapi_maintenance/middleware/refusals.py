"""Refusals that are decided once for all requests to the same path."""

from __future__ import annotations

from time import monotonic
from typing import Final

from starlette.types import Scope

from ..responses import MaintenanceResponse
from ..routing import RouteTable
from ..runtime.gate import Gate

_MAX_PATHS: Final = 1024  # of up to 640 characters, as longer ones are not looked up
_METHODS: Final = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")  # HEAD has no body


class KnownRefusals:
    """The responses to the requests that were refused behind one gate, by method and path.

    Routes and gate alone have decided on these, by type, method, path, root path and application.
    They are kept until routes are added or a poll derives the gate anew. Only refusals are kept,
    so no request passes by what is out of date.
    """

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._gate: Gate | None = None
        self._scan = routes.current
        self._app = self._root_path = None
        self._known: dict[str, dict[object, MaintenanceResponse]] = {}

    def find(self, gate: Gate, scope: Scope) -> MaintenanceResponse | None:
        """Return the response to a request, if it is known."""
        scan = self._scan
        routes = scan.router.routes
        if (
            gate is not self._gate
            or monotonic() >= gate.until
            or len(routes) != scan.size
            or routes[-1] is not scan.last
            or (scan.nested and sum(map(len, scan.nested)) != scan.nested_size)
            or scope.get("app") is not self._app
            or scope.get("root_path") != self._root_path
        ):
            return None
        known = self._known.get(scope["path"])
        return None if known is None else known.get(scope.get("method"))

    def add(self, gate: Gate, scope: Scope, response: MaintenanceResponse) -> None:
        """Keep the response to a request, if it will be the same for the next one like it."""
        scan, app, root_path = self._routes.current, scope.get("app"), scope.get("root_path")
        if scope.get("method") not in _METHODS or scan.size < 0 or scan.look_up(scope) is None:
            return
        same = gate is self._gate and scan is self._scan and app is self._app
        if not same or root_path != self._root_path or len(self._known) >= _MAX_PATHS:
            self._gate, self._scan, self._app, self._root_path = gate, scan, app, root_path
            self._known = {}
        self._known.setdefault(scope["path"], {})[scope["method"]] = response
