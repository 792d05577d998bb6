"""What the package and the command line import, each in a process of its own."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import fastapi_maintenance

from .support.servers import RedisServer

ROOT: Final = Path(__file__).parents[1]
FRAMEWORK: Final = {"fastapi", "starlette"}
OPTIONAL: Final = {"itsdangerous", "jinja2", "opentelemetry", "redis", "rich", "typer"}
MODELS: Final = {
    "annotated_types",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
TYPER: Final = {"typer", "annotated_doc", "shellingham"}
REDIS: Final = {"redis", "hiredis", "cryptography", "opentelemetry", "async_timeout"}
"""redis-py, and what it imports where that is installed."""
FRONT: Final = ast.parse((ROOT / "fastapi_maintenance" / "__init__.py").read_text())
SHOW: Final = """
import json, sys
at_start = {*sys.modules}
try:
    exec(sys.argv.pop(1))
finally:
    json.dump(sorted({*sys.modules} - at_start), sys.stderr)
"""


def imported_by(code: str, *arguments: str, **env: str) -> set[str]:
    """The modules that are new after the code has run in a new process."""
    ran = subprocess.run(
        [sys.executable, "-c", SHOW, code, *arguments],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    modules: list[str] = json.loads(ran.stderr[ran.stderr.rindex("[") :])
    return {*modules}


def libraries(modules: set[str]) -> set[str]:
    """The libraries that these modules are of, without Python's own."""
    roots = {name.partition(".")[0] for name in modules}
    others = roots - sys.stdlib_module_names - {"fastapi_maintenance"}
    return {name for name in others if not name.startswith("_")}


# -- the front -------------------------------------------------------------------------------------


def test_import_of_the_package_loads_no_library() -> None:
    assert libraries(imported_by("import fastapi_maintenance")) == set()


@pytest.mark.parametrize(
    "names",
    ["maintenance_mode_on", "set_maintenance_mode, wait_until_applied", "configure_backend"],
)
def test_script_that_holds_a_lease_loads_no_framework(names: str) -> None:
    loaded = libraries(imported_by(f"from fastapi_maintenance import {names}"))

    assert loaded.isdisjoint(FRAMEWORK | OPTIONAL)


def test_application_loads_no_optional_library() -> None:
    given = libraries(imported_by("import fastapi"))

    loaded = libraries(imported_by("from fastapi_maintenance import *"))

    assert (loaded - given).isdisjoint(OPTIONAL)


