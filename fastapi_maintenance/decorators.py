"""Marks on endpoints: this route is always in maintenance, or never. Nothing is wrapped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, Literal, TypeVar

from fastapi import APIRouter

__all__ = ["Mark", "carries", "force_maintenance_mode_off", "force_maintenance_mode_on", "mark_of"]

Mark = Literal["on", "off"]
Endpoint = TypeVar("Endpoint")

_ATTRIBUTE: Final = "__fastapi_maintenance_mark__"


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


def mark_of(endpoint: object, method: str | None = None) -> Mark | None:
    """The mark on an endpoint; where the endpoint is a class, the one on its handler of that method goes first."""
    return next(filter(None, map(_read, _bearers(endpoint, method))), None)


def carries(endpoint: object, mark: Mark) -> bool:
    """Whether an endpoint bears a mark, be it for one method only."""
    bearers = [*_bearers(endpoint, None)]
    classes = [base for bearer in bearers if isinstance(bearer, type) for base in bearer.__mro__]
    values = [value for base in classes for value in vars(base).values()]
    bearers += [value.__func__ if isinstance(value, staticmethod | classmethod) else value for value in values]
    return any(_read(bearer) == mark for bearer in bearers)


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
    try:
        mark = getattr(bearer, _ATTRIBUTE, None)
    except Exception:  # a proxy that stands for nothing just now
        return None
    return mark if mark in ("on", "off") else None


def _mark(endpoint: Endpoint, mark: Mark) -> Endpoint:
    if isinstance(endpoint, APIRouter):  # `include_router` takes its routes one by one, so its own mark would be lost
        raise TypeError("An APIRouter cannot be marked: decorate its endpoints, or mount a marked FastAPI app instead.")
    target = getattr(endpoint, "__func__", endpoint)  # a bound method takes no attributes, its function does
    try:
        setattr(target, _ATTRIBUTE, mark)
    except (AttributeError, TypeError):
        raise TypeError(f"{endpoint!r} cannot be marked: decorate the function or class that answers the route.") from None
    return endpoint
