"""The router: guarded, reachable in every state, and fully described."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_on
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.admin.security import require_guard
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.testing import override

from ..support.doubles import Switchboard
from .conftest import JSON, Administer, shop


def key(x_key: Annotated[str, Header()] = "") -> None:
    if x_key != "letmein":
        raise HTTPException(401)


# -- guarded ---------------------------------------------------------------------------------------


def test_public_router_with_dependencies_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave out one or the other"):
        maintenance_admin(dependencies=[Depends(key)], public=True)


def directly(app: FastAPI, **options: Any) -> None:
    app.include_router(maintenance_admin(), **options)


def nested(app: FastAPI, **options: Any) -> None:
    around = APIRouter(prefix="/v1")
    around.include_router(maintenance_admin(), **options)
    app.include_router(around)


def beneath_a_guarded_router(app: FastAPI, **options: Any) -> None:
    around = APIRouter(prefix="/v1", **options)
    around.include_router(maintenance_admin())
    app.include_router(around)


def beneath_a_guarded_inclusion(app: FastAPI, **options: Any) -> None:
    around = APIRouter(prefix="/v1")
    around.include_router(maintenance_admin())
    app.include_router(around, **options)


INCLUSIONS = (directly, nested, beneath_a_guarded_router, beneath_a_guarded_inclusion)


def panels_of(app: FastAPI) -> list[str]:
    """The GET paths of every inclusion."""
    return [
        f"{path}maintenance/{name}"
        for path in ("/", "/v1/")
        for name in ("", "state", "switch", "holds", "workers")
    ]


@pytest.mark.parametrize("include", INCLUSIONS)
def test_guard_of_an_inclusion_guards_the_router(include: Callable[..., None]) -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    include(app, dependencies=[Depends(key)])
    with TestClient(app) as client:
        codes = {client.get(path).status_code for path in panels_of(app)}
        opened = {
            client.get(path, headers={"X-Key": "letmein"}).status_code for path in panels_of(app)
        }

    assert codes == {401, 404}
    assert opened == {200, 404, 501}, "501: this backend has no workers"


@pytest.mark.parametrize("include", INCLUSIONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"dependencies": [Depends(key)]}],
    ids=["bare", "guard of the whole application"],
)
def test_unguarded_router_prevents_the_start(
    include: Callable[..., None], options: dict[str, Any]
) -> None:
    """Dependencies of a whole application are seldom logins, but database sessions and the like."""
    app = FastAPI(**options)
    app.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    include(app)

    with (
        pytest.raises(ConfigurationError, match=r"has no guard.*include_router\(.*public=True"),
        TestClient(app),
    ):
        pass


@pytest.mark.parametrize("include", INCLUSIONS)
def test_unguarded_router_is_never_served(include: Callable[..., None]) -> None:
    """No lifespan runs here, as in a mounted application."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    include(app)
    client = TestClient(app)
    answers = [client.get(path) for path in panels_of(app)]

    assert {answer.status_code for answer in answers} == {403, 404}
    assert {"has no guard" in answer.text for answer in answers if answer.status_code == 403} == {
        True
    }


def test_unguarded_router_mounted_directly_is_never_served() -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    app.mount("/bare", maintenance_admin())
    app.mount("/guarded", maintenance_admin(dependencies=[Depends(key)]))
    client = TestClient(app, headers={"X-Key": "letmein"})

    assert client.get("/bare/maintenance/state").status_code == 403
    assert client.get("/guarded/maintenance/state").status_code == 200


async def test_unguarded_router_without_an_app_is_refused() -> None:
    with pytest.raises(HTTPException, match="has no guard"):
        await require_guard(Request({"type": "http"}))


def test_router_with_one_unguarded_inclusion_is_served_nowhere() -> None:
    app, router = FastAPI(), maintenance_admin()
    app.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    app.include_router(router, prefix="/v1", dependencies=[Depends(key)])
    app.include_router(router, prefix="/v2")
    client = TestClient(app, headers={"X-Key": "letmein"})

    assert [
        client.get(f"/{version}/maintenance/state").status_code for version in ("v1", "v2")
    ] == [403, 403]


def test_guard_shared_with_the_application_guards_the_router() -> None:
    guard = Depends(key)
    app = FastAPI(dependencies=[guard])
    app.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    app.include_router(maintenance_admin(), dependencies=[guard])
    with TestClient(app, headers={"X-Key": "letmein"}) as client:
        assert client.get("/maintenance/state").status_code == 200


def test_operator_alone_is_no_guard() -> None:
    app = FastAPI()
    app.include_router(maintenance_admin(operator=lambda: "ana"))
    with pytest.raises(ConfigurationError, match="has no guard"), TestClient(app):
        pass


@pytest.mark.parametrize(
    "guard", [key, Depends(), None, "key"], ids=["bare", "empty", "none", "text"]
)
def test_invalid_guard_is_refused(guard: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a list of Depends"):
        maintenance_admin(dependencies=[guard])


def test_guard_protects_every_operation_and_the_panel() -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    app.include_router(maintenance_admin(dependencies=[Depends(key)]))
    client = TestClient(app, headers=JSON)
    operations = [
        (method, path) for path, methods in app.openapi()["paths"].items() for method in methods
    ]

    assert len(operations) >= 11
    for method, path in [*operations, ("get", "/maintenance/")]:
        content = '{"enabled": true}' if method in ("put", "post") else None
        assert client.request(method, path, content=content).status_code == 401, (method, path)
    assert client.get("/maintenance/state", headers={"X-Key": "letmein"}).status_code == 200


@pytest.mark.parametrize(
    "options", [{"prefix": "ops"}, {"prefix": "/ops/"}, {"operator": "ana"}], ids=str
)
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))} must"):
        maintenance_admin(public=True, **options)