def test_front_names_are_the_same_in_each_list() -> None:
    (block,) = (
        node for node in FRONT.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    for_checkers = {
        alias.asname or alias.name: f"{node.module or alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert for_checkers == fastapi_maintenance._HOMES
    assert sorted(for_checkers) == sorted(fastapi_maintenance.__all__)


def test_front_name_is_the_one_of_its_module() -> None:
    for name, module in fastapi_maintenance._HOMES.items():
        home = importlib.import_module(f"fastapi_maintenance.{module}")
        assert getattr(fastapi_maintenance, name) is (
            home if name == "exempt" else getattr(home, name)
        )


def test_front_without_a_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'maintenance_mode'"):
        _ = fastapi_maintenance.maintenance_mode  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'maintenance_mode'"):
        from fastapi_maintenance import maintenance_mode  # type: ignore[attr-defined]  # noqa: F401


def test_front_dir_star_and_help_have_every_name() -> None:
    code = """
import fastapi_maintenance, pydoc
assert {*fastapi_maintenance.__all__} <= {*dir(fastapi_maintenance)}
text = pydoc.render_doc(fastapi_maintenance, renderer=pydoc.plaintext)
assert all(name in text for name in fastapi_maintenance.__all__)
names = {}
exec("from fastapi_maintenance import *", names)
assert {*fastapi_maintenance.__all__} <= {*names}
"""
    assert "fastapi_maintenance.middleware.middleware" in imported_by(code)
    assert {*fastapi_maintenance.__all__} <= {*dir(fastapi_maintenance)}


def test_front_values_can_be_pickled() -> None:
    state = fastapi_maintenance.MaintenanceState(enabled=True, message="Back soon")

    copies = pickle.loads(
        pickle.dumps((state, fastapi_maintenance.job, fastapi_maintenance.Change))
    )

    assert copies == (state, fastapi_maintenance.job, fastapi_maintenance.Change)


def test_front_under_mypy_strict_has_types_and_no_other_name(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(
        "import fastapi_maintenance\n"
        "from fastapi_maintenance import MaintenanceState, exempt, maintenance_mode_on\n"
        "reveal_type(MaintenanceState(enabled=True).enabled)\n"
        "reveal_type(maintenance_mode_on())\n"
        "reveal_type(exempt.Path('/'))\n"
        "fastapi_maintenance.typo\n"
    )
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
            str(user),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )

    said = ran.stdout.splitlines()
    assert [line.split(": ", 1)[1] for line in said[:-1]] == [
        'note: Revealed type is "bool"',
        'note: Revealed type is "fastapi_maintenance.coordination.context.MaintenanceContext"',
        'note: Revealed type is "fastapi_maintenance.exemptions.rules.Path"',
        'error: Module has no attribute "typo"  [attr-defined]',
    ]


# -- the command line ------------------------------------------------------------------------------

RUN: Final = """
import sys
sys.argv[0] = 'fastapi-maintenance'
from fastapi_maintenance.__main__ import main
main()
"""


def test_version_loads_no_library() -> None:
    assert libraries(imported_by(RUN, "--version")) == set()


def test_help_loads_typer_alone() -> None:
    assert libraries(imported_by(RUN, "--help")) <= TYPER


@pytest.mark.parametrize("words", ["st", "status --", "bypass cr", "bypass create --", "on --a"])
def test_completion_loads_typer_alone(words: str) -> None:
    asked = {"COMP_WORDS": f"fastapi-maintenance {words}", "COMP_CWORD": f"{len(words.split())}"}

    loaded = imported_by(RUN, _FASTAPI_MAINTENANCE_COMPLETE="complete_bash", **asked)

    assert libraries(loaded) <= TYPER
    assert "asyncio" not in loaded


@pytest.mark.parametrize(
    "command", ["status", "on", "off", "wait --expect 0 --timeout 9", "workers"]
)
def test_command_on_redis_loads_its_connections_only(
    redis_server: RedisServer, command: str
) -> None:
    loaded = imported_by(RUN, *command.split(), "--backend", redis_server.url)

    assert libraries(loaded) <= TYPER | MODELS | REDIS
    assert loaded.isdisjoint({"redis.client", "redis.commands", "redis.asyncio.client"})


@pytest.mark.parametrize("command", ["status", "on", "off"])
def test_command_on_a_file_loads_no_redis(command: str, tmp_path: Path) -> None:
    loaded = imported_by(RUN, command, "--backend", f"file:{tmp_path}/switch.json")

    assert libraries(loaded) <= TYPER | MODELS | {"anyio", "filelock"}


def test_error_of_a_command_loads_no_more() -> None:
    loaded = imported_by(RUN, "status", "--backend", "memcached")

    assert libraries(loaded) <= TYPER | MODELS


# -- redis-py --------------------------------------------------------------------------------------


def test_redis_backend_loads_the_connections_of_redis_py_only(redis_server: RedisServer) -> None:
    code = f"""
import asyncio
from fastapi_maintenance import set_maintenance_mode
asyncio.run(set_maintenance_mode(True, {redis_server.url!r}))
asyncio.run(set_maintenance_mode(False, {redis_server.url!r}))
"""
    loaded = imported_by(code)

    assert "redis.asyncio.connection" in loaded
    assert loaded.isdisjoint(
        {"redis.client", "redis.cluster", "redis.commands", "redis.asyncio.client"}
    )


@pytest.mark.parametrize(
    "use",
    [
        "import redis; redis.Redis; redis.asyncio.Redis",
        "from redis import Redis; from redis.asyncio import Redis",
        "from redis.asyncio import *; from redis import *; Redis",
        "import redis.cluster; redis.cluster.RedisCluster; redis.__version__",
        "from redis.client import Redis; from redis.sentinel import Sentinel",
        "from redis.asyncio.sentinel import Sentinel",
        "import redis.exceptions; redis.exceptions.RedisError",
        """
from concurrent.futures import ThreadPoolExecutor as Pool
import redis
uses = [lambda: redis.asyncio.RedisCluster, lambda: redis.Redis, lambda: redis.asyncio.Redis]
with Pool(9) as pool:
    [done.result() for done in [pool.submit(use) for use in uses * 3]]
""",
    ],
)
def test_redis_py_is_whole_for_others_after_the_backend(use: str) -> None:
    code = f"from fastapi_maintenance.backends import RedisBackend\n{use}\nprint('done')"

    loaded = imported_by(code)

    assert {"redis.client", "redis.commands"} <= loaded
