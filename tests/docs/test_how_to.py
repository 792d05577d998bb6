"""The how-to guides: the commands in their YAML are such, the probes are answered as they say, and
nginx does what its block says.
"""

from __future__ import annotations

import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from ruamel.yaml import YAML
from starlette.testclient import TestClient
from typer.main import get_command

from fastapi_maintenance import MaintenanceModeMiddleware, exempt
from fastapi_maintenance.cli.app import app as cli

from ..support.nginx import nginx
from ..support.pages import PAGES, ROOT, Block
from ..support.serving import serving

Answer = tuple[int, Message, str]


# -- commands and probes in YAML -------------------------------------------------------------------


def strings_in(value: Any) -> Iterator[str]:
    """Every text in a document; a list that is a command is one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        yield (
            shlex.join(value)
            if value[0] in ("fastapi-maintenance", "uvicorn")
            else "\n".join(value)
        )
    else:
        for inner in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            yield from strings_in(inner)


def documents(page: str) -> Iterator[Any]:
    for block in Block.all_of(page):
        if block.language == "yaml":
            yield from YAML(typ="safe").load_all(block.text)


COMMANDS: Final = sorted(
    {
        line
        for page in PAGES
        for text in strings_in(list(documents(page)))
        for line in text.splitlines()
        if line.startswith("fastapi-maintenance")
    }
    | {
        line
        for page in PAGES
        for block in Block.all_of(page)
        if block.language == "bash" and "no-run" in block.options
        for line in block.text.splitlines()
        if line.startswith("fastapi-maintenance")
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_not_run_could_be(line: str) -> None:
    _, name, *arguments = shlex.split(re.sub(r"\$\{\{.*?\}\}|\$\w+", "42", line), comments=True)
    command = get_command(cli).commands[name]  # type: ignore[attr-defined] # the root is a group

    # Which raises for an option that there is not.
    assert command.make_context(name, arguments).params


def test_the_options_of_run_in_the_guide_are_such() -> None:
    table = re.findall(
        r"^\| .* \| `(--[\w-]+)", (ROOT / "docs" / "migrations.md").read_text(), re.MULTILINE
    )
    options = {name for option in get_command(cli).commands["run"].params for name in option.opts}  # type: ignore[attr-defined]

    assert len(table) > 4
    assert set(table) <= options


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_have_existing_options(page: str) -> None:
    wrong = []
    for line in re.findall(r"`fastapi-maintenance ([^`]+)`", (ROOT / page).read_text()):
        words = line.split(" -- ")[0].split()
        command = get_command(cli)
        while words and words[0] in getattr(command, "commands", ()):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        options = {name for option in command.params for name in option.opts}
        wrong += [
            f"{line}: {word}"
            for word in words
            if word.startswith("--") and word not in options | {"--help"}
        ]

    assert wrong == []


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 4
    with pytest.raises(Exception, match="No such option"):
        test_a_command_that_is_not_run_could_be("fastapi-maintenance run --drian 60s -- true")


def test_the_probes_of_kubernetes_are_answered_while_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = "docs/kubernetes.md"
    (deployment,) = (document for document in documents(page) if document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (source,) = (block.text for block in Block.all_of(page) if block.language == "python")
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    names: dict[str, Any] = {}
    exec(compile(source.replace(', on_unreachable="closed"', ""), page, "exec"), names)

    with TestClient(names["app"]) as client:
        assert [
            client.get(container[probe]["httpGet"]["path"]).status_code
            for probe in ("readinessProbe", "livenessProbe")
        ] == [200, 200]
        assert client.get("/docs-of-nobody").status_code == 404


# -- nginx -----------------------------------------------------------------------------------------


def ask(url: str, **headers: str) -> Answer | None:
    """Status, headers and text; None where nobody listens."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read().decode()
    except urllib.error.URLError:
        return None


def answer_of(url: str, **headers: str) -> Answer:
    answer = ask(url, **headers)
    assert answer is not None
    return answer


def shop() -> FastAPI:
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware,
        enable_maintenance=True,
        exempt_handler=exempt.Network("192.0.2.0/24", trusted_proxies=["127.0.0.1"]),
    )

    @app.get("/")
    async def index() -> str:
        return "open"

    return app


def test_nginx_passes_the_503_and_the_client_address(tmp_path: Path, free_port: int) -> None:
    with (
        serving(shop(), proxy_headers=False) as upstream,
        nginx(upstream, free_port, tmp_path) as url,
    ):
        for _ in range(5):  # none of them counts as a failure of the server
            status, headers, text = answer_of(url, accept="text/html")
            assert (status, headers["Retry-After"], headers["Cache-Control"]) == (
                503,
                "3600",
                "no-store",
            )
            assert headers["X-Maintenance-Mode"] == "full"
            assert "<h1>" in text
        # What a client says itself stands before what nginx appends, which is the client's own
        # address and a trusted one here.
        assert answer_of(url, x_forwarded_for="192.0.2.7")[0] == 200
        assert answer_of(url, x_forwarded_for="198.51.100.7")[0] == 503


def test_nginx_has_a_page_of_its_own_where_no_worker_answers(
    tmp_path: Path, free_port: int
) -> None:
    with nginx("127.0.0.1:1", free_port, tmp_path) as url:
        status, headers, text = answer_of(url)

    assert (status, text) == (502, "nobody is there")
    assert headers["X-Maintenance-Mode"] is None
