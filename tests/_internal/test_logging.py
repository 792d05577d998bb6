"""Log lines: no value makes two lines of one, or steers a terminal (CWE-117)."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fastapi_maintenance
from fastapi_maintenance._internal.logging import log_fields
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..support.servers import RedisServer
from ..support.waiting import eventually

PACKAGE: Final = Path(fastapi_maintenance.__file__).parent
LOGGER: Final = logging.getLogger("fastapi_maintenance")
FORGED: Final = "x\n2026-11-22 ERROR root: forged\r\x1b[2J\u2028\u202e\ud800\x00\x85end"
TEXTS: Final = st.text(st.characters(), max_size=30) | st.text(
    "\n\r\x1b\u2028\u2029\u202e\x0b\x0c\x85 a", max_size=9
)


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """Everything that the package logs, as a line of text with each field."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    names = ("reason", "by", "component", "source", "backend")
    handler.setFormatter(
        logging.Formatter(
            " ".join(["LINE %(message)s", *(f"%(maintenance_{name})s" for name in names)]),
            defaults={f"maintenance_{name}": "" for name in names},
        )
    )
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    try:
        yield out
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


def is_safe(character: str) -> bool:
    return (
        unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        and unicodedata.bidirectional(character) not in BIDI
    )


BIDI: Final = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@given(TEXTS, TEXTS, TEXTS)
@example(FORGED, FORGED, FORGED)
@example("é ✅ 日本\u00a0x", "100 %s %d {}", "\\n")
def test_log_record_any_text_stays_one_line(message: str, argument: str, detail: str) -> None:
    with logged() as out:
        LOGGER.info(
            "%s %s %r",
            message,
            argument,
            argument,
            extra=log_fields("changed", reason=detail, by=None),
        )
    line = out.getvalue().removesuffix("\n")
    assert [character for character in line if not is_safe(character)] == []
    assert len(line.splitlines()) == 1
    if all(map(is_safe, message + argument + detail)):
        assert line == f"LINE {message} {argument} {argument!r} {detail} None   "


@given(TEXTS)
@example(FORGED)
def test_log_traceback_any_text_is_indented(text: str) -> None:
    with logged() as out:
        try:
            raise ValueError(text) from OSError(text)
        except ValueError as error:
            error.add_note(text)
            LOGGER.warning("failed", exc_info=error)
    first, *lines = out.getvalue().removesuffix("\n").split("\n")
    assert first.startswith("LINE failed")
    assert all(line.startswith("    ") and all(map(is_safe, line)) for line in lines)
    assert any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_log_lines_all_go_to_the_one_logger(path: Path) -> None:
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    called = {ast.unparse(call) for call in calls}
    levels = ("debug", "info", "warning", "error", "critical", "exception", "log")
    assert not called & {"warnings.warn", *(f"logging.{level}" for level in levels)}
    assert set(re.findall(r"getLogger\((.*?)\)", path.read_text())) <= {'"fastapi_maintenance"'}


async def test_log_state_with_newlines_forges_no_line(
    redis_server: RedisServer, redis_url: str
) -> None:
    forged = "x\nERROR root: forged\r\x1b[2J\u2028\u202e"
    state = {
        "enabled": True,
        "reason": forged,
        "by": forged,
        "allow": [f"nonsense{forged}"],
        forged: 1,
    }
    with logged() as out:
        async with MaintenanceMode(RedisBackend(redis_url)) as mode:
            await redis_server.acli("SET", "maintenance", json.dumps(state))
            await eventually(lambda: not mode.gate.is_open, within=30)
            await redis_server.acli("SET", "maintenance", f"garbage{forged}")
            await eventually(lambda: "garbage" in out.getvalue(), within=30)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 3
    assert {line[:5] for line in lines} == {"LINE "}
    assert all(map(is_safe, "".join(lines)))
