"""Whatever an operator's client sends, and whatever lies where the switch is kept, the router
answers with no error of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, MaintenanceState
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.exceptions import InvalidStateError

from .attempt import attempt
from .effort import effort
from .garbage import SWITCHES

TAGS: Final = st.one_of(
    st.just("*"),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=50),
    st.just('W/"a", "b'),
)
PATHS: Final = ("state", "switch", "holds", "components", "bypasses")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """Of a router whose switch is a file; an exception in the application is raised here."""
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware, backend=LocalFileBackend(f"{tmp_path}/switch.json", ttl=0.05)
    )
    app.include_router(maintenance_admin(public=True))
    with TestClient(
        app, base_url="http://testserver/maintenance/", headers={"Content-Type": "application/json"}
    ) as client:
        yield client


@effort(60)
@given(SWITCHES)
def test_any_switch_value_is_reported(client: TestClient, tmp_path: Path, value: bytes) -> None:
    (tmp_path / "switch.json").write_bytes(value)
    expected, _ = attempt(lambda: MaintenanceState.parse(value), InvalidStateError)
    state = client.get("state")

    assert state.status_code == 200
    assert (state.json()["switch"] is None) == (expected is None)
    assert {client.get(path).status_code for path in PATHS} <= {200, 502}
    assert client.delete("switch", headers={"If-Match": "*"}).json()["enabled"] is False


@effort(60)
@given(
    body=SWITCHES,
    tag=TAGS,
    type=st.sampled_from(["application/json", "text/plain", "application/json;charset=x", "\xff"]),
)
def test_any_body_and_condition_is_answered(
    client: TestClient, body: bytes, tag: str, type: str
) -> None:
    headers = {b"If-Match": tag.strip().encode("latin-1"), b"Content-Type": type.encode("latin-1")}
    for method, path in (
        ("PUT", "switch"),
        ("DELETE", "switch"),
        ("POST", "bypasses"),
        ("POST", "barrier"),
    ):
        answer = client.request(method, path, content=body, headers=headers)
        assert answer.status_code in (200, 400, 409, 412, 415, 422, 428, 501)
        assert answer.status_code == 200 or json.loads(answer.content)["detail"]