# -- always reachable ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"enable_maintenance": True}], ids=["switch", "override"])
def test_router_is_reachable_while_closed(options: dict[str, Any]) -> None:
    app = shop(Switchboard(True), **options)
    with TestClient(app) as client:
        assert client.get("/").status_code == 503
        assert [
            client.get(f"/maintenance/{path}").status_code for path in ("", "state", "switch")
        ] == [200, 200, 200]


def test_router_is_reachable_in_inclusions_and_mounts() -> None:
    inner, outer, marked = FastAPI(), FastAPI(), FastAPI()
    inner.include_router(maintenance_admin(public=True, prefix="/panel"), prefix="/ops")
    around = APIRouter(prefix="/v1")
    around.include_router(maintenance_admin(public=True))
    marked.include_router(maintenance_admin(public=True))
    outer.include_router(around)
    outer.mount("/team", inner)
    outer.mount("/old", force_maintenance_mode_on(marked))
    outer.add_middleware(MaintenanceModeMiddleware, backend=Switchboard(True))
    client = TestClient(outer, headers=JSON)

    for path in ("/team/ops/panel/", "/v1/maintenance/", "/old/maintenance/"):
        assert client.get(path).status_code == 200
        assert client.get(f"{path}state").json()["enabled"] is True


# -- for the application at hand -------------------------------------------------------------------


def test_router_in_nested_applications_sets_the_innermost() -> None:
    boards = Switchboard(), Switchboard(True)
    outer = shop(boards[0])
    outer.mount("/inner", shop(boards[1]))
    client = TestClient(outer, headers=JSON)

    assert client.get("/maintenance/state").json()["enabled"] is False
    assert client.get("/inner/maintenance/state").json()["enabled"] is True
    assert client.delete("/inner/maintenance/switch", headers={"If-Match": "*"}).status_code == 200
    assert [board.value for board in boards] == [False, False]


def test_router_without_a_middleware_is_501() -> None:
    app = FastAPI()
    app.include_router(maintenance_admin(public=True))
    answer = TestClient(app).get("/maintenance/state")

    assert (
        answer.status_code,
        "has passed no MaintenanceModeMiddleware" in answer.json()["detail"],
    ) == (501, True)


def test_router_under_a_test_override_sets_the_switch() -> None:
    board = Switchboard(True)
    app = shop(board)
    with override(app, False):
        client = TestClient(app, headers=JSON)
        assert client.get("/maintenance/state").json()["enabled"] is True
        assert client.delete("/maintenance/switch", headers={"If-Match": "*"}).status_code == 200
    assert board.value is False


# -- described -------------------------------------------------------------------------------------


def test_openapi_document_describes_every_operation() -> None:
    document = shop(Switchboard()).openapi()
    operations = {
        (method, path.removeprefix("/maintenance")): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path != "/"
    }
    assert {
        ("get", "/state"),
        ("get", "/switch"),
        ("put", "/switch"),
        ("delete", "/switch"),
        ("get", "/holds"),
        ("get", "/workers"),
        ("post", "/barrier"),
        ("get", "/history"),
        ("get", "/components"),
        ("get", "/bypasses"),
        ("post", "/bypasses"),
        ("delete", "/bypasses/{id}"),
        ("get", "/events"),
    } <= set(operations)
    for where, operation in operations.items():
        assert operation["description"], where
        assert {"501", "502", "504"} <= set(operation["responses"]), where
        success = next(
            answer for code, answer in operation["responses"].items() if code.startswith("2")
        )
        schemas = [
            content.get("schema") or content.get("itemSchema")
            for content in success.get("content", {}).values()
        ]
        assert all(schemas), where
        assert schemas or where == ("delete", "/bypasses/{id}"), where
        if where[0] != "get":
            assert "403" in operation["responses"], where
            assert ("415" in operation["responses"]) == ("requestBody" in operation), where
    for where in (("put", "/switch"), ("delete", "/switch")):
        assert {"412", "428"} <= set(operations[where]["responses"])
        assert ("If-Match", True) in {
            (one["name"], one["required"]) for one in operations[where]["parameters"]
        }


def test_package_import_leaves_admin_out() -> None:
    code = (
        "import sys, fastapi_maintenance; "
        "print(any(name.startswith('fastapi_maintenance.admin') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


# -- what goes wrong -------------------------------------------------------------------------------


def test_failing_backend_is_502(administer: Administer) -> None:
    board = Switchboard()
    client = administer(board)
    board.error = RuntimeError("on fire")
    answer = client.get("state")

    assert (answer.status_code, answer.json()) == (
        502,
        {"detail": "Switchboard failed: RuntimeError: on fire"},
    )


def test_unreachable_redis_is_504_without_a_password(
    administer: Administer, free_port: int
) -> None:
    answer = administer(f"redis://ana:hunter2@127.0.0.1:{free_port}?timeout=0.5").get("state")

    assert (answer.status_code, "cannot be reached" in answer.text, "hunter2" in answer.text) == (
        504,
        True,
        False,
    )
