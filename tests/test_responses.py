"""The answer during maintenance: to HTTP clients of every kind, and to WebSockets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any, Final

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import WSProtocolType
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance.responses import DETAIL, MaintenanceResponse, fit, negotiate
from fastapi_maintenance.state import OFF, ON, MaintenanceState

from .asgi import exchange, http_scope, websocket_scope
from .serving import WEBSOCKETS, serving

pytestmark = pytest.mark.anyio

JSON: Final = "application/json"
HTML: Final = "text/html"
NOW: Final = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
CHROME: Final = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def response_to(state: MaintenanceState = ON, now: datetime = NOW) -> MaintenanceResponse:
    """The answer for a state while the clock stands still."""
    return MaintenanceResponse(state, lambda: now)


async def ask(response: MaintenanceResponse, scope: Scope) -> tuple[Message, Headers, bytes]:
    """The start message, its headers, and the body."""
    start, body = await exchange(response, scope)
    assert not body.get("more_body", False)
    return start, Headers(raw=start["headers"]), body["body"]


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            tag = self.tags[-1][0]
            self.texts[tag] = self.texts.get(tag, "") + data


# -- JSON --------------------------------------------------------------------------------------------------------------


async def test_the_default_answer_is_exactly_the_promised_one() -> None:
    start, headers, body = await ask(response_to(), http_scope())
    assert start["type"] == "http.response.start"
    assert start["status"] == 503
    assert body == b'{"detail":"Service temporarily unavailable due to maintenance"}'
    assert dict(headers) == {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "vary": "accept",
        "retry-after": "3600",
    }


async def test_a_message_replaces_the_default_detail() -> None:
    state = MaintenanceState(enabled=True, message='Zurück um "04:00" ⏰')
    _, headers, body = await ask(response_to(state), http_scope())
    assert body == '{"detail":"Zurück um \\"04:00\\" ⏰"}'.encode()
    assert headers["content-length"] == str(len(body))


async def test_an_empty_message_is_none() -> None:
    _, _, body = await ask(response_to(MaintenanceState(enabled=True, message="")), http_scope())
    assert json.loads(body) == {"detail": DETAIL}


@pytest.mark.parametrize("accept", [JSON, HTML])
async def test_reason_and_author_are_never_shown(accept: str) -> None:
    state = MaintenanceState(enabled=True, message="Back soon", reason="OPS-417 reindex", by="ana@ops")
    start, _, body = await ask(response_to(state), http_scope(headers={"accept": accept}))
    assert b"Back soon" in body
    assert b"OPS-417" not in body + repr(start).encode()
    assert b"ana@ops" not in body + repr(start).encode()


@pytest.mark.parametrize("scope", [http_scope(), http_scope(headers={"accept": HTML}), websocket_scope(denial=False)])
async def test_half_a_surrogate_pair_in_a_message_is_no_error(scope: Scope) -> None:
    sent = await exchange(response_to(MaintenanceState(enabled=True, message="Back \ud83d soon")), scope)
    assert "Back" in repr(sent)


# -- HTML --------------------------------------------------------------------------------------------------------------


async def test_who_prefers_html_gets_a_page_with_title_heading_and_message() -> None:
    state = MaintenanceState(enabled=True, message="Back at <b>04:00</b> & not {earlier}")
    start, headers, body = await ask(response_to(state), http_scope(headers={"accept": CHROME}))
    page = Page(body)
    assert start["status"] == 503
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-length"] == str(len(body))
    assert (headers["cache-control"], headers["vary"], headers["retry-after"]) == ("no-store", "accept", "3600")
    assert page.texts["title"] == page.texts["h1"] == "Down for maintenance"
    assert page.texts["p"] == "Back at <b>04:00</b> & not {earlier}"
    assert ("html", {"lang": "en"}) in page.tags
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert body.startswith(b"<!doctype html>\n")


async def test_the_page_loads_and_runs_nothing() -> None:
    """Also where a message tries to."""
    state = MaintenanceState(enabled=True, message='<script src="//x.test/x.js"></script><img src=x onerror=alert(1)>')
    _, _, body = await ask(response_to(state), http_scope(headers={"accept": HTML}))
    tags = Page(body).tags
    assert {tag for tag, _ in tags} == {"html", "head", "meta", "title", "body", "main", "h1", "p"}
    assert not {"src", "href", "style", "onerror"} & {name for _, attributes in tags for name in attributes}


async def test_the_page_has_the_default_message_without_another() -> None:
    _, _, body = await ask(response_to(), http_scope(headers={"accept": HTML}))
    assert Page(body).texts["p"] == DETAIL


# -- which of the two --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        ("application/json, text/plain, */*", JSON),  # axios
        ("application/*", JSON),
        ("image/png", JSON),  # neither is acceptable
        ("text/html;q=0, application/json;q=0", JSON),
        (CHROME, HTML),
        (FIREFOX, HTML),
        (HTML, HTML),
        ("TEXT/HTML", HTML),
        ("text/*", HTML),
        ("text/html;charset=utf-8", HTML),
        ("text/html, application/json", JSON),  # a tie
        ("text/html;q=0.5, application/json;q=0.5", JSON),
        ("text/html;q=0.50, application/json;q=0.5", JSON),
        ("text/html;q=0.9, application/json;q=0.8", HTML),
        ("text/html;q=0.8, application/json;q=0.9", JSON),
        ("text/html;q=0.001", HTML),
        ("text/html ; q=0.9 ,\tapplication/json ; Q=0.8", HTML),
        ("application/json;q=0, */*", HTML),  # the more precise range counts, also when it says no
        ("text/html;q=0, */*", JSON),
        ("application/json;q=0.1, */*;q=0.2", HTML),
        ("text/html, */*", HTML),  # named is preferred to swept along
        ("application/json, text/*", JSON),
        ("text/*, */*", HTML),
        ("text/html;q=0.9, */*", JSON),
        ("text/html;level=1, text/html;q=0.1, application/json;q=0.5", HTML),
        ('text/html;title="a,b;q=0", application/json;q=0.5', HTML),
        ('text/html;title="\\",";q=0.4, application/json;q=0.5', JSON),
        ('application/json;q=0.5, text/html;title="never closed', HTML),
        ("text/html;q=2", JSON),  # malformed from here on
        ("text/html;q=-1", JSON),
        ("text/html;q=", JSON),
        ("text/html;q", JSON),
        ("text/html;q=nan", JSON),
        ("text/html;q=0.1234", JSON),
        ("text/html;q=1.001", JSON),
        ("text/html;q=0,5", JSON),
        ("text/html;q=٠.٥", JSON),
        ("html", JSON),
        (";;;,,,", JSON),
        ('"', JSON),
        ('"\\', JSON),
        ("text/html garbage", JSON),
        ("text/html, ;q=1, garbage", HTML),
    ],
)
def test_the_media_type_is_the_one_the_client_prefers(accept: str, chosen: str) -> None:
    assert negotiate(accept, (JSON, HTML)) == chosen


def test_the_first_offer_is_the_default_whatever_it_is() -> None:
    """So a further format is one more line in a table."""
    offers = ("text/plain", JSON, HTML)
    assert negotiate("", offers) == "text/plain"
    assert negotiate("text/*", offers) == "text/plain"
    assert negotiate("*/*;q=0.1, application/json", offers) == JSON


@given(st.text(max_size=200) | st.text(alphabet='texhmlapicjson/*;,q=01. "\\', max_size=200))
def test_no_header_is_too_strange_to_be_answered(accept: str) -> None:
    assert negotiate(accept, (JSON, HTML)) in (JSON, HTML)


RANGES: Final = (JSON, "application/*", HTML, "text/*", "*/*")


@given(st.dictionaries(st.sampled_from(RANGES), st.integers(0, 1000)), st.randoms())
def test_any_weights_are_judged_as_rfc_9110_says(weights: dict[str, int], random: Any) -> None:
    def quality(media_type: str) -> tuple[int, int]:
        matching = [name for name in RANGES if name in (media_type, media_type.split("/")[0] + "/*", "*/*") and name in weights]
        if not matching:
            return 0, 0
        precise = min(matching, key=lambda name: name.count("*"))
        return weights[precise], -precise.count("*") if weights[precise] else 0

    ranges = [f"{name};q={weight / 1000:.3f}" for name, weight in weights.items()]
    random.shuffle(ranges)
    wanted = HTML if quality(HTML) > quality(JSON) else JSON
    assert negotiate(", ".join(ranges), (JSON, HTML)) == wanted


async def test_several_accept_lines_are_one_list() -> None:
    scope = http_scope(headers=[("accept", "application/json;q=0.5"), ("host", "x"), ("accept", "text/html")])
    assert (await ask(response_to(), scope))[1]["content-type"].startswith(HTML)


async def test_an_accept_header_longer_than_any_honest_one_is_not_read() -> None:
    padding = "image/x-padding, " * 100
    _, headers, _ = await ask(response_to(), http_scope(headers={"accept": f"{padding}text/html"}))
    assert headers["content-type"] == JSON


async def test_bytes_beyond_ascii_in_an_accept_header_are_no_error() -> None:
    scope = http_scope() | {"headers": [(b"accept", b"\xff\xfe, text/html")]}
    assert (await ask(response_to(), scope))[1]["content-type"].startswith(HTML)


# -- methods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [JSON, HTML])
async def test_head_gets_the_headers_of_get_and_no_body(accept: str) -> None:
    of_get, _, body = await ask(response_to(), http_scope(headers={"accept": accept}))
    of_head, _, nothing = await ask(response_to(), http_scope("HEAD", {"accept": accept}))
    assert of_head == of_get
    assert body
    assert nothing == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_every_other_method_is_answered_like_get(method: str) -> None:
    preflight = {"origin": "https://app.test", "access-control-request-method": "POST"}
    assert await exchange(response_to(), http_scope(method, preflight)) == await exchange(response_to(), http_scope())


# -- Retry-After -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        (ON, "3600"),
        (OFF, "3600"),
        (MaintenanceState(enabled=True, retry_after=120), "120"),
        (MaintenanceState(enabled=True, retry_after=0), "0"),
        (MaintenanceState(enabled=True, retry_after=120, ends_at=NOW + timedelta(hours=1)), "120"),
        (MaintenanceState(enabled=True, ends_at=NOW + timedelta(seconds=90, milliseconds=1)), "91"),
        (MaintenanceState(enabled=True, ends_at=NOW - timedelta(hours=1)), "0"),
    ],
)
async def test_retry_after_says_what_the_state_knows(state: MaintenanceState, seconds: str) -> None:
    assert (await ask(response_to(state), http_scope()))[1]["retry-after"] == seconds


async def test_retry_after_counts_down_while_the_body_stays_the_same_object() -> None:
    now = NOW
    response = MaintenanceResponse(MaintenanceState(enabled=True, ends_at=NOW + timedelta(seconds=60)), lambda: now)
    _, before, body = await ask(response, http_scope())
    now += timedelta(seconds=45)
    _, after, same = await ask(response, http_scope())
    assert (before["retry-after"], after["retry-after"]) == ("60", "15")
    assert same is body


async def test_without_a_clock_it_goes_by_the_wall_clock() -> None:
    state = MaintenanceState(enabled=True, ends_at=datetime.now(UTC) + timedelta(seconds=1000))
    _, headers, _ = await ask(MaintenanceResponse(state), http_scope())
    assert 990 <= int(headers["retry-after"]) <= 1000


async def test_what_an_outer_middleware_adds_to_one_answer_is_not_in_the_next() -> None:
    response = response_to()
    start, headers, _ = await ask(response, http_scope())
    before = headers.items()
    MutableHeaders(raw=start["headers"])["set-cookie"] = "session=of-the-first-client"
    assert (await ask(response, http_scope()))[1].items() == before


# -- WebSockets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accept", "content_type"), [("*/*", JSON), (HTML, "text/html; charset=utf-8")])
async def test_a_websocket_is_denied_with_the_same_answer_where_the_server_can(accept: str, content_type: str) -> None:
    start, headers, body = await ask(response_to(), websocket_scope({"accept": accept}))
    plain_start, plain_headers, plain_body = await ask(response_to(), http_scope(headers={"accept": accept}))
    assert start == {**plain_start, "type": "websocket.http.response.start"}
    assert (headers, body) == (plain_headers, plain_body)
    assert headers["content-type"] == content_type


async def test_the_parts_of_a_denial_are_typed_as_the_extension_wants_them() -> None:
    sent = await exchange(response_to(), websocket_scope())
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]


@pytest.mark.parametrize("extensions", [{}, None, {"tls": {}}])
async def test_a_websocket_is_closed_before_accept_where_the_server_cannot_deny_it(extensions: dict[str, Any] | None) -> None:
    sent = await exchange(response_to(), websocket_scope(denial=False, extensions=extensions))
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": DETAIL}]


async def test_a_server_that_speaks_of_no_extensions_has_none() -> None:
    assert (await exchange(response_to(), websocket_scope(denial=False)))[0]["type"] == "websocket.close"


@pytest.mark.parametrize(("message", "reason"), [("ä" * 100, "ä" * 61), ("x" * 123, "x" * 123), ("x" * 124, "x" * 123)])
async def test_a_reason_fits_the_control_frame_and_is_cut_between_characters(message: str, reason: str) -> None:
    (close,) = await exchange(response_to(MaintenanceState(enabled=True, message=message)), websocket_scope(denial=False))
    assert close["reason"] == reason
    assert len(reason.encode()) <= 123


# -- fit: for the answers that others make -----------------------------------------------------------------------------


async def sent_through_fit(scope: Scope, *messages: Message) -> list[Message]:
    """What remains of an answer's messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await fit(scope, send, code=1011, reason="Internal error")(message)

    return await exchange(app, scope)


