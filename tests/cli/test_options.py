"""The options that name a backend."""

from __future__ import annotations

import os

import pytest

from fastapi_maintenance.cli import options
from fastapi_maintenance.cli.options import BackendSelection
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.model import state


@pytest.mark.parametrize(
    ("selection", "backend"),
    [
        (BackendSelection("file:state.json"), "file:state.json"),
        (BackendSelection("env:CLOSED"), "env:CLOSED"),
        (BackendSelection("redis://db:7000/2?key=shop"), "redis://db:7000/2?key=shop"),
        (BackendSelection("env"), "env:FASTAPI_MAINTENANCE_MODE"),
        (BackendSelection("env", var_name="CLOSED"), "env:CLOSED"),
        (BackendSelection("file", file_path="state.json"), "file:state.json"),
        (BackendSelection(var_name="CLOSED"), "env:CLOSED"),
        (BackendSelection(file_path="state.json"), "file:state.json"),
        (BackendSelection(file_path="a?b%20#c"), "file:a?b%20#c"),
        (BackendSelection(), "env:FASTAPI_MAINTENANCE_MODE"),
    ],
)
def test_selection_creates_the_named_backend(selection: BackendSelection, backend: str) -> None:
    assert selection.create().describe() == backend


def test_selection_without_options_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "file:state.json")
    assert BackendSelection().create().describe() == "file:state.json"
    assert BackendSelection("env").create().describe() == "env:FASTAPI_MAINTENANCE_MODE"


@pytest.mark.parametrize(
    ("selection", "advice"),
    [
        (BackendSelection("file"), "'file' alone does not say where"),
        (BackendSelection("redis"), "'redis' alone does not say where"),
        (BackendSelection("memcached"), "cannot start with 'memcached'"),
        (BackendSelection("http://host"), "A backend URL cannot start with 'http'"),
        (BackendSelection("env:A=B"), "var_name must be the name of a variable"),
        (BackendSelection(var_name=""), "--var-name must not be empty"),
        (BackendSelection(file_path=""), "--file-path must not be empty"),
        (
            BackendSelection("file", var_name="CLOSED"),
            "--var-name must be used with --backend env, got another backend",
        ),
        (
            BackendSelection("redis://host", file_path="state.json"),
            "--file-path must be used with --backend file",
        ),
        (
            BackendSelection(var_name="CLOSED", file_path="state.json"),
            "--file-path must be used with --backend file",
        ),
    ],
)
def test_invalid_selection_says_what_to_write(selection: BackendSelection, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice):
        selection.create()


def test_invalid_url_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "http://host")
    with pytest.raises(
        ConfigurationError,
        match=r"variable FASTAPI_MAINTENANCE_BACKEND: .* cannot start with 'http'",
    ):
        BackendSelection().create()


@pytest.mark.parametrize("given", [None, "logfire"])
def test_selection_leaves_the_environment_as_it_is(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("PYDANTIC_DISABLE_PLUGINS", raising=False)
    if given is not None:
        monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", given)

    BackendSelection("env:CLOSED").create()

    assert os.environ.get("PYDANTIC_DISABLE_PLUGINS") == given


def test_most_of_retry_after_is_that_of_the_state() -> None:
    assert options.MAX_RETRY_AFTER == state.MAX_RETRY_AFTER
