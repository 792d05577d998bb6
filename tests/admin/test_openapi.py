"""The API against its own OpenAPI document: generated calls are answered as declared."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.exemptions.bypass import Bypass

from ..support.serving import serving
from .conftest import ANY, Administer, shop, with_billing

EXAMPLES: Final = 20
# 501, 412 and others are declared and right.
UNJUDGED: Final = ["not_a_server_error", "positive_data_acceptance"]
OPERATIONS: Final = 12


@pytest.fixture
def app(url: str) -> FastAPI:
    """An application on a backend with details, with a component on Redis."""
    app = shop(backend_from_url(url), bypass=Bypass("0123456789abcdef0123456789abcdef"))
    return with_billing(app) if url.startswith("redis") else app


@pytest.mark.hypothesis
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(
    "ignore::hypothesis.errors.HypothesisDeprecationWarning"
)  # of Schemathesis
def test_generated_calls_are_answered_as_declared(app: FastAPI, url: str) -> None:
    schema: Any = schemathesis.openapi.from_dict(app.openapi()).include(path_regex="^/maintenance")
    operations = [
        result.ok() for result in schema.exclude(path_regex="events").get_all_operations()
    ]
    assert len(operations) == OPERATIONS
    with serving(app) as server, requests.Session() as session:
        succeeded = [200 in call_at_random(operation, server, session) for operation in operations]
    if url.startswith("redis"):
        assert succeeded.count(True) >= 6, "generated calls are seldom all refused"


def call_at_random(operation: Any, server: str, session: requests.Session) -> set[int]:
    """Make valid and invalid calls, check every response, and return the status codes."""
    codes = set()
    cases = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if list(operation.iter_parameters()) or operation.body:
        cases |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases, overwrites=st.booleans())
    def call(case: Any, overwrites: bool) -> None:
        if overwrites and "If-Match" in case.headers:
            case.headers["If-Match"] = "*"
        if case.path.endswith("/barrier") and isinstance(case.body, dict):
            timeout = case.body.setdefault("timeout", 0.05)
            if _is_valid(timeout):
                case.body["timeout"] = min(timeout, 0.05)  # no test waits for minutes
        answer = case.call(base_url=f"http://{server}", session=session)
        case.validate_response(answer, excluded_checks=CHECKS.get_by_names(UNJUDGED))
        assert answer.headers["cache-control"] == ["no-store"]
        codes.add(answer.status_code)

    call()
    return codes


def _is_valid(timeout: object) -> TypeGuard[float]:
    return isinstance(timeout, float | int) and 0 < timeout <= 300


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "switch", {"enabled": True, "message": "x" * 70_000}),
        ("DELETE", "switch?component=billing&end_holds=true", None),
    ],
)
def test_invalid_input_is_described_as_fastapi_does(
    administer: Administer, redis_url: str, method: str, path: str, body: object
) -> None:
    answer = administer(redis_url).request(method, path, json=body, headers=ANY)

    assert answer.status_code == 422
    assert [set(problem) >= {"type", "loc", "msg"} for problem in answer.json()["detail"]] == [True]
