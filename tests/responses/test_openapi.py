"""What OpenAPI says of the response during maintenance, against what is sent."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

import jsonschema
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, MaintenanceState, maintenance_responses
from fastapi_maintenance.model.state import ON
from fastapi_maintenance.responses.renderers import JSON, MEDIA_TYPES, PROBLEM

from .asking import NOW, accepting, ask, response_to


@pytest.fixture
def schema() -> dict[str, Any]:
    """The document of an application with operations of every kind."""
    app = FastAPI(responses=maintenance_responses)
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    router = APIRouter(prefix="/orders")

    @app.get("/")
    async def index() -> str:
        return "open"

    @router.post("/{number}", responses={404: {"description": "No such order"}})
    async def order(number: int) -> dict[str, int]:
        return {"number": number}

    app.include_router(router)
    return dict(TestClient(app).get("/openapi.json").json())


def test_openapi_every_operation_documents_the_503(schema: dict[str, Any]) -> None:
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert len(operations) == 2
    for operation in operations:
        documented = operation["responses"]["503"]
        assert set(documented["content"]) == set(MEDIA_TYPES)
        assert set(documented["headers"]) == {"Retry-After", "X-Maintenance-Mode"}
    assert set(schema["paths"]["/orders/{number}"]["post"]["responses"]) == {
        "200",
        "404",
        "422",
        "503",
    }


def test_openapi_documents_of_two_applications_are_equal(schema: dict[str, Any]) -> None:
    before = json.dumps(maintenance_responses[503])
    app = FastAPI(responses=maintenance_responses)
    app.add_api_route("/", lambda: "open")
    assert (
        app.openapi()["paths"]["/"]["get"]["responses"]["503"]
        == schema["paths"]["/"]["get"]["responses"]["503"]
    )
    assert json.dumps(maintenance_responses[503]) == before


STATES: Final = {
    "plain": ON,
    "details": MaintenanceState(
        enabled=True, message="Back soon", ends_at=NOW + timedelta(seconds=90)
    ),
    "read-only": MaintenanceState(enabled=True, mode="read-only", retry_after=5),
}


@pytest.mark.parametrize("media_type", [JSON, PROBLEM])
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("as_date", [False, True])
async def test_openapi_describes_what_is_sent(
    schema: dict[str, Any], media_type: str, state: MaintenanceState, as_date: bool
) -> None:
    documented = schema["paths"]["/"]["get"]["responses"]["503"]
    start, headers, body = await ask(
        response_to(state, retry_after_as_date=as_date), accepting(media_type)
    )
    assert (start["status"], headers["content-type"]) == (503, media_type)
    described = documented["content"][media_type]["schema"]
    content = json.loads(body)
    jsonschema.validate(content, described)
    assert set(content) <= set(described["properties"])
    for name, header in documented["headers"].items():
        jsonschema.validate(headers[name], header["schema"])
