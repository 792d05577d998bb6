"""Pages of the user's own: templates and files, read when the application starts."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.concurrency import run_in_threadpool

from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.model.state import MaintenanceState
from fastapi_maintenance.responses.options import ResponseOptions
from fastapi_maintenance.responses.renderers import HTML, JSON
from fastapi_maintenance.responses.response import MaintenanceResponse

from .asking import NOW, accepting, ask, read, response_to

pytestmark = pytest.mark.anyio

STATE = MaintenanceState(
    enabled=True, message="Until <4>", ends_at=NOW + timedelta(hours=1), reason="OPS-417", by="ana"
)


async def responding(state: MaintenanceState, **options: Any) -> MaintenanceResponse:
    """An answer with a page from a disk, which is read where applications are made: outside of the
    event loop.
    """
    return await run_in_threadpool(response_to, state, **options)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template that extends the one beside it."""
    (tmp_path / "base.html").write_text(
        "<html lang={{ language }}><h1>{{ title }}</h1>{% block body %}{% endblock %}"
    )
    page = tmp_path / "page.html"
    page.write_text(
        '{% extends "base.html" %}{% block body %}{{ message }}|{{ mode }}|{{ translation.waiting '
        "}}"
        '{% if ends_at %}|{{ ends_at.strftime("%H:%M") }}{% endif %}{% endblock %}'
    )
    return page


async def test_template_is_rendered_with_escaped_content(template: Path) -> None:
    _, headers, body = await ask(
        await responding(STATE, template=template), accepting(HTML, accept_language="de")
    )
    assert body.decode() == (
        "<html lang=de><h1>Wartungsarbeiten</h1>Until &lt;4&gt;|full|"
        "Diese Seite kommt von selbst zurück, sobald der Dienst wieder da ist.|04:00"
    )
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["vary"] == "accept, accept-language"
    assert "content-security-policy" not in headers
    assert (await ask(await responding(STATE, template=template), accepting(JSON)))[1][
        "content-type"
    ] == JSON


async def test_template_is_rendered_once_per_state(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = await responding(STATE, template=str(template))
    template.unlink()
    first = await read(response, accepting(HTML))
    monkeypatch.setattr("jinja2.Template.render", None)
    assert await read(response, accepting(HTML)) == first


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be used: TemplateNotFound"),
        ("{% if %}", "cannot be used: TemplateSyntaxError"),
        ("{{ mesage }}", "cannot be used: UndefinedError: 'mesage' is undefined"),
        ("{% if ends_at %}{{ ends_at.hours }}{% endif %}", "has no attribute 'hours'"),
        ('{% extends "nowhere.html" %}', "cannot be used: TemplateNotFound: "),
    ],
)
def test_template_invalid_is_refused_at_start(
    tmp_path: Path, text: str | None, complaint: str
) -> None:
    page = tmp_path / "page.html"
    if text is not None:
        page.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        ResponseOptions(template=page)
    assert complaint in str(refused.value)
    assert str(page) in str(refused.value)


async def test_template_failing_later_is_replaced_by_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = tmp_path / "page.html"
    page.write_text("{% if message == 'odd' %}{{ 1 / 0 }}{% endif %}fine")
    response = await responding(MaintenanceState(enabled=True, message="odd"), template=page)
    assert await read(await responding(STATE, template=page), accepting(HTML)) == "fine"
    for _ in range(3):
        start, _, body = await ask(response, accepting(HTML))
        assert start["status"] == 503
        assert b"<h1>Down for maintenance</h1>" in body
    (record,) = caplog.records
    assert "ZeroDivisionError" in record.message


def test_template_without_jinja2_names_extra(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        ConfigurationError, match=r"pip install 'fastapi-maintenance-cluster\[jinja2\]'.*file="
    ):
        ResponseOptions(template=template)


async def test_file_is_sent_as_at_start(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(b"<!doctype html>{{ not a template }} \xff")
    response = await responding(STATE, file=page)
    page.write_text("changed")
    _, headers, body = await ask(response, accepting(HTML, accept_language="de"))
    assert body == b"<!doctype html>{{ not a template }} \xff"
    assert headers["vary"] == "accept"
    assert "content-language" not in headers
    assert headers["retry-after"] == "3600"


@pytest.mark.parametrize("name", ["missing.html", "."])
def test_file_unreadable_is_refused_at_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"file='.*' cannot be read: "):
        ResponseOptions(file=tmp_path / name)


@pytest.mark.parametrize("option", ["template", "file"])
@pytest.mark.parametrize("value", [1, b"page.html", ["page.html"]])
def test_file_without_path_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be a path"):
        ResponseOptions(**{option: value})


def test_options_with_template_compare_and_print(template: Path) -> None:
    assert ResponseOptions(template=template) == ResponseOptions(template=template)
    assert "_page" not in repr(ResponseOptions(template=template))
