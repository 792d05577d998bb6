"""The applications that other tests run in worker processes."""

from __future__ import annotations

import os

import pytest
from starlette.testclient import TestClient

from . import bare


def test_the_bare_application_tells_its_process_and_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLOUR", "green")
    with TestClient(bare.app) as client:
        assert client.get("/pid").json() == os.getpid()
        assert client.get("/env/COLOUR").json() == "green"
