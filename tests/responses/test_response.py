"""The answer during maintenance: to HTTP clients of every kind, and to WebSockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from starlette.datastructures import MutableHeaders
from starlette.types import Scope

from fastapi_maintenance.model.state import OFF, ON, MaintenanceState, Mode
from fastapi_maintenance.responses.content import DETAIL
from fastapi_maintenance.responses.options import ResponseOptions
from fastapi_maintenance.responses.renderers import HTML, JSON, MEDIA_TYPES, PLAIN, PROBLEM
from fastapi_maintenance.responses.response import MaintenanceResponse

from ..support.asgi import exchange, http_scope, websocket_scope
from .asking import CHROME, NOW, Page, accepting, ask, read, response_to

pytestmark = pytest.mark.anyio


# -- JSON ------------------------------------------------------------------------------------------


async def test_response_by_default_is_the_promised_one() -> None:
    start, headers, body = await ask(response_to(), http_scope())
    assert start["type"] == "http.response.start"
    assert start["status"] == 503
    assert body == b'{"detail":"Service temporarily unavailable due to maintenance"}'
    assert dict(headers) == {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "vary": "accept",
        "x-maintenance-mode": "full",
        "retry-after": "3600",
    }


async def test_response_message_replaces_default_detail() -> None:
    state = MaintenanceState(enabled=True, message='Zurück um "04:00" ⏰')
    _, headers, body = await ask(response_to(state), http_scope())
    assert body == '{"detail":"Zurück um \\"04:00\\" ⏰"}'.encode()
    assert headers["content-length"] == str(len(body))


async def test_response_empty_message_is_ignored() -> None:
    _, _, body = await ask(response_to(MaintenanceState(enabled=True, message="")), http_scope())
    assert json.loads(body) == {"detail": DETAIL}


@pytest.mark.parametrize("accept", MEDIA_TYPES)
async def test_response_never_shows_reason_or_author(accept: str) -> None:
    state = MaintenanceState(
        enabled=True, message="Back soon", reason="OPS-417 reindex", by="ana@ops"
    )
    start, _, body = await ask(response_to(state), http_scope(headers={"accept": accept}))
    assert b"Back soon" in body
    assert b"OPS-417" not in body + repr(start).encode()
    assert b"ana@ops" not in body + repr(start).encode()


@pytest.mark.parametrize("scope", [*map(accepting, MEDIA_TYPES), websocket_scope(denial=False)])
async def test_response_message_with_lone_surrogate_is_sent(scope: Scope) -> None:
    sent = await exchange(
        response_to(MaintenanceState(enabled=True, message="Back \ud83d soon")), scope
    )
    assert "Back" in repr(sent)


async def test_response_in_read_only_mode_says_so() -> None:
    read_only = MaintenanceState(enabled=True, mode="read-only")
    with_message = read_only.model_copy(update={"message": "Back at four"})
    _, headers, body = await ask(response_to(read_only), http_scope())
    assert json.loads(body) == {
        "detail": "Service temporarily read-only due to maintenance",
        "mode": "read-only",
    }
    assert headers["x-maintenance-mode"] == "read-only"
    assert json.loads(await read(response_to(with_message), http_scope())) == {
        "detail": "Back at four",
        "mode": "read-only",
    }
    assert (
        await read(response_to(with_message), accepting(PLAIN))
        == "Read-only for maintenance\nBack at four\n"
    )
    assert (
        Page((await ask(response_to(with_message), accepting(HTML)))[2]).texts["h1"]
        == "Read-only for maintenance"
    )


# -- problem details -------------------------------------------------------------------------------


async def test_problem_details_have_all_fields() -> None:
    end = NOW + timedelta(hours=1)
    state = MaintenanceState(
        enabled=True,
        message="Back at 04:00 UTC",
        ends_at=end.astimezone(timezone(timedelta(hours=9))),
    )
    start, headers, body = await ask(response_to(state), accepting(PROBLEM))
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    assert json.loads(body) == {
        "type": "urn:problem-type:maintenance",
        "title": "Down for maintenance",
        "status": start["status"],
        "detail": "Back at 04:00 UTC",
        "mode": "full",
        "ends_at": "2026-11-22T04:00:00Z",
        "retry_after": 3600,
    }


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (
            datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))),
            "9999-12-31T23:59:59",
        ),
        (datetime(1, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), "0001-01-01T00:00:00"),
    ],
)
async def test_problem_details_end_beyond_calendar_is_clamped(end: datetime, told: str) -> None:
    problem = json.loads(
        await read(response_to(MaintenanceState(enabled=True, ends_at=end)), accepting(PROBLEM))
    )
    assert problem["ends_at"].startswith(told)


async def test_problem_details_omit_unknown_end() -> None:
    assert json.loads(await read(response_to(), accepting(PROBLEM))) == {
        "type": "urn:problem-type:maintenance",
        "title": "Down for maintenance",
        "status": 503,
        "detail": DETAIL,
        "mode": "full",
        "retry_after": 3600,
    }


async def test_problem_details_type_and_status_are_configurable() -> None:
    state = MaintenanceState(enabled=True, mode="read-only")
    response = response_to(
        state, read_only_status_code=423, problem_type="https://example.com/maintenance"
    )
    start, _, body = await ask(response, accepting(PROBLEM))
    problem = json.loads(body)
    assert (problem["type"], problem["title"]) == (
        "https://example.com/maintenance",
        "Read-only for maintenance",
    )
    assert problem["status"] == start["status"] == 423


@pytest.mark.parametrize(
    ("status", "title"),
    [(503, "Service Unavailable"), (423, "Locked"), (599, "Down for maintenance")],
)
async def test_problem_details_without_type_have_phrase(status: int, title: str) -> None:
    response = response_to(
        MaintenanceState(enabled=True), status_code=status, problem_type="about:blank"
    )
    _, _, body = await ask(response, accepting(PROBLEM))
    assert json.loads(body)["title"] == title


async def test_problem_details_seconds_equal_header_with_jitter() -> None:
    response = response_to(
        MaintenanceState(enabled=True, ends_at=NOW + timedelta(seconds=60)), jitter=1000
    )
    seen = set()
    for _ in range(30):
        _, headers, body = await ask(response, accepting(PROBLEM))
        assert headers["content-length"] == str(len(body))
        assert json.loads(body)["retry_after"] == int(headers["retry-after"])
        seen.add(headers["retry-after"])
    assert len(seen) > 5


# -- plain text ------------------------------------------------------------------------------------


async def test_plain_text_has_few_lines() -> None:
    state = MaintenanceState(
        enabled=True, message="Moving <b>house</b>", ends_at=NOW + timedelta(hours=1)
    )
    _, headers, body = await ask(response_to(state), accepting(PLAIN))
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert (
        body.decode()
        == "Down for maintenance\nMoving <b>house</b>\nExpected end: 2026-11-22 04:00 UTC\n"
    )


@pytest.mark.parametrize("media_type", [HTML, PLAIN])
async def test_page_language_follows_client(media_type: str) -> None:
    _, headers, body = await ask(
        response_to(), accepting(media_type, accept_language="de-AT, en;q=0.5")
    )
    assert headers["content-language"] == "de"
    assert headers["vary"] == "accept, accept-language"
    assert "Wartungsarbeiten" in body.decode()


@pytest.mark.parametrize("media_type", [JSON, PROBLEM])
async def test_json_is_the_same_in_every_language(media_type: str) -> None:
    response = response_to()
    plain = await ask(response, accepting(media_type))
    assert await ask(response, accepting(media_type, accept_language="de")) == plain
    assert "content-language" not in plain[1]


# -- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_response_in_every_format_is_marked_and_not_stored(media_type: str) -> None:
    _, headers, _ = await ask(response_to(), accepting(media_type))
    assert headers["content-type"].partition(";")[0] == media_type
    assert headers["x-maintenance-mode"] == "full"
    assert headers["cache-control"] == "no-store"
    assert headers["vary"].startswith("accept")
    assert headers["retry-after"] == "3600"


@pytest.mark.parametrize(("milliseconds", "seconds"), [(0, 1795320000), (1, 1795320001)])
async def test_mode_header_has_end_as_structured_date(milliseconds: int, seconds: int) -> None:
    end = datetime(2026, 11, 22, 4, 0, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    state = MaintenanceState(enabled=True, mode="read-only", ends_at=end)
    _, headers, body = await ask(response_to(state), accepting(PROBLEM))
    assert headers["x-maintenance-mode"] == f"read-only;ends_at=@{seconds}"
    assert datetime.fromisoformat(json.loads(body)["ends_at"]).timestamp() == seconds


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_response_headers_are_exposed_across_origins(media_type: str) -> None:
    _, headers, _ = await ask(response_to(), accepting(media_type, origin="https://app.test"))
    assert headers["access-control-expose-headers"] == "retry-after, x-maintenance-mode"
    assert (
        "access-control-expose-headers" not in (await ask(response_to(), accepting(media_type)))[1]
    )


async def test_custom_headers_replace_all_but_vary() -> None:
    own = {
        "X-Status-Page": "https://status.example.com",
        "Cache-Control": "private, no-store",
        "Vary": "Cookie",
    }
    _, headers, _ = await ask(response_to(headers=own), http_scope())
    assert headers["x-status-page"] == "https://status.example.com"
    assert headers.getlist("cache-control") == ["private, no-store"]
    assert headers.getlist("vary") == ["accept", "Cookie"]


async def test_custom_header_names_are_lower_case() -> None:
    start, _, _ = await ask(response_to(headers={"X-Status-Page": "é"}), http_scope())
    assert (b"x-status-page", b"\xe9") in start["headers"]


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_refresh_header_is_for_html_only(media_type: str) -> None:
    _, headers, _ = await ask(response_to(refresh=30), accepting(media_type))
    assert headers.get("refresh") == ("30" if media_type == HTML else None)


async def test_refresh_header_is_absent_in_read_only_mode() -> None:
    response = response_to(MaintenanceState(enabled=True, mode="read-only"), refresh=30)
    assert "refresh" not in (await ask(response, accepting(HTML)))[1]


# -- status codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "options", "status"),
    [
        ("full", {}, 503),
        ("full", {"status_code": 200}, 200),
        ("full", {"read_only_status_code": 423}, 503),
        ("read-only", {}, 503),
        ("read-only", {"status_code": 500}, 500),
        ("read-only", {"read_only_status_code": 423}, 423),
        ("read-only", {"status_code": 500, "read_only_status_code": 405}, 405),
    ],
)
async def test_status_is_configurable(mode: Mode, options: dict[str, int], status: int) -> None:
    state = MaintenanceState(enabled=True, mode=mode)
    for media_type in MEDIA_TYPES:
        assert (await ask(response_to(state, NOW, **options), accepting(media_type)))[0][
            "status"
        ] == status


async def test_status_405_has_allow_header() -> None:
    response = response_to(
        MaintenanceState(enabled=True, mode="read-only"), read_only_status_code=405
    )
    assert (await ask(response, http_scope("POST")))[1]["allow"] == "GET, HEAD, OPTIONS, TRACE"


# -- redirect --------------------------------------------------------------------------------------

STATUS_PAGE = "https://status.example.com/now?of=shop"


async def test_redirect_is_for_html_clients_only() -> None:
    response = response_to(redirect=STATUS_PAGE, headers={"X-By": "us"})
    start, headers, body = await ask(response, accepting(CHROME))
    assert (start["status"], body) == (302, b"")
    assert dict(headers) == {
        "location": STATUS_PAGE,
        "content-length": "0",
        "vary": "accept",
        "cache-control": "no-store",
        "x-maintenance-mode": "full",
        "x-by": "us",
    }
    for media_type in (JSON, PROBLEM, PLAIN):
        start, headers, _ = await ask(response, accepting(media_type))
        assert start["status"] == 503
        assert "location" not in headers


async def test_redirect_has_no_retry_after() -> None:
    state = MaintenanceState(enabled=True, ends_at=NOW + timedelta(hours=1))
    assert (
        "retry-after"
        not in (await ask(response_to(state, redirect=STATUS_PAGE), accepting(HTML)))[1]
    )


@pytest.mark.parametrize(
    ("redirect", "more", "status"),
    [
        ("/items", {}, 503),
        ("/items?lang=de#top", {}, 503),
        ("/items", {"root_path": "/api"}, 503),
        ("/api/items", {"root_path": "/api"}, 503),
        ("https://shop.test/items", {}, 503),
        ("https://other.test/items", {}, 302),
        ("/other", {}, 302),
        ("/", {}, 302),
    ],
)
async def test_redirect_to_requested_page_is_not_sent(
    redirect: str, more: dict[str, str], status: int
) -> None:
    scope = http_scope(headers={"accept": HTML, "host": "shop.test"}, **more)
    assert (await ask(response_to(redirect=redirect), scope))[0]["status"] == status


@pytest.mark.parametrize("host", ["shop.example", "SHOP.example:80", "shop.example:443"])
@pytest.mark.parametrize("first", ["/items", "/a/b"])
@pytest.mark.parametrize(
    "redirect",
    [
        "/d%C3%B6wn",
        "/d%c3%b6wn",
        "/%64own",
        "http://Shop.Example/down",
        "HTTP://shop.example/down",
        "http://shop.example:80/down",
        "http://shop.example:/down",
        "https://shop.example:443/down",
        "https://shop.example/down",
        "http://shop.example./down",
        "http://ana@shop.example/down",
        "http://shop.example",
        "http://shop.example?now",
        "//shop.example/down",
        "down",
        "./down",
        "../down",
        "/a/../down",
        "/./down",
        "/a/%2e%2e/down",
        "/%2e/down",
        "/../down",
        "/down?from=here#now",
        "/down/",
    ],
)
async def test_redirect_to_gated_page_is_followed_once(
    redirect: str, host: str, first: str
) -> None:
    """A browser resolves the target and asks for it, at the same application."""
    response, url, statuses = response_to(redirect=redirect), f"http://{host}{first}", []
    for _ in range(3):
        path = unquote(urlsplit(url).path) or "/"
        start, headers, _ = await ask(
            response, http_scope(headers={"accept": HTML, "host": host}, path=path)
        )
        statuses.append(start["status"])
        url = urljoin(url, headers.get("location", ""))
    assert statuses == [302, 503, 503]


async def test_redirect_stops_when_a_router_adds_the_slash() -> None:
    """`/down` is answered by the application itself, which sends to `/down/`; that is gated."""
    scope = http_scope(headers={"accept": HTML, "host": "shop.example"}, path="/down/")
    assert (await ask(response_to(redirect="/down"), scope))[0]["status"] == 503


OTHERS = [
    "http://shop.example:8080/down",
    "http://shop.example.org/down",
    "http://[::1]/down",
    "/down/x",
    "/Down",
    "//other/down",
]


@pytest.mark.parametrize("redirect", OTHERS)
async def test_redirect_to_another_page_is_sent(redirect: str) -> None:
    scope = http_scope(headers={"accept": HTML, "host": "shop.example"}, path="/down")
    assert (await ask(response_to(redirect=redirect), scope))[0]["status"] == 302


async def test_redirect_to_an_ipv6_host_stops_there() -> None:
    scope = http_scope(headers={"accept": HTML, "host": "[::1]"}, path="/down")
    assert (await ask(response_to(redirect="http://[::1]:80/down"), scope))[0]["status"] == 503


# -- methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", MEDIA_TYPES)
async def test_head_gets_headers_of_get_without_body(accept: str) -> None:
    of_get, _, body = await ask(response_to(), http_scope(headers={"accept": accept}))
    of_head, _, nothing = await ask(response_to(), http_scope("HEAD", {"accept": accept}))
    assert of_head == of_get
    assert body
    assert nothing == b""


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
)
async def test_other_methods_are_answered_like_get(method: str) -> None:
    preflight = {"origin": "https://app.test", "access-control-request-method": "POST"}
    assert await exchange(response_to(), http_scope(method, preflight)) == await exchange(
        response_to(), http_scope("GET", preflight)
    )


# -- Retry-After -----------------------------------------------------------------------------------


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
async def test_retry_after_follows_state(state: MaintenanceState, seconds: str) -> None:
    assert (await ask(response_to(state), http_scope()))[1]["retry-after"] == seconds


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        (ON, "60"),
        (MaintenanceState(enabled=True, retry_after=120), "120"),
        (MaintenanceState(enabled=True, ends_at=NOW + timedelta(seconds=90)), "90"),
    ],
)
async def test_retry_after_default_is_configurable(state: MaintenanceState, seconds: str) -> None:
    assert (await ask(response_to(state, retry_after=60), http_scope()))[1][
        "retry-after"
    ] == seconds


@pytest.mark.parametrize(
    ("state", "now", "date"),
    [
        (ON, NOW, "Sun, 22 Nov 2026 04:00:00 GMT"),
        (
            MaintenanceState(enabled=True, ends_at=NOW + timedelta(minutes=90)),
            NOW,
            "Sun, 22 Nov 2026 04:30:00 GMT",
        ),
        (
            MaintenanceState(enabled=True, ends_at=NOW - timedelta(minutes=90)),
            NOW,
            "Sun, 22 Nov 2026 03:00:00 GMT",
        ),
    ],
)
async def test_retry_after_as_date_is_http_date(
    state: MaintenanceState, now: datetime, date: str
) -> None:
    _, headers, body = await ask(
        response_to(state, now, retry_after_as_date=True), accepting(PROBLEM)
    )
    assert headers["retry-after"] == date
    assert json.loads(body)["retry_after"] == max(
        0, (parsedate_to_datetime(date) - now).total_seconds()
    )


async def test_retry_after_counts_down_with_cached_body() -> None:
    now = NOW
    response = MaintenanceResponse(
        MaintenanceState(enabled=True, ends_at=NOW + timedelta(seconds=60)), lambda: now
    )
    _, before, body = await ask(response, http_scope())
    now += timedelta(seconds=45)
    _, after, same = await ask(response, http_scope())
    assert (before["retry-after"], after["retry-after"]) == ("60", "15")
    assert same is body


async def test_response_without_clock_uses_wall_clock() -> None:
    state = MaintenanceState(enabled=True, ends_at=datetime.now(UTC) + timedelta(seconds=1000))
    _, headers, _ = await ask(MaintenanceResponse(state), http_scope())
    assert 990 <= int(headers["retry-after"]) <= 1000


async def test_response_headers_are_not_shared_between_requests() -> None:
    response = response_to()
    start, headers, _ = await ask(response, http_scope())
    before = headers.items()
    MutableHeaders(raw=start["headers"])["set-cookie"] = "session=of-the-first-client"
    assert (await ask(response, http_scope()))[1].items() == before


# -- WebSockets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type"), [("*/*", JSON), (HTML, "text/html; charset=utf-8")]
)
async def test_websocket_is_denied_with_response(accept: str, content_type: str) -> None:
    start, headers, body = await ask(response_to(), websocket_scope({"accept": accept}))
    plain_start, plain_headers, plain_body = await ask(
        response_to(), http_scope(headers={"accept": accept})
    )
    assert start == {**plain_start, "type": "websocket.http.response.start"}
    assert (headers, body) == (plain_headers, plain_body)
    assert headers["content-type"] == content_type


async def test_websocket_denial_messages_have_extension_types() -> None:
    sent = await exchange(response_to(), websocket_scope())
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]


@pytest.mark.parametrize("extensions", [{}, None, {"tls": {}}])
async def test_websocket_without_denial_extension_is_closed(
    extensions: dict[str, Any] | None,
) -> None:
    sent = await exchange(response_to(), websocket_scope(denial=False, extensions=extensions))
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": DETAIL}]


async def test_websocket_without_extensions_is_closed() -> None:
    assert (await exchange(response_to(), websocket_scope(denial=False)))[0][
        "type"
    ] == "websocket.close"


@pytest.mark.parametrize(
    ("message", "reason"), [("ä" * 100, "ä" * 61), ("x" * 123, "x" * 123), ("x" * 124, "x" * 123)]
)
async def test_websocket_close_reason_is_truncated(message: str, reason: str) -> None:
    (close,) = await exchange(
        response_to(MaintenanceState(enabled=True, message=message)), websocket_scope(denial=False)
    )
    assert close["reason"] == reason
    assert len(reason.encode()) <= 123


# -- what a request costs --------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("end", [None, NOW + timedelta(hours=1)])
async def test_response_encodes_and_parses_once(
    monkeypatch: pytest.MonkeyPatch, media_type: str, end: datetime | None
) -> None:
    response = response_to(MaintenanceState(enabled=True, ends_at=end))
    first = await ask(response, accepting(media_type, accept_language="de"))

    def fail(*args: Any) -> Any:
        raise AssertionError("a second time")

    monkeypatch.setattr(ResponseOptions, "render", fail)
    for name in ("negotiate", "negotiate_language"):
        monkeypatch.setattr(f"fastapi_maintenance.responses.response.{name}", fail)
    assert await ask(response, accepting(media_type, accept_language="de")) == first
    with pytest.raises(AssertionError, match="a second time"):
        await ask(response, accepting(media_type, accept_language="fr"))


async def test_response_cache_of_clients_is_bounded() -> None:
    response = response_to()
    for number in range(1000):
        await ask(response, accepting(f"image/{number}", accept_language=f"x{number}"))
    assert len(response._preferred) <= 256
    assert len(response._encoded) == 1


async def test_response_cache_of_times_is_bounded() -> None:
    now = NOW
    response = MaintenanceResponse(
        MaintenanceState(enabled=True, ends_at=NOW + timedelta(seconds=100)), lambda: now
    )
    for left in range(100, 0, -1):
        _, headers, _ = await ask(response, http_scope())
        assert headers["retry-after"] == str(left)
        assert response._timed.cache_info().currsize <= 64
        now += timedelta(seconds=1)
