"""The command `page`: the very response of a closed worker, as a file."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, MaintenanceState
from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.responses.translations import TRANSLATIONS

from .conftest import Cli

END = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
ACCEPT = {
    "html": "text/html",
    "json": "application/json",
    "problem": "application/problem+json",
    "text": "text/plain",
}


def answer_of_worker(home: Path, accept: str, language: str, **details: object) -> bytes:
    """Return what a closed worker sends."""
    (home / "switch.json").write_text(
        MaintenanceState(enabled=True, **details).dump()  # type: ignore[arg-type]
    )
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=LocalFileBackend(home / "switch.json"))
    app.get("/")(lambda: None)
    with TestClient(app) as client:
        headers = {"accept": accept, "accept-language": language}
        return bytes(client.get("/", headers=headers).content)


@pytest.mark.parametrize("language", ["en", "de", "ar"])
@pytest.mark.parametrize("kind", ACCEPT)
def test_page_is_what_a_closed_worker_sends(
    cli: Cli, tmp_path: Path, kind: str, language: str
) -> None:
    out = tmp_path / "page"
    done = cli(
        *("page", "--out", str(out), "--format", kind, "--message", "Back <soon>"),
        *("--until", END.isoformat(), "--retry-after", "120", "--language", language),
    )

    assert (done.code, done.out, done.err) == (0, "", "")
    assert out.read_bytes() == answer_of_worker(
        tmp_path, ACCEPT[kind], language, message="Back <soon>", ends_at=END, retry_after=120
    )


def test_page_without_options_is_printed(cli: Cli, tmp_path: Path) -> None:
    done = cli("page")

    assert done.out.encode() == answer_of_worker(tmp_path, "text/html", "en")
    assert TRANSLATIONS["en"].message in done.out


def whole(cli: Cli, out: Path, *options: str) -> tuple[str, dict[str, str], bytes]:
    """Return status line, headers and body of `--format http`."""
    assert cli("page", "--format", "http", "--out", str(out), *options).code == 0
    head, _, body = out.read_bytes().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


def test_page_as_http_is_a_whole_response(cli: Cli, tmp_path: Path) -> None:
    status, headers, body = whole(cli, tmp_path / "503.http")

    assert status == "HTTP/1.1 503 Service Unavailable"
    assert headers["retry-after"] == "60"
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'sha256-" in headers["content-security-policy"]
    assert int(headers["content-length"]) == len(body)
    assert body == cli("page").out.encode()
    # HAProxy takes no file that is longer than its buffer, less what it reserves for headers.
    assert (tmp_path / "503.http").stat().st_size < 16384 - 1024


def test_page_as_http_with_an_end_names_it_as_date(cli: Cli, tmp_path: Path) -> None:
    _, headers, _ = whole(cli, tmp_path / "503.http", "--until", END.isoformat())

    late = parsedate_to_datetime(headers["retry-after"]) - END
    assert timedelta(0) <= late <= timedelta(seconds=2)  # what the roundings up may add


def test_problem_retries_after_a_minute_by_default(cli: Cli) -> None:
    assert json.loads(cli("page", "--format", "problem").out)["retry_after"] == 60


def test_page_replaces_a_file_and_keeps_its_rights(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "maintenance.html"
    out.write_text("old")
    out.chmod(0o640)

    assert cli("page", "--out", str(out)).code == 0
    assert out.read_text().startswith("<!doctype html>")
    assert out.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == [out.name]


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("--out", "/nowhere/at/all"), 1, "--out must be a file that can be written, got /now"),
        (("--language", "xx"), 2, "language must be one of en, de"),
        (("--until", "2020-01-01T00:00Z"), 2, "must be in the future"),
        (("--until", "soon"), 2, "must be a time like 04:00"),
        (("--retry-after", "-1"), 2, "Invalid value for '--retry-after'"),
        (("--format", "xml"), 2, "Invalid value for '--format'"),
    ],
)
def test_page_with_a_wrong_option_says_so(
    cli: Cli, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    done = cli("page", *arguments)

    assert (done.code, done.out) == (code, "")
    assert problem in " ".join(done.err.split())
