"""The pytest fixture, used as in a user's project."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from fastapi_maintenance.testing.fixtures import OverrideMaintenance, override_maintenance
from tests.testing.test_override import ask, shop

__all__ = ["override_maintenance"]

pytest_plugins = ("pytester",)


def test_last_override_of_the_fixture_counts(override_maintenance: OverrideMaintenance) -> None:
    app, other = shop(), shop()

    override_maintenance(app)
    assert ask(app) == 503
    override_maintenance(app, False)
    assert ask(app) == 200
    override_maintenance(other, True)
    assert (TestClient(app).get("/").status_code, ask(other)) == (200, 503)


PROJECT = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from fastapi_maintenance import MaintenanceModeMiddleware

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, backend="env:SWITCH_OF_THE_SHOP")
app.get("/")(lambda: None)

def test_closed(override_maintenance):
    override_maintenance(app)
    assert TestClient(app).get("/").status_code == 503

def test_open_again():
    assert TestClient(app).get("/").status_code == 200
"""


def test_fixture_ends_with_its_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a second each
    pytester.makepyfile(test_shop=PROJECT)
    options = ("-p", "no:randomly", "-p", "no:cacheprovider")

    without = pytester.runpytest_subprocess(*options)
    without.assert_outcomes(errors=1, passed=1)
    pytester.makeconftest("from fastapi_maintenance.testing.fixtures import override_maintenance")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=2)
