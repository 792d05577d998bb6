"""Decorators that mark routes. They set an attribute and wrap nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import ismethod
from typing import Any, Final, NamedTuple, TypeVar

from fastapi import Depends

from .model.components import check_component
from .model.precedence import Effect, Mark

Target = TypeVar("Target")

_ATTRIBUTE: Final = "__fastapi_maintenance_marks__"
# On an object, the marks of its bound methods.
_BOUND: Final = "__fastapi_maintenance_bound_marks__"


class Marks(NamedTuple):
    """The marks that apply to a route, including those inherited from routers and mounts."""

    mark: Mark | None = None
    component: str | None = None
    effect: Effect | None = None

    def over(self, outer: Marks) -> Marks:
        """Return these marks, completed by the outer ones."""
        return Marks(
            self.mark or outer.mark, self.component or outer.component, self.effect or outer.effect
        )

    def extend(self, target: object, method: str | None = None) -> Marks:
        """Merge in the marks of a nested object; the innermost wins."""
        marks = Marks()
        for each in _targets(target, method):
            marks = marks.over(_own(each))
        return marks.over(self)

    def among(self, dependencies: Iterable[Any]) -> Marks:
        """Merge in the marks among dependencies; the last one wins."""
        marks = self
        for depends in dependencies:
            if isinstance(depends.dependency, _Carrier):
                marks = _own(depends.dependency).over(marks)
        return marks


class _Carrier:
    """A dependency without effect, which carries marks."""

    async def __call__(self) -> None: ...


def force_maintenance_mode_on(endpoint: Target) -> Target:
    """Refuse every request for this route, whatever the state.

    Works above or below the route decorator, on functions, methods and endpoint classes, and
    returns its argument. The mark sits on the function and counts for every route that uses it. To
    mark one route, use `maintenance_mark`. Called with a router, mount, route or application, it
    marks everything inside that has no mark of its own.
    """
    return _mark(endpoint, Marks(mark="on"))


def force_maintenance_mode_off(endpoint: Target) -> Target:
    """Pass every request for this route, whatever the state.

    Works on the same objects as `force_maintenance_mode_on`, and in the same way.
    """
    return _mark(endpoint, Marks(mark="off"))


def maintenance_component(name: str) -> Callable[[Target], Target]:
    """Put a route, router or application into a component, which can be closed alone.

    `redis-cli SET maintenance:billing 1` closes the component `billing`. Decorate an endpoint,
    above or below the route decorator, or call it with a router, mount or application:
    `maintenance_component("billing")(router)`. The innermost mark counts. A name has 1 to 64
    letters, digits, `-`, `_` or `.`; others raise `ConfigurationError`.
    """
    check_component(name)
    return lambda target: _mark(target, Marks(component=name))


def maintenance_writes(endpoint: Target) -> Target:
    """Refuse this route in read-only mode, whatever its method. Use it for a GET that writes.

    Works on the same objects as `force_maintenance_mode_on`.
    """
    return _mark(endpoint, Marks(effect="writes"))


def maintenance_reads(endpoint: Target) -> Target:
    """Pass this route in read-only mode, whatever its method.

    Use it for a POST or a WebSocket that only reads. Works on the same objects as
    `force_maintenance_mode_on`.
    """
    return _mark(endpoint, Marks(effect="reads"))


def maintenance_mark(*decorators: Callable[[Any], Any]) -> Any:
    """Return a dependency that marks one route instead of its function.

    Takes the decorators of this module:
    `dependencies=[maintenance_mark(force_maintenance_mode_off)]`. Give it to `@app.get(…)`,
    `APIRouter(…)`, `include_router(…)` or `FastAPI(…)`. A mark on the function overrides it.
    """
    carrier = _Carrier()
    for decorator in decorators:
        decorator(carrier)
    if _own(carrier) == Marks():
        raise TypeError(
            "maintenance_mark() must be given decorators of this package."
            " Write maintenance_mark(force_maintenance_mode_off), for example."
        )
    return Depends(carrier)


def all_marks(endpoint: object) -> Iterator[Marks]:
    """Yield all marks of an endpoint, including those on the handlers of a class."""
    yield from map(_own, _targets(endpoint, None))
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if isinstance(endpoint, type):
        for value in (value for base in endpoint.__mro__ for value in vars(base).values()):
            yield _own(value.__func__ if isinstance(value, staticmethod | classmethod) else value)


def _targets(endpoint: object, method: str | None) -> Iterator[object]:
    """Yield every object whose marks count for an endpoint, the most specific first.

    A subclass does not inherit the mark of its base class.
    """
    while isinstance(endpoint, partial):
        yield endpoint
        endpoint = endpoint.func
    if isinstance(endpoint, type):
        if method is not None:
            yield _handler(endpoint, method)
    else:
        yield endpoint
        kind: Any = type(endpoint)
        yield endpoint.__func__ if ismethod(endpoint) else getattr(kind, "__call__", None)  # noqa: B004
    yield endpoint if isinstance(endpoint, type) else type(endpoint)


def _handler(endpoint: type, method: str) -> object:
    handler = getattr(endpoint, method.lower(), None)
    if handler is None and method == "HEAD":  # Starlette's HTTPEndpoint answers HEAD with `get`
        return getattr(endpoint, "get", None)
    return handler


def _own(target: Any) -> Marks:
    """Return the marks of this one object."""
    try:
        bound = vars(target.__self__).get(_BOUND, {}) if ismethod(target) else None
        found = vars(target).get(_ATTRIBUTE) if bound is None else bound.get(target.__func__)
    except Exception:  # without attributes, or a proxy outside of its context
        return Marks()
    return found if isinstance(found, Marks) else Marks()


def _mark(target: Target, marks: Marks) -> Target:
    marked: Any = target.__func__ if isinstance(target, staticmethod | classmethod) else target
    marks = marks.over(_own(marked))
    try:
        if ismethod(marked):  # it takes no attributes, and other objects share its function
            owner = marked.__self__
            setattr(owner, _BOUND, {**vars(owner).get(_BOUND, {}), marked.__func__: marks})
        else:
            setattr(marked, _ATTRIBUTE, marks)
    except (AttributeError, TypeError):
        raise TypeError(
            f"{target!r} cannot be marked. Decorate the function or class of the route."
        ) from None
    return target
