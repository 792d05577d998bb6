"""The how-to guides: the commands in their YAML are such, the probes are answered as they say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

import pytest
from ruamel.yaml import YAML
from starlette.testclient import TestClient
from typer.main import get_command

from fastapi_maintenance.cli.app import app as cli
from fastapi_maintenance.cli.options import BackendSelection

from ..support.pages import PAGES, ROOT, Block

PROGRAM: Final[Any] = get_command(cli)

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
    command = PROGRAM.get_command(None, name)

    # Which raises for an option that there is not.
    assert command.make_context(name, arguments, obj=BackendSelection()).params


def test_the_options_of_run_in_the_guide_are_such() -> None:
    table = re.findall(
        r"^\| .* \| `(--[\w-]+)", (ROOT / "docs" / "migrations.md").read_text(), re.MULTILINE
    )
    options = {name for option in PROGRAM.get_command(None, "run").params for name in option.opts}

    assert len(table) > 4
    assert set(table) <= options


def test_commands_in_the_text_have_existing_options() -> None:
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    for line in re.findall(r"`fastapi-maintenance ([^`]+)`", text):
        words = line.split(" -- ")[0].split()
        command = PROGRAM
        while words and words[0] in getattr(command, "commands", ()):
            command = command.get_command(None, words.pop(0))
        options = {name for option in command.params for name in option.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, line


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
