"""Marks on endpoints: this route is always in maintenance, or never, or belongs to a scope. Nothing is wrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Literal, NamedTuple, TypeVar

from fastapi import APIRouter

from .scopes import check_scope

__all__ = [
    "Mark",
    "Marks",
    "carries",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "maintenance_scope",
    "mark_of",
    "scope_of",
    "scopes_on",
]

Mark = Literal["on", "off"]
Endpoint = TypeVar("Endpoint")

_ATTRIBUTE: Final = "__fastapi_maintenance_mark__"
_SCOPE: Final = "__fastapi_maintenance_scope__"


class Marks(NamedTuple):
    """What a route bears, itself or by what it is in."""

    mark: Mark | None = None
    scope: str | None = None

    def inside(self, bearer: object, method: str | None = None) -> Marks:
        """With what something further in bears, which goes first."""
        return Marks(mark_of(bearer, method) or self.mark, scope_of(bearer, method) or self.scope)


def force_maintenance_mode_on(endpoint: Endpoint) -> Endpoint:
    """Always answer this route with the maintenance response, whatever the state.

    Works above or below the route decorator, on functions, methods and endpoint classes, and returns what it was given.
    """
    return _mark(endpoint, "on")


def force_maintenance_mode_off(endpoint: Endpoint) -> Endpoint:
    """Always let this route through, whatever the state.

    Works above or below the route decorator, on functions, methods and endpoint classes, and returns what it was given.
    """
    return _mark(endpoint, "off")


def maintenance_scope(name: str) -> Callable[[Endpoint], Endpoint]:
    """Let a route, or all routes of a router or an application, be closed alone: `redis-cli SET maintenance:billing 1`.

    A decorator for functions, methods and endpoint classes, above or below the route decorator; called with an `APIRouter` or
    with an application that is mounted, it marks that: `maintenance_scope("billing")(router)`. The innermost mark counts. A name
    is 1 to 64 letters, digits, `-`, `_` or `.`; raises `ConfigurationError` for another.
    """
    check_scope(name)

    def mark(bearer: Endpoint) -> Endpoint:
        return _set(bearer, _SCOPE, name)

    return mark


def scope_of(endpoint: object, method: str | None = None) -> str | None:
    """The scope that an endpoint, a router or an application is marked with; found as `mark_of` finds a mark."""
    return next(filter(None, (_read_scope(bearer) for bearer in _bearers(endpoint, method))), None)


def scopes_on(endpoint: object) -> frozenset[str]:
    """All scopes that an endpoint bears, be it for one method only."""
    return frozenset(filter(None, map(_read_scope, _all_bearers(endpoint))))


def mark_of(endpoint: object, method: str | None = None) -> Mark | None:
    """The mark on an endpoint; where the endpoint is a class, the one on its handler of that method goes first."""
    return next(filter(None, map(_read, _bearers(endpoint, method))), None)


def carries(endpoint: object, mark: Mark) -> bool:
    """Whether an endpoint bears a mark, be it for one method only."""
    return any(_read(bearer) == mark for bearer in _all_bearers(endpoint))


def _all_bearers(endpoint: object) -> list[object]:
    bearers = [*_bearers(endpoint, None)]
    classes = [base for bearer in bearers if isinstance(bearer, type) for base in bearer.__mro__]
    values = [value for base in classes for value in vars(base).values()]
    return bearers + [value.__func__ if isinstance(value, staticmethod | classmethod) else value for value in values]


def _bearers(endpoint: object, method: str | None) -> Iterator[object]:
    """Everything that may bear the mark of an endpoint, the most specific first."""
    while isinstance(endpoint, partial):
        yield endpoint
        endpoint = endpoint.func
    if isinstance(endpoint, type):
        if method is not None:
            yield _handler(endpoint, method)
        yield endpoint
    else:
        yield endpoint
        yield getattr(type(endpoint), "__call__", None)  # noqa: B004 - not to ask whether it is callable


def _handler(endpoint: type, method: str) -> object:
    handler = getattr(endpoint, method.lower(), None)
    if handler is None and method == "HEAD":  # Starlette's HTTPEndpoint answers HEAD with `get`
        return getattr(endpoint, "get", None)
    return handler


def _read(bearer: object) -> Mark | None:
    mark = _get(bearer, _ATTRIBUTE)
    return mark if mark in ("on", "off") else None


def _read_scope(bearer: object) -> str | None:
    scope = _get(bearer, _SCOPE)
    return scope if isinstance(scope, str) else None


def _get(bearer: object, attribute: str) -> Any:
    try:
        return getattr(bearer, attribute, None)
    except Exception:  # a proxy that stands for nothing just now
        return None


def _mark(endpoint: Endpoint, mark: Mark) -> Endpoint:
    if isinstance(endpoint, APIRouter):  # `include_router` takes its routes one by one, so its own mark would be lost
        raise TypeError("An APIRouter cannot be marked: decorate its endpoints, or mount a marked FastAPI app instead.")
    return _set(endpoint, _ATTRIBUTE, mark)


def _set(endpoint: Endpoint, attribute: str, value: str) -> Endpoint:
    target = getattr(endpoint, "__func__", endpoint)  # a bound method takes no attributes, its function does
    try:
        setattr(target, attribute, value)
    except (AttributeError, TypeError):
        raise TypeError(f"{endpoint!r} cannot be marked: decorate the function or class that answers the route.") from None
    return endpoint
