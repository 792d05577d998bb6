from __future__ import annotations

import logging
import os
import time

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_maintenance.demo.witness import PATH, Statement


def hear(client: TestClient) -> Statement:
    return Statement.model_validate_json(client.get(PATH).content)


def test_the_ordinary_route_follows_the_switch_and_the_forced_ones_do_not(demo_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(demo_app) as client:
        paths = ("/", "/health", "/reports", "/nowhere")
        assert [client.get(path).status_code for path in paths] == [200, 200, 503, 404]
        assert client.get("/").json()["worker"] == os.getpid()
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
        assert [client.get(path).status_code for path in paths] == [503, 200, 503, 404]


def test_a_witness_tells_when_the_gate_last_changed(demo_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(demo_app) as client:
        first = hear(client)
        assert (first.pid, first.enabled, first.source, first.changes) == (os.getpid(), False, "env", 0)

        before = time.monotonic()
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
        client.get("/")
        after = time.monotonic()
        second = hear(client)
        assert (second.enabled, second.changes) == (True, 1)
        assert before <= second.changed_at <= after


def test_other_lines_in_the_log_are_no_changes(demo_app: FastAPI) -> None:
    with TestClient(demo_app) as client:
        first = hear(client)
        logging.getLogger("fastapi_maintenance").warning("Something else.")
        assert hear(client) == first


def test_the_witness_leaves_with_the_application(demo_app: FastAPI) -> None:
    logger = logging.getLogger("fastapi_maintenance")
    before = (logger.level, [*logger.handlers])
    with TestClient(demo_app):
        assert (logger.level, logger.handlers) != before
    assert (logger.level, logger.handlers) == before


def test_the_witness_is_no_part_of_the_documented_interface(demo_app: FastAPI) -> None:
    with TestClient(demo_app) as client:
        assert PATH not in client.get("/openapi.json").json()["paths"]
