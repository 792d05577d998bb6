"""docs/reference.md and docs/commands.md: every public name and every command, as the code has
them. `RENEW_DOCS=1` writes both anew.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from fastapi_maintenance.cli.app import app as cli

from ..support.pages import ROOT, Block

DOCS: Final = ROOT / "docs"
BEGIN: Final = "<!-- made by tests/docs/test_reference.py -->\n"

MODULES: Final = {
    "fastapi_maintenance": "The names for an application.",
    "fastapi_maintenance.backends": "Backends: where the switch is stored.",
    "fastapi_maintenance.exemptions": "Rules for `exempt_handler`. `from fastapi_maintenance "
    "import exempt` is this module.",
    "fastapi_maintenance.exemptions.bypass": "Bypass tokens for testers.",
    "fastapi_maintenance.admin": "The admin panel and its JSON API.",
    "fastapi_maintenance.health": "The readiness endpoint for load balancers.",
    "fastapi_maintenance.metrics": "Metrics for OpenTelemetry.",
    "fastapi_maintenance.testing": "Overrides for the tests of an application.",
    "fastapi_maintenance.testing.fixtures": "The same as pytest fixtures.",
    "fastapi_maintenance.testing.conformance": "The conformance suite for a backend.",
    "fastapi_maintenance.exceptions": "All exceptions.",
}
INNER: Final = {
    "fastapi_maintenance": {"exempt"},
    "fastapi_maintenance.exemptions.bypass": {"HEADER", "PARAMETER", "SECRET_VARIABLE", "link_to"},
    "fastapi_maintenance.exemptions": {"ScopeRule"},
    "fastapi_maintenance.metrics": {"NAMES"},
}
"""Names that are not public, or have a section of their own."""


def public_names(module: str) -> list[str]:
    return [
        name
        for name in importlib.import_module(module).__all__
        if name not in INNER.get(module, ())
    ]


# -- the names -------------------------------------------------------------------------------------


def reference() -> str:
    parts = [
        f"\n## {module}\n\n{sentence}\n\n{''.join(entries(module)).rstrip()}\n"
        for module, sentence in MODULES.items()
    ]
    return "".join(parts)


def entries(module: str) -> Iterator[str]:
    for name in public_names(module):
        yield f"::: {module}.{name}\n\n"


def test_the_reference_has_every_public_name() -> None:
    assert_made_anew(DOCS / "reference.md", reference())


def test_names_of_the_reference_have_docstrings() -> None:
    names = {
        f"{module}.{name}": getattr(importlib.import_module(module), name)
        for module in MODULES
        for name in public_names(module)
    }
    assert [
        name
        for name, thing in names.items()
        if (inspect.isroutine(thing) or inspect.isclass(thing)) and not thing.__doc__
    ] == []


def test_names_that_pages_import_are_in_the_reference() -> None:
    imported = {
        f"{node.module}.{alias.name}"
        for page in DOCS.glob("**/*.md")
        for block in Block.all_of(str(page.relative_to(ROOT)))
        if block.language == "python"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastapi_maint")
        for alias in node.names
    }
    public = {f"{module}.{name}" for module in MODULES for name in public_names(module)}
    assert imported <= public | MODULES.keys() | {"fastapi_maintenance.exempt"}


# -- the commands ----------------------------------------------------------------------------------


def commands() -> str:
    root = get_command(cli)
    common = {option.name for option in root.params}
    return section("fastapi-maintenance", root, set()) + "".join(
        sections("fastapi-maintenance", root, common)
    )


def sections(prefix: str, group: Any, common: set[str]) -> Iterator[str]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        path = f"{prefix} {name}"
        yield section(path, command, common)
        if hasattr(command, "commands"):
            yield from sections(path, command, common)


def section(path: str, command: Any, common: set[str]) -> str:
    options = [row(option) for option in command.params if option.name not in common]
    table = "| option | what it does |\n|---|---|\n" + "".join(options) if options else ""
    return f"\n## {path}\n\n{inspect.cleandoc(command.help).replace(chr(12), '')}\n\n{table}"


def row(option: Any) -> str:
    metavar = f" {option.metavar}" if option.metavar else ""
    names = ", ".join(f"`{name}{metavar}`" for name in [*option.opts, *option.secondary_opts])
    if option.param_type_name == "argument":
        names = f"`{option.metavar or option.name.upper()}`"
    default = (
        f" Default: `{option.default}`."
        if option.show_default and isinstance(option.default, str | int | float) and option.default
        else ""
    )
    return f"| {names} | {(option.help or '').replace('|', chr(92) + '|')}{default} |\n"


def test_the_commands_are_those_that_there_are() -> None:
    assert_made_anew(DOCS / "commands.md", commands())


def assert_made_anew(page: Path, text: str) -> None:
    before, _, now = page.read_text().partition(BEGIN)
    if os.environ.get("RENEW_DOCS"):
        page.write_text(f"{before}{BEGIN}{text}")
    else:
        assert now == text, "run this test with RENEW_DOCS=1"
