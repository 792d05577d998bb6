"""Refusals that are decided once for all requests to the same path."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from starlette.types import Scope

from ..responses.response import MaintenanceResponse
from ..routing import RouteScan, RouteTable
from ..runtime.gate import Gate

_MAX_PATHS: Final = 1024  # of up to 640 characters, as longer ones are not looked up
_METHODS: Final = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")  # HEAD has no body


@dataclass(frozen=True, slots=True, eq=False)
class _Refusals:
    """The responses by path and method, and what they were decided by."""

    gate: Gate | None
    scan: RouteScan
    app: object = None
    root_path: str | None = None
    responses: dict[str, dict[object, MaintenanceResponse]] = field(default_factory=dict)


class KnownRefusals:
    """The responses to the requests that were refused behind one gate, by method and path.

    Routes and gate alone have decided on these, by type, method, path, root path and application.
    They are kept until a poll derives the gate anew, or another request finds that routes were
    added. Only refusals are kept, so no request passes by what is out of date. They are replaced
    as a whole, because the event loops of an application share them.
    """

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._known = _Refusals(None, routes.current)

    def find(self, gate: Gate, scope: Scope) -> MaintenanceResponse | None:
        """Return the response to a request, if it is known."""
        known = self._known
        if (
            gate is not known.gate
            or monotonic() >= gate.until
            or self._routes.current is not known.scan
            or scope.get("app") is not known.app
            or scope.get("root_path") != known.root_path
        ):
            return None
        responses = known.responses.get(scope["path"])
        return None if responses is None else responses.get(scope.get("method"))

    def add(self, gate: Gate, scope: Scope, response: MaintenanceResponse) -> None:
        """Keep the response to a request, if it will be the same for the next one like it."""
        scan, app, root_path = self._routes.current, scope.get("app"), scope.get("root_path")
        if scope.get("method") not in _METHODS or scan.size < 0 or scan.look_up(scope) is None:
            return
        known = self._known
        same = gate is known.gate and scan is known.scan and app is known.app
        if not same or root_path != known.root_path or len(known.responses) >= _MAX_PATHS:
            known = self._known = _Refusals(gate, scan, app, root_path)
        known.responses.setdefault(scope["path"], {})[scope["method"]] = response
