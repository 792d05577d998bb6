from __future__ import annotations

import pytest

from fastapi_maintenance.cli.target import Target
from fastapi_maintenance.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("target", "backend"),
    [
        (Target("file:state.json"), "file:state.json"),
        (Target("env:CLOSED"), "env:CLOSED"),
        (Target("redis://db:7000/2?key=shop"), "redis://db:7000/2?key=shop"),
        (Target("env"), "env:FASTAPI_MAINTENANCE_MODE"),
        (Target("env", var_name="CLOSED"), "env:CLOSED"),
        (Target("file", file_path="state.json"), "file:state.json"),
        (Target(var_name="CLOSED"), "env:CLOSED"),
        (Target(file_path="state.json"), "file:state.json"),
    ],
)
def test_a_backend_is_a_url_or_a_short_name_with_its_option(target: Target, backend: str) -> None:
    assert target.open().describe() == backend


def test_without_an_option_the_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "file:state.json")
    assert Target().open().describe() == "file:state.json"
    assert Target("env").open().describe() == "env:FASTAPI_MAINTENANCE_MODE"


def test_without_anything_the_switch_is_the_environment_variable() -> None:
    assert Target().open().describe() == "env:FASTAPI_MAINTENANCE_MODE"


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        (Target("file"), "--backend file needs --file-path too"),
        (Target("redis"), "--backend redis does not say where"),
        (Target("memcached"), "There is no backend 'memcached': write env, file or redis"),
        (Target("http://host"), "A backend URL cannot start with 'http'"),
        (Target("env:A=B"), "cannot name an environment variable"),
        (Target("file", var_name="CLOSED"), "--var-name belongs to --backend env"),
        (Target("redis://host", file_path="state.json"), "--file-path belongs to --backend file"),
        (Target(var_name="CLOSED", file_path="state.json"), "--file-path belongs to --backend file"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write_instead(target: Target, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice):
        target.open()


def test_a_bad_url_from_the_environment_is_blamed_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "http://host")
    with pytest.raises(ConfigurationError, match=r"The environment variable FASTAPI_MAINTENANCE_BACKEND .* cannot start with 'http'"):
        Target().open()


def test_options_after_the_command_go_before_those_in_front_of_it() -> None:
    outer = Target("env", var_name="A")
    assert Target().over(outer) == outer
    assert Target(var_name="B").over(outer) == Target("env", var_name="B")
    assert Target("file", None, "f").over(Target("env")) == Target("file", None, "f")
