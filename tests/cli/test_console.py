from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from fastapi_maintenance._internal.logging import one_line
from fastapi_maintenance.cli.app import prepare_output
from fastapi_maintenance.cli.console import (
    echo,
    echo_error,
    stdout_closed,
    terminal,
)


@contextmanager
def standard_output(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> Iterator[None]:
    """Let standard output be this descriptor, and close it."""
    with os.fdopen(descriptor, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield


def test_a_pipe_is_abandoned_when_its_reader_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with standard_output(monkeypatch, writer):
        assert not stdout_closed()
        os.close(reader)
        assert stdout_closed()


def test_what_is_no_pipe_is_never_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    with standard_output(monkeypatch, os.open(os.devnull, os.O_WRONLY)):
        assert not stdout_closed()
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        assert not stdout_closed()


def test_saying_something_to_nobody_is_noticed_and_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also by Python, which writes what is left in the buffer when it ends."""
    reader, writer = os.pipe()
    with standard_output(monkeypatch, writer):
        assert echo("heard")
        assert os.read(reader, 100) == b"heard\n"
        os.close(reader)
        assert not echo("unheard")
        assert echo("into nowhere")


def test_a_program_without_standard_output_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    prepare_output()
    assert terminal() is None
    assert echo("nothing")


def test_character_outside_the_encoding_is_escaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1", write_through=True)
    )
    prepare_output()
    assert echo("größer…")
    assert raw.getvalue() == b"gr\xf6\xdfer\\u2026\n"


def test_only_a_terminal_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal() is None
    master, slave = pty.openpty()
    with standard_output(monkeypatch, slave):
        console = terminal()
    os.close(master)
    assert console is not None


def test_a_complaint_is_one_line_on_standard_error_however_long() -> None:
    with CliRunner().isolation() as (out, err, _):
        echo_error("word " * 60 + "\n\x1b[2J[red]")
        sys.stderr.flush()
        assert err.getvalue().decode() == "word " * 60 + "\\n\\x1b[2J[red]\n"
        assert out.getvalue() == b""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Größe [b] 'x'", "Größe [b] 'x'"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e\udcff", "\\u202e\\udcff"),
    ],
)
def test_only_what_cannot_be_printed_is_escaped(text: str, cleaned: str) -> None:
    assert one_line(text) == cleaned
