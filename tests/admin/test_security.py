"""Access control: cross-site requests change nothing, and neither does GET."""

from __future__ import annotations

from typing import Any

import pytest

from ..support.doubles import Switchboard
from .conftest import ANY, Administer


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"}, 403),
        ({"Origin": "http://testserver"}, 200),
        ({"Origin": "https://TESTSERVER"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://testserver.evil.example"}, 403),
        ({"Origin": "http://testserver:8080"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[broken"}, 403),
    ],
)
def test_change_is_judged_by_site_and_origin(
    administer: Administer, headers: dict[str, str], expected: int
) -> None:
    board = Switchboard(True)
    answer = administer(board).delete("switch", headers=ANY | headers)

    assert answer.status_code == expected
    assert board.value is (expected != 200)


@pytest.mark.parametrize(
    "origin", [None, "https://evil.example"], ids=["curl", "script of another site"]
)
def test_delete_without_content_type_is_judged_by_origin(
    administer: Administer, origin: str | None
) -> None:
    """Forms cannot send DELETE, and browsers let no cross-site script send it without a
    preflight.
    """
    board = Switchboard(True)
    client = administer(board)
    del client.headers["Content-Type"]
    answer = client.delete("switch", headers=ANY | ({} if origin is None else {"Origin": origin}))

    assert (answer.status_code, board.value) == ((200, False) if origin is None else (403, True))


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
def test_body_that_is_not_json_is_refused(
    administer: Administer, content_type: str, expected: int
) -> None:
    """A cross-site form can send such bodies, from an old browser without Origin."""
    headers = ANY | {"Content-Type": content_type}
    answer = administer(Switchboard()).put("switch", content='{"enabled": false}', headers=headers)

    assert answer.status_code == expected


@pytest.mark.parametrize(
    ("method", "path", "options", "expected"),
    [
        ("GET", "state?component=nowhere", {}, 404),
        ("GET", "workers", {}, 501),
        ("DELETE", "switch", {}, 428),
        ("PUT", "switch", {"json": {"enabled": "maybe"}, "headers": ANY}, 422),
        ("PUT", "switch", {"json": {}, "headers": {"Origin": "https://evil.example"}}, 403),
        ("POST", "barrier", {"content": "x", "headers": {"Content-Type": "text/plain"}}, 415),
        ("PATCH", "switch", {}, 405),
    ],
)
def test_errors_are_never_cached(
    administer: Administer, method: str, path: str, options: dict[str, Any], expected: int
) -> None:
    answer = administer(Switchboard()).request(method, path, **options)

    assert (answer.status_code, answer.headers.get("cache-control")) == (expected, "no-store")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "switch"), ("DELETE", "switch"), ("POST", "bypasses"), ("POST", "barrier")],
)
def test_cross_site_form_is_refused_by_every_operation(
    administer: Administer, method: str, path: str
) -> None:
    form: dict[str, Any] = {
        "headers": {"Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"},
        "content": '{"enabled": true}',
    }

    assert administer(Switchboard()).request(method, path, **form).status_code == 403


def test_cross_site_get_is_answered_and_changes_nothing(administer: Administer) -> None:
    board = Switchboard(True)
    client = administer(board)
    for path in ("", "state", "switch", "holds", "components", "bypasses"):
        answer = client.get(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert board.value is True


def test_undeclared_methods_are_405(administer: Administer) -> None:
    client = administer(Switchboard())
    for method, path in (
        ("POST", "switch"),
        ("POST", "state"),
        ("GET", "barrier"),
        ("PUT", "bypasses"),
    ):
        assert client.request(method, path).status_code == 405
