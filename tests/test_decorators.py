"""The marks that the route decorators leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi import APIRouter, FastAPI
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Mount, Route, Router

from fastapi_maintenance.decorators import (
    Marks,
    all_marks,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_component,
    maintenance_mark,
)
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.model.precedence import Mark


def make_endpoint() -> Callable[[], Awaitable[None]]:
    async def endpoint() -> None: ...

    return endpoint


class Resource(HTTPEndpoint):
    """Only `get` is forced on, only `put` is forced off."""

    @force_maintenance_mode_on
    async def get(self, request: object) -> None: ...

    async def post(self, request: object) -> None: ...

    @force_maintenance_mode_off
    async def put(self, request: object) -> None: ...


def mark_of(endpoint: object, method: str | None = None) -> Mark | None:
    return Marks().extend(endpoint, method).mark


def carries(endpoint: object, mark: Mark) -> bool:
    return any(found.mark == mark for found in all_marks(endpoint))


class Slotted:
    __slots__ = ()

    def get(self) -> None: ...


def test_decorator_returns_its_argument() -> None:
    class Endpoint: ...

    for endpoint in (make_endpoint(), Endpoint, Endpoint(), partial(make_endpoint())):
        assert force_maintenance_mode_on(endpoint) is endpoint
        assert force_maintenance_mode_off(endpoint) is endpoint


def test_endpoint_without_decorator_has_no_mark() -> None:
    assert mark_of(make_endpoint()) is None
    assert mark_of(None) is None
    assert not carries(make_endpoint(), "on")


def test_decorator_sets_its_mark() -> None:
    assert mark_of(force_maintenance_mode_on(make_endpoint())) == "on"
    assert mark_of(force_maintenance_mode_off(make_endpoint())) == "off"


def test_outer_of_two_decorators_wins() -> None:
    assert mark_of(force_maintenance_mode_off(force_maintenance_mode_on(make_endpoint()))) == "off"


def test_mark_is_visible_through_a_partial() -> None:
    assert mark_of(partial(partial(force_maintenance_mode_on(make_endpoint())))) == "on"


def test_mark_of_a_partial_overrides_that_of_its_function() -> None:
    function = force_maintenance_mode_on(make_endpoint())

    assert mark_of(force_maintenance_mode_off(partial(function))) == "off"
    assert mark_of(function) == "on"


def test_mark_is_kept_by_functools_wraps() -> None:
    endpoint = force_maintenance_mode_on(make_endpoint())

    @wraps(endpoint)
    async def wrapper() -> None: ...

    assert mark_of(wrapper) == "on"


def test_mark_on_a_wrapper_does_not_reach_its_function() -> None:
    """The function within may answer another route."""
    endpoint = make_endpoint()

    @force_maintenance_mode_on
    @wraps(endpoint)
    async def wrapper() -> None: ...

    assert mark_of(wrapper) == "on"
    assert mark_of(endpoint) is None


class Service:
    async def get(self) -> None: ...

    async def put(self) -> None: ...

    @classmethod
    async def of_class(cls) -> None: ...


def test_bound_method_of_one_object_is_marked_alone() -> None:
    status, orders = Service(), Service()
    method = status.get

    assert force_maintenance_mode_off(method) is method
    assert [mark_of(each) for each in (status.get, orders.get, status.put, Service.get)] == [
        "off",
        None,
        None,
        None,
    ]
    force_maintenance_mode_on(status.put)
    force_maintenance_mode_on(status.get)
    assert (mark_of(status.get), mark_of(status.put), mark_of(partial(status.put))) == (
        "on",
        "on",
        "on",
    )
    assert carries(status.get, "on")


def test_bound_method_keeps_the_mark_of_its_function() -> None:
    class Marked:
        @force_maintenance_mode_on
        async def get(self) -> None: ...

    status, orders = Marked(), Marked()
    force_maintenance_mode_off(status.get)

    assert (mark_of(status.get), mark_of(orders.get)) == ("off", "on")


def test_bound_class_method_is_marked_for_its_class_alone() -> None:
    class Child(Service): ...

    force_maintenance_mode_off(Service.of_class)

    assert (mark_of(Service.of_class), mark_of(Child.of_class)) == ("off", None)


def test_subclass_of_a_marked_class_is_not_marked() -> None:
    @force_maintenance_mode_off
    class Base(HTTPEndpoint):
        async def __call__(self) -> None: ...

    class Child(Base): ...

    assert (mark_of(Base), mark_of(Child)) == ("off", None)
    assert not carries(Child, "off")
    instances: list[Any] = [object.__new__(Base), object.__new__(Child)]
    assert [mark_of(instance) for instance in instances] == ["off", None]


def test_maintenance_mark_without_a_mark_is_refused() -> None:
    for given in ((), (lambda endpoint: endpoint,), (maintenance_component,)):
        with pytest.raises((TypeError, ConfigurationError)):
            maintenance_mark(*given)


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_static_and_class_methods_are_marked_on_either_side(kind: Callable[..., Any]) -> None:
    class Service:
        outside = force_maintenance_mode_on(kind(lambda *_: None))
        inside = kind(force_maintenance_mode_on(lambda *_: None))

    assert mark_of(Service.outside) == mark_of(Service().outside) == "on"
    assert mark_of(Service.inside) == mark_of(Service().inside) == "on"


def test_callable_object_has_marks_of_itself_its_class_its_call() -> None:
    class Plain:
        async def __call__(self) -> None: ...

    class ByCall:
        @force_maintenance_mode_on
        async def __call__(self) -> None: ...

    @force_maintenance_mode_on
    class ByClass(Plain): ...

    marked = force_maintenance_mode_on(Plain())

    assert [mark_of(endpoint) for endpoint in (marked, ByCall(), ByClass(), Plain())] == [
        "on",
        "on",
        "on",
        None,
    ]
    assert mark_of(partial(ByCall())) == "on"


def test_endpoint_class_is_marked_method_by_method() -> None:
    assert [mark_of(Resource, method) for method in ("GET", "POST", "PUT", "DELETE")] == [
        "on",
        None,
        "off",
        None,
    ]
    assert mark_of(partial(Resource), "GET") == "on"
    assert mark_of(Resource) is None


def test_head_goes_to_get_unless_the_class_has_its_own() -> None:
    class WithHead(Resource):
        async def head(self, request: object) -> None: ...

    assert mark_of(Resource, "HEAD") == "on"
    assert mark_of(WithHead, "HEAD") is None


def test_mark_of_a_method_overrides_that_of_its_class() -> None:
    @force_maintenance_mode_off
    class Child(Resource): ...

    assert [mark_of(Child, method) for method in ("GET", "POST", "PUT", None)] == [
        "on",
        "off",
        "off",
        "off",
    ]


def test_inherited_handler_keeps_its_mark() -> None:
    class Child(Resource): ...

    assert (mark_of(Child, "GET"), mark_of(Child, "PUT")) == ("on", "off")
    assert mark_of(force_maintenance_mode_off(Child), "GET") == "on"


def test_unrelated_attribute_is_no_mark() -> None:
    assert mark_of(Mock()) is None


def test_all_marks_include_those_of_every_method() -> None:
    class Child(Resource): ...

    class Unmarked(HTTPEndpoint):
        async def get(self, request: object) -> None: ...

    for endpoint in (Resource, Child, partial(Child)):
        assert carries(endpoint, "on")
        assert carries(endpoint, "off")
    assert not carries(Unmarked, "on")


def test_all_marks_include_those_of_static_methods() -> None:
    class Endpoint:
        @force_maintenance_mode_on
        @staticmethod
        async def get() -> None: ...

    assert carries(Endpoint, "on")


def test_all_marks_run_no_descriptors() -> None:
    """A failing descriptor of a class must not fail every request."""

    class Failing:
        def __get__(self, instance: object, owner: type) -> None:
            raise RuntimeError("not now")

    class Endpoint:
        other = Failing()

    with pytest.raises(RuntimeError):
        _ = Endpoint.other
    assert not carries(Endpoint, "on")


def test_all_marks_skip_a_proxy_that_raises() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> None:
            raise RuntimeError("outside of a context")

    class Endpoint(Resource):
        current = Proxy()

    assert carries(Endpoint, "on")
    assert not carries(type("Other", (), {"current": Proxy()}), "on")


def test_all_marks_tell_on_from_off() -> None:
    assert carries(force_maintenance_mode_off(make_endpoint()), "off")
    assert not carries(force_maintenance_mode_off(make_endpoint()), "on")


@pytest.mark.parametrize("endpoint", [len, object(), Slotted(), Slotted().get, "text", int])
def test_object_that_takes_no_mark_is_refused(endpoint: object) -> None:
    with pytest.raises(TypeError, match="Decorate the function or class of the route"):
        force_maintenance_mode_on(endpoint)


def test_router_and_mount_and_route_can_be_marked() -> None:
    for bearer in (APIRouter(), Mount("/x", Router()), Route("/x", make_endpoint())):
        assert mark_of(force_maintenance_mode_on(bearer)) == "on"


def test_app_can_be_marked() -> None:
    assert mark_of(force_maintenance_mode_on(FastAPI())) == "on"
