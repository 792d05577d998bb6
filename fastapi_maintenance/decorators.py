"""Decorators that mark routes: always in maintenance, never, part of a component, reading or writing. Nothing is wrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import ismethod
from typing import Any, Final, NamedTuple, TypeVar

from fastapi import Depends

from .model.components import check_component
from .model.policy import Effect, Mark

__all__ = [
    "Marks",
    "all_marks",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "maintenance_component",
    "maintenance_mark",
    "maintenance_reads",
    "maintenance_writes",
    "mark_of",
]

Bearer = TypeVar("Bearer")


_ATTRIBUTE: Final = "__fastapi_maintenance_marks__"


_BOUND: Final = "__fastapi_maintenance_bound_marks__"
"""Marks of bound methods, on the object that they are bound to, by function."""


class Marks(NamedTuple):
    """The marks that apply to a route, including those inherited from routers and mounts."""

    mark: Mark | None = None
    component: str | None = None
    effect: Effect | None = None

    def over(self, outer: Marks) -> Marks:
        """Return these marks, and those of `outer` where there is none."""
        return Marks(
            self.mark or outer.mark, self.component or outer.component, self.effect or outer.effect
        )

    def extend(self, bearer: object, method: str | None = None) -> Marks:
        """Merge in the marks of a nested object; the innermost wins."""
        marks = Marks()
        for each in _bearers(bearer, method):
            marks = marks.over(_own(each))
        return marks.over(self)

    def among(self, dependencies: Iterable[Any]) -> Marks:
        """Merge in the marks that stand among `dependencies`; the last one wins."""
        marks = self
        for depends in dependencies:
            if isinstance(carrier := depends.dependency, _Carrier):
                marks = _own(carrier).over(marks)
        return marks


class _Carrier:
    """A dependency that does nothing but carry marks."""

    async def __call__(self) -> None: ...


def force_maintenance_mode_on(endpoint: Bearer) -> Bearer:
    """Answer this route with the maintenance response always, whatever the state.

    Works above or below the route decorator, on functions, methods and endpoint classes, and returns its argument. The mark sits on
    the function, so it counts for every route that the function answers; `maintenance_mark` marks one route. Called with a router, a
    mount, a route or an application, it marks everything inside that has no mark of its own.
    """
    return _mark(endpoint, Marks(mark="on"))


def force_maintenance_mode_off(endpoint: Bearer) -> Bearer:
    """Let this route through always, whatever the state.

    Works above or below the route decorator, on functions, methods and endpoint classes, and returns its argument. The mark sits on
    the function, so it counts for every route that the function answers; `maintenance_mark` marks one route. Called with a router, a
    mount, a route or an application, it marks everything inside that has no mark of its own.
    """
    return _mark(endpoint, Marks(mark="off"))


def maintenance_component(name: str) -> Callable[[Bearer], Bearer]:
    """Put a route, or all routes of a router or an application, into a component: `redis-cli SET maintenance:billing 1` closes it alone.

    A decorator for functions, methods and endpoint classes, above or below the route decorator; called with an `APIRouter`, a mount
    or an application that is mounted, it marks that: `maintenance_component("billing")(router)`. The innermost mark counts. A name
    is 1 to 64 letters, digits, `-`, `_` or `.`; raises `ConfigurationError` for another.
    """
    check_component(name)

    def mark(bearer: Bearer) -> Bearer:
        return _mark(bearer, Marks(component=name))

    return mark


def maintenance_writes(endpoint: Bearer) -> Bearer:
    """Refuse this route in read-only mode, whatever its method: for a GET that writes.

    Works on everything that `force_maintenance_mode_on` works on.
    """
    return _mark(endpoint, Marks(effect="writes"))


def maintenance_reads(endpoint: Bearer) -> Bearer:
    """Let this route through in read-only mode, whatever its method: for a POST that only reads, or a WebSocket that only sends.

    Works on everything that `force_maintenance_mode_on` works on.
    """
    return _mark(endpoint, Marks(effect="reads"))


def maintenance_mark(*decorators: Callable[[Any], Any]) -> Any:
    """Return a dependency that marks a route instead of its function: `dependencies=[maintenance_mark(force_maintenance_mode_off)]`.

    Takes any of the decorators of this module, and several at once. Give it to `@app.get(…)`, `APIRouter(…)`, `include_router(…)` or
    `FastAPI(…)`. A mark on the function goes before it.
    """
    carrier = _Carrier()
    for decorator in decorators:
        decorator(carrier)
    if _own(carrier) == Marks():
        raise TypeError(
            "maintenance_mark() must be given marks. Write maintenance_mark(force_maintenance_mode_off), for example."
        )
    return Depends(carrier)


def mark_of(endpoint: object, method: str | None = None) -> Mark | None:
    """Return the mark on an endpoint; if that is a class, the mark on its handler of the method goes first."""
    return Marks().extend(endpoint, method).mark


def all_marks(endpoint: object) -> Iterator[Marks]:
    """Yield all marks of an endpoint, also those that count for one method only."""
    yield from map(_own, _bearers(endpoint, None))
    endpoint = _unwrapped(endpoint)
    if isinstance(endpoint, type):
        for value in (value for base in endpoint.__mro__ for value in vars(base).values()):
            yield _own(value.__func__ if isinstance(value, staticmethod | classmethod) else value)


def _unwrapped(endpoint: object) -> object:
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    return endpoint


def _bearers(endpoint: object, method: str | None) -> Iterator[object]:
    """Yield every object that may bear marks of an endpoint, the most specific first.

    Marks of classes are not inherited: a mark on `Orders` says nothing about a subclass of it.
    """
    while isinstance(endpoint, partial):
        yield endpoint
        endpoint = endpoint.func
    if isinstance(endpoint, type):
        if method is not None:
            yield _handler(endpoint, method)
        yield endpoint
        return
    yield endpoint
    kind: Any = type(endpoint)
    yield endpoint.__func__ if ismethod(endpoint) else getattr(kind, "__call__", None)  # noqa: B004 - not to ask whether it is callable
    yield kind


def _handler(endpoint: type, method: str) -> object:
    handler = getattr(endpoint, method.lower(), None)
    if handler is None and method == "HEAD":  # Starlette's HTTPEndpoint answers HEAD with `get`
        return getattr(endpoint, "get", None)
    return handler


def _own(bearer: Any) -> Marks:
    """Return the marks of this one object."""
    try:
        bound = vars(bearer.__self__).get(_BOUND, {}) if ismethod(bearer) else None
        found = vars(bearer).get(_ATTRIBUTE) if bound is None else bound.get(bearer.__func__)
    except Exception:  # it has no attributes, or is a proxy that stands for nothing just now
        return Marks()
    return found if isinstance(found, Marks) else Marks()


def _mark(bearer: Bearer, marks: Marks) -> Bearer:
    target: Any = bearer.__func__ if isinstance(bearer, staticmethod | classmethod) else bearer
    marks = marks.over(_own(target))
    try:
        if ismethod(
            target
        ):  # it takes no attributes, and its function belongs to other objects too
            owner = target.__self__
            setattr(owner, _BOUND, {**vars(owner).get(_BOUND, {}), target.__func__: marks})
        else:
            setattr(target, _ATTRIBUTE, marks)
    except (AttributeError, TypeError):
        raise TypeError(
            f"{bearer!r} cannot be marked: decorate the function or class that answers the route."
        ) from None
    return bearer
