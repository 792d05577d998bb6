from __future__ import annotations

import pytest

from fastapi_maintenance.cli.target import BackendSelection
from fastapi_maintenance.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("target", "backend"),
    [
        (BackendSelection("file:state.json"), "file:state.json"),
        (BackendSelection("env:CLOSED"), "env:CLOSED"),
        (BackendSelection("redis://db:7000/2?key=shop"), "redis://db:7000/2?key=shop"),
        (BackendSelection("env"), "env:FASTAPI_MAINTENANCE_MODE"),
        (BackendSelection("env", var_name="CLOSED"), "env:CLOSED"),
        (BackendSelection("file", file_path="state.json"), "file:state.json"),
        (BackendSelection(var_name="CLOSED"), "env:CLOSED"),
        (BackendSelection(file_path="state.json"), "file:state.json"),
    ],
)
def test_a_backend_is_a_url_or_a_short_name_with_its_option(
    target: BackendSelection, backend: str
) -> None:
    assert target.create().describe() == backend


def test_without_an_option_the_environment_names_the_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "file:state.json")
    assert BackendSelection().create().describe() == "file:state.json"
    assert BackendSelection("env").create().describe() == "env:FASTAPI_MAINTENANCE_MODE"


def test_without_anything_the_switch_is_the_environment_variable() -> None:
    assert BackendSelection().create().describe() == "env:FASTAPI_MAINTENANCE_MODE"


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        (BackendSelection("file"), "--backend file needs --file-path too"),
        (BackendSelection("redis"), "--backend redis does not say where"),
        (
            BackendSelection("memcached"),
            "There is no backend 'memcached': write env, file or redis",
        ),
        (BackendSelection("http://host"), "A backend URL cannot start with 'http'"),
        (BackendSelection("env:A=B"), "cannot name an environment variable"),
        (BackendSelection("file", var_name="CLOSED"), "--var-name belongs to --backend env"),
        (
            BackendSelection("redis://host", file_path="state.json"),
            "--file-path belongs to --backend file",
        ),
        (
            BackendSelection(var_name="CLOSED", file_path="state.json"),
            "--file-path belongs to --backend file",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write_instead(
    target: BackendSelection, advice: str
) -> None:
    with pytest.raises(ConfigurationError, match=advice):
        target.create()


def test_a_bad_url_from_the_environment_is_blamed_on_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "http://host")
    with pytest.raises(
        ConfigurationError,
        match=r"The environment variable FASTAPI_MAINTENANCE_BACKEND .* cannot start with 'http'",
    ):
        BackendSelection().create()


def test_options_after_the_command_go_before_those_in_front_of_it() -> None:
    outer = BackendSelection("env", var_name="A")
    assert BackendSelection().merge(outer) == outer
    assert BackendSelection(var_name="B").merge(outer) == BackendSelection("env", var_name="B")
    assert BackendSelection("file", None, "f").merge(BackendSelection("env")) == BackendSelection(
        "file", None, "f"
    )
