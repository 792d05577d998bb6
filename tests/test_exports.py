"""The public surface is what `__all__` says, in every module, and importing it costs no optional
library.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import fastapi_maintenance
from fastapi_maintenance import backends

ROOT: Final = Path(__file__).parents[1]
OPTIONAL: Final = (
    "fakeredis",
    "itsdangerous",
    "jinja2",
    "pytest",
    "redis",
    "rich",
    "typer",
    "uvicorn",
)
MODULES: Final = [
    "fastapi_maintenance",
    *(
        module.name
        for module in pkgutil.walk_packages(fastapi_maintenance.__path__, "fastapi_maintenance.")
    ),
]


def all_of(module: str) -> list[str]:
    names: list[str] = getattr(importlib.import_module(module), "__all__", [])
    return names


def offered_by(module: str) -> list[str]:
    """Its `__all__`, or of a module without that whatever it does not mark as private."""
    return all_of(module) or [
        name for name in vars(importlib.import_module(module)) if name[0] != "_"
    ]


def taken_by(name: str) -> Iterator[tuple[str, str]]:
    """Each name that a module takes from another one of the package, after the module that it takes
    it from.
    """
    source = importlib.import_module(name).__file__
    assert source is not None
    parents = name.split(".") if source.endswith("__init__.py") else name.split(".")[:-1]
    for node in ast.walk(ast.parse(Path(source).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*parents[: len(parents) - node.level + 1], *filter(None, [node.module])]
            yield from ((".".join(base), alias.name) for alias in node.names)


@pytest.mark.parametrize("name", MODULES)
def test_imported_names_are_in_all(name: str) -> None:
    hidden = [
        (module, taken)
        for module, taken in taken_by(name)
        if f"{module}.{taken}" not in MODULES and taken not in offered_by(module)
    ]

    assert hidden == []


def in_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as ruff's RUF022 sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_complete_unique_and_sorted(name: str) -> None:
    module, names = importlib.import_module(name), all_of(name)

    assert [name for name in names if not hasattr(module, name)] == []
    assert names == sorted(set(names), key=in_order)


def test_front_has_the_promised_names() -> None:
    promised = {
        "MaintenanceModeMiddleware",
        "MaintenanceState",
        "configure_backend",
        "get_maintenance_mode",
        "set_maintenance_mode",
        "maintenance_mode_on",
        "maintenance_mode_off",
        "force_maintenance_mode_on",
        "force_maintenance_mode_off",
    }

    assert promised <= set(fastapi_maintenance.__all__)
    assert set(backends.__all__) == {
        "BaseStateBackend",
        "EnvVarBackend",
        "LocalFileBackend",
        "RedisBackend",
        "backend_from_url",
    }


def test_unknown_backend_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'MongoBackend'"):
        _ = backends.MongoBackend


def test_front_exempt_has_every_rule() -> None:
    from fastapi_maintenance import exempt, exemptions

    assert {name: getattr(exempt, name) for name in exemptions.__all__} == {
        name: getattr(exemptions, name) for name in exemptions.__all__
    }
    assert "exempt" in fastapi_maintenance.__all__


STAGES: Final = {
    "fastapi": "from fastapi import FastAPI",
    "the package": "from fastapi_maintenance import *",
    "an application": "app = "
    "FastAPI()\napp.add_middleware(MaintenanceModeMiddleware)\napp.build_middleware_stack()",
    "its tests": "from fastapi_maintenance.testing import override\nfrom "
    "fastapi_maintenance.testing.conformance import CHECKS",
    "a file": "from fastapi_maintenance.backends import "
    "backend_from_url\nbackend_from_url('file:maintenance.json')",
    "a Redis URL": "backend_from_url('redis://localhost')",
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The optional libraries that a fresh interpreter has loaded after each stage."""
    show = f"print(*{set(OPTIONAL)!r} & {{name.partition('.')[0] for name in sys.modules}})"
    code = "\n".join(["import sys", *(f"{stage}\n{show}" for stage in STAGES.values())])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return dict(zip(STAGES, (set(line.split()) for line in done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("stage", ["the package", "an application", "its tests", "a file"])
def test_unused_optional_libraries_are_not_loaded(loaded: dict[str, set[str]], stage: str) -> None:
    assert loaded[stage] <= loaded["fastapi"]


def test_redis_url_loads_redis_alone(loaded: dict[str, set[str]]) -> None:
    assert loaded["a Redis URL"] == loaded["fastapi"] | {"redis"}
