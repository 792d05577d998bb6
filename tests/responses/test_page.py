"""The page as text; how browsers show it is tested in tests/browser."""

from __future__ import annotations

import html
import re
from base64 import b64encode
from datetime import timedelta
from hashlib import sha256

import pytest

from fastapi_maintenance.model.state import MaintenanceState
from fastapi_maintenance.responses.renderers import HTML
from fastapi_maintenance.responses.translations import Translation

from .asking import NOW, Page, accepting, ask, read, response_to

pytestmark = pytest.mark.anyio

ODD = Translation(
    title="<Title>",
    message="<Message>",
    read_only_title="<Read-only>",
    read_only_message="<Read-only message>",
    until="<i>{time}</i> {0}",
    waiting="<Waiting>",
)


async def test_page_every_text_is_escaped() -> None:
    state = MaintenanceState(enabled=True, ends_at=NOW + timedelta(hours=1))
    page = await read(response_to(state, translations={"en": ODD}), accepting(HTML))
    for text in ("<Title>", "<Message>", "<Waiting>"):
        assert text not in page
        assert html.escape(text) in page
    assert (
        '&lt;i&gt;<time datetime="2026-11-22T04:00:00Z">2026-11-22 04:00 UTC</time>&lt;/i&gt; {0}'
        in page
    )
    message = '<script src="//x.test/x.js"></script>$title {title}'
    page = await read(response_to(MaintenanceState(enabled=True, message=message)), accepting(HTML))
    assert html.escape(message) in page


async def test_page_fetches_nothing_and_has_no_inline_attributes() -> None:
    state = MaintenanceState(enabled=True, ends_at=NOW)
    tags = Page((await ask(response_to(state), accepting(HTML)))[2]).tags
    attributes = [(name, value) for _, pairs in tags for name, value in pairs.items()]
    assert [
        value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")
    ] == ["data:,"]
    assert not [name for name, _ in attributes if name == "style" or name.startswith("on")]
    assert "url(" not in (await read(response_to(state), accepting(HTML)))


async def test_page_policy_allows_exactly_its_style_and_script() -> None:
    _, headers, body = await ask(response_to(), accepting(HTML))
    policy = dict(
        part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
    )
    for directive, tag in (("style-src", b"style"), ("script-src", b"script")):
        (inline,) = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), body, re.DOTALL)
        assert policy[directive] == f"'sha256-{b64encode(sha256(inline).digest()).decode()}'"
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]


async def test_page_markup_is_accessible() -> None:
    _, _, body = await ask(response_to(), accepting(HTML, accept_language="ar"))
    page = Page(body)
    assert body.startswith(b"<!doctype html>\n")
    assert ("html", {"lang": "ar", "dir": "rtl"}) in page.tags
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert (
        "meta",
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
    ) in page.tags
    assert page.texts["title"] == page.texts["h1"] == "الخدمة قيد الصيانة"
    assert [tag for tag, _ in page.tags].count("main") == 1


async def test_page_is_small() -> None:
    """It is asked for most when a service has least to spare; bytes, before any compression."""
    assert len((await ask(response_to(), accepting(HTML)))[2]) < 8_000
