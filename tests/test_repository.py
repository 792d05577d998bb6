"""What is in the repository beside the code, held to what it claims."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import crossplane
import pytest
from ruamel.yaml import YAML
from starlette.testclient import TestClient

from fastapi_maintenance._internal.version import VERSION

from .support.ports import free_port
from .support.servers import USERS, RedisServer
from .support.topologies import CLUSTER, SENTINEL
from .support.waiting import eventually_sync

ROOT: Final = Path(__file__).parents[1]
SCRIPTS: Final = sorted(
    [".ci/run", *(str(path.relative_to(ROOT)) for path in (ROOT / "scripts").iterdir())]
)


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False)


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


# -- docker-compose.yml ----------------------------------------------------------------------------


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    return run(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path
    )


def test_compose_file_matches_the_specification() -> None:
    checked = check_compose(ROOT / "docker-compose.yml")

    assert checked.returncode == 0, checked.stdout


def test_compose_check_finds_an_unknown_key(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace("depends_on:", "depends-on:"))

    assert check_compose(broken).returncode == 1


@pytest.fixture(scope="module")
def services() -> Any:
    """The services of the compose file."""
    return read_yaml(ROOT / "docker-compose.yml")["services"]


def test_compose_mounts_and_builds_from_existing_files(services: Any) -> None:
    volumes = [
        volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", ())
    ]
    mounted = [ROOT / path for path in volumes if path.startswith(".")]
    build = services["app"]["build"]

    assert ROOT / "backends" / "redis" in mounted
    assert all(path.exists() for path in [*mounted, ROOT / build["context"] / build["dockerfile"]])


def test_compose_runs_hosts_with_several_processes(services: Any) -> None:
    assert services["app"]["deploy"]["replicas"] == 2
    assert re.search(r'"--workers", "4"', dockerfile())


def test_compose_panel_has_a_password(services: Any) -> None:
    assert services["app"]["environment"]["PANEL_PASSWORD"] == "${PANEL_PASSWORD:-change-me-panel}"


def test_compose_logs_in_as_users_of_the_acl_file(services: Any) -> None:
    default = re.fullmatch(
        r"\$\{MAINTENANCE_BACKEND:-(.*)\}",
        services["app"]["environment"]["FASTAPI_MAINTENANCE_BACKEND"],
    )
    assert default is not None
    worker = urlsplit(default[1])

    assert f"user {worker.username} on >{worker.password} " in USERS.read_text()
    assert worker.hostname in services
    assert (
        f"user readonly on >{services['redis']['environment']['REDISCLI_AUTH']} "
        in USERS.read_text()
    )


def test_compose_redis_loads_the_mounted_acl_file(services: Any) -> None:
    _, inside, _ = services["redis"]["volumes"][0].split(":")
    (line,) = re.findall(
        r"^aclfile (.*)$", (ROOT / "backends/redis/redis.conf").read_text(), re.MULTILINE
    )

    assert line == f"{inside}/{USERS.name}"
    assert f"{inside}/redis.conf" in services["redis"]["command"]


FILES_OF_PROFILES: Final = {"sentinel": SENTINEL, "cluster": CLUSTER}


@pytest.mark.parametrize("profile", FILES_OF_PROFILES)
def test_compose_profiles_start_from_mounted_files(services: Any, profile: str) -> None:
    members = [service for service in services.values() if profile in service.get("profiles", ())]
    commands = str([[service.get("entrypoint"), service.get("command")] for service in members])
    named = re.findall(rf"/usr/local/etc/redis/({profile}/[\w.-]+)", commands)

    assert set(named) == {
        f"{profile}/{file.name}" for file in FILES_OF_PROFILES[profile].glob("*.conf")
    }
    (line,) = {
        line
        for file in FILES_OF_PROFILES[profile].glob("*.conf")
        for line in re.findall(r"^aclfile (.*)$", file.read_text(), re.M)
    }
    assert line == f"/usr/local/etc/redis/{profile}/users.acl"


@pytest.mark.parametrize("profile", FILES_OF_PROFILES)
def test_users_of_every_profile_have_equal_rights(profile: str) -> None:
    def rights(file: Path) -> dict[str, set[str]]:
        return {line.split()[1]: set(line.split()[2:]) for line in file.read_text().splitlines()}

    alone, together = rights(USERS), rights(FILES_OF_PROFILES[profile] / "users.acl")

    assert {user: alone[user] - together[user] for user in alone} == {user: set() for user in alone}


@pytest.mark.timeout(120)
def test_compose_command_creates_the_cluster(services: Any) -> None:
    (script,) = services["cluster"]["command"]
    names = [
        name
        for name, service in services.items()
        if "cluster" in service.get("profiles", ()) and name.startswith("node-")
    ]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                RedisServer(
                    include=CLUSTER / "cluster.conf",
                    users=CLUSTER / "users.acl",
                    config={"cluster-port": str(free_port())},
                )
            )
            for _ in names
        ]
        for name, node in zip(names, nodes, strict=True):
            script = script.replace(f"{name}:6379", f"127.0.0.1:{node.port}").replace(
                f"-h {name}", f"-h 127.0.0.1 -p {node.port}"
            )
        environment = os.environ | {
            "REDISCLI_AUTH": services["cluster"]["environment"]["REDISCLI_AUTH"]
        }
        for _ in range(2):  # the second time there is one
            made = subprocess.run(
                ["sh", "-ec", script],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert made.returncode == 0, made.stdout + made.stderr
            for node in nodes:
                eventually_sync(partial(_is_in_order, node), within=30)
        assert "cluster_known_nodes:6" in _cluster_info(nodes[0])


def _is_in_order(node: RedisServer) -> bool:
    return "cluster_state:ok" in _cluster_info(node)


def _cluster_info(node: RedisServer) -> str:
    return node.cli("CLUSTER", "INFO", user="setup", password="change-me-setup")


# -- the example -----------------------------------------------------------------------------------


def dockerfile() -> str:
    return (ROOT / "examples" / "Dockerfile").read_text()


def test_image_is_built_from_files_of_its_context() -> None:
    allowed = (ROOT / "examples" / "Dockerfile.dockerignore").read_text().split()
    sources = [
        source
        for line in re.findall(r"^COPY (.*)$", dockerfile(), re.MULTILINE)
        for source in line.split()[:-1]
    ]

    assert len(sources) == 5
    assert [
        source for source in sources if not (ROOT / source).exists() or f"!{source}" not in allowed
    ] == []


def test_nginx_configuration_is_valid_and_forwards(
    services: Any,
) -> None:
    parsed = crossplane.parse(str(ROOT / "examples" / "nginx.conf"), strict=True)
    (listen,) = re.findall(r"listen (\d+);", (ROOT / "examples" / "nginx.conf").read_text())
    (upstream,) = re.findall(
        r"set \$app http://(\w+):(\d+);", (ROOT / "examples" / "nginx.conf").read_text()
    )

    assert parsed["status"] == "ok", parsed["errors"]
    assert upstream[0] in services
    assert f'"--port", "{upstream[1]}"' in dockerfile()
    assert services["nginx"]["ports"] == [f"127.0.0.1:8080:{listen}"]


@pytest.mark.parametrize(("mode", "status"), [("0", 200), ("1", 503)])
def test_example_closes_and_stays_healthy(
    monkeypatch: pytest.MonkeyPatch, mode: str, status: int
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", mode)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("PANEL_PASSWORD", "letmein")
    monkeypatch.delitem(sys.modules, "panel", raising=False)
    from panel import app  # type: ignore[import-not-found]  # as uvicorn finds it in the image

    with TestClient(app) as client:
        assert client.get("/").status_code == status
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/maintenance/").status_code == 401
        assert client.get("/maintenance/", auth=("ana", "letmein")).status_code == 200


# -- scripts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_clean(script: str) -> None:
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    checked = run(shellcheck, "--external-sources", "--source-path", ROOT, script)

    assert checked.returncode == 0, checked.stdout
    assert run("bash", "-n", script).returncode == 0


@pytest.mark.parametrize("script", [script for script in SCRIPTS if not script.endswith("_setup")])
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!")


def test_missing_python_is_named_and_leaves_nothing() -> None:
    tried = run("scripts/test", "--python", "3.99", "--version")

    assert tried.returncode != 0
    assert "3.99" in tried.stderr
    assert not (ROOT / ".venv-3.99" / "bin").exists()


# -- the package -----------------------------------------------------------------------------------


def pyproject() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_version_is_written_once() -> None:
    assert pyproject()["project"]["version"] == VERSION
    assert "dynamic" not in pyproject()["project"]


def test_changelog_begins_unreleased_or_with_this_version() -> None:
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert newest[1] == "Unreleased" or VERSION in newest[1]


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "backends").iterdir()])
def test_server_client_and_test_folders_mirror(name: str) -> None:
    package = ROOT / "fastapi_maintenance" / "backends"
    tests = ROOT / "tests" / "backends"

    assert (package / name).is_dir() or (package / f"{name}.py").is_file()
    assert (tests / name).is_dir() or list(tests.glob(f"test_{name}*.py"))