STREAMED: Final[tuple[Message, ...]] = (
    {"type": "http.response.start", "status": 503, "headers": [(b"x-by", b"us")]},
    {"type": "http.response.body", "body": b"one", "more_body": True},
    {"type": "http.response.body", "body": b"two"},
)
DENIAL: Final[tuple[Message, ...]] = tuple({**message, "type": f"websocket.{message['type']}"} for message in STREAMED)


async def test_get_is_sent_as_it_is() -> None:
    assert await sent_through_fit(http_scope(), *STREAMED) == list(STREAMED)


async def test_no_chunk_of_a_body_is_sent_to_head() -> None:
    start, one, two = await sent_through_fit(http_scope("HEAD"), *STREAMED)
    assert start == STREAMED[0]
    assert one == {"type": "http.response.body", "body": b"", "more_body": True}
    assert two == {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize("messages", [STREAMED, DENIAL], ids=["plain", "prefixed"])
async def test_a_response_becomes_a_denial_where_the_server_can(messages: tuple[Message, ...]) -> None:
    assert await sent_through_fit(websocket_scope(), *messages) == list(DENIAL)


@pytest.mark.parametrize("messages", [STREAMED, DENIAL], ids=["plain", "prefixed"])
async def test_a_response_becomes_one_close_where_the_server_cannot_deny(messages: tuple[Message, ...]) -> None:
    sent = await sent_through_fit(websocket_scope(denial=False), *messages)
    assert sent == [{"type": "websocket.close", "code": 1011, "reason": "Internal error"}]


@pytest.mark.parametrize("denial", [True, False])
async def test_a_close_of_somebodys_own_stays_a_close(denial: bool) -> None:
    close = {"type": "websocket.close", "code": 4001, "reason": "mine"}
    assert await sent_through_fit(websocket_scope(denial=denial), close) == [close]


# -- by a real server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Where uvicorn answers everything with the maintenance response."""
    with serving(response_to(MaintenanceState(enabled=True, message="Back at 04:00 UTC", retry_after=120))) as address:
        yield address


def test_a_client_of_a_real_server_gets_json(server: str) -> None:
    reply = httpx2.get(f"http://{server}/items")
    assert reply.status_code == 503
    assert reply.json() == {"detail": "Back at 04:00 UTC"}
    assert reply.headers["retry-after"] == "120"
    assert reply.headers["cache-control"] == "no-store"


def test_a_browser_at_a_real_server_gets_the_page(server: str) -> None:
    reply = httpx2.get(f"http://{server}/items", headers={"accept": CHROME})
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "<p>Back at 04:00 UTC</p>" in reply.text


def test_head_and_what_follows_it_on_the_same_connection_are_right_at_a_real_server(server: str) -> None:
    with httpx2.Client(base_url=f"http://{server}") as client:
        head, get = client.head("/items"), client.get("/items")
        posted = client.post("/items", content=b"x" * 100_000)
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))
    assert (head.status_code, get.status_code, posted.status_code) == (503, 503, 503)


@pytest.mark.parametrize("ws", WEBSOCKETS)
def test_a_real_servers_websocket_client_sees_503(ws: WSProtocolType, caplog: pytest.LogCaptureFixture) -> None:
    with serving(response_to(), ws=ws) as address, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{address}/ws")
    reply = refused.value.response
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "3600"
    assert reply.headers["content-type"] == JSON
    assert json.loads(reply.body) == {"detail": DETAIL}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("ws", WEBSOCKETS)
def test_without_the_extension_a_real_servers_websocket_client_sees_403(ws: WSProtocolType, caplog: pytest.LogCaptureFixture) -> None:
    async def without_extensions(scope: Scope, receive: Receive, send: Send) -> None:
        await response_to()({**scope, "extensions": {}}, receive, send)

    with serving(without_extensions, ws=ws) as address, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{address}/ws")
    assert refused.value.response.status_code == 403
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
