"""What a client prefers, by RFC 9110 and RFC 4647."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.model.state import ON
from fastapi_maintenance.responses.negotiation import negotiate, negotiate_language, preferences
from fastapi_maintenance.responses.renderers import HTML, JSON, MEDIA_TYPES, PLAIN, PROBLEM
from fastapi_maintenance.responses.response import MaintenanceResponse

from ..support.asgi import exchange, http_scope
from ..support.counting import lines_run
from .asking import CHROME, FIREFOX


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
def test_media_type_preferred_by_client_is_chosen(accept: str, chosen: str) -> None:
    assert negotiate(accept, (JSON, HTML)) == chosen


def test_media_type_without_preference_is_first_offer() -> None:
    """So a further format is one more line in a table."""
    offers = ("text/plain", JSON, HTML)
    assert negotiate("", offers) == "text/plain"
    assert negotiate("text/*", offers) == "text/plain"
    assert negotiate("*/*;q=0.1, application/json", offers) == JSON


@given(st.text(max_size=200) | st.text(alphabet='texhmlapicjson/*;,q=01. "\\', max_size=200))
def test_media_type_of_any_header_is_an_offer(accept: str) -> None:
    assert negotiate(accept, (JSON, HTML)) in (JSON, HTML)


RANGES: Final = (JSON, "application/*", HTML, "text/*", "*/*")


@given(st.dictionaries(st.sampled_from(RANGES), st.integers(0, 1000)), st.randoms())
def test_media_type_weights_follow_rfc_9110(weights: dict[str, int], random: Any) -> None:
    def quality(media_type: str) -> tuple[int, int]:
        matching = [
            name
            for name in RANGES
            if name in (media_type, media_type.split("/")[0] + "/*", "*/*") and name in weights
        ]
        if not matching:
            return 0, 0
        precise = min(matching, key=lambda name: name.count("*"))
        return weights[precise], -precise.count("*") if weights[precise] else 0

    ranges = [f"{name};q={weight / 1000:.3f}" for name, weight in weights.items()]
    random.shuffle(ranges)
    wanted = HTML if quality(HTML) > quality(JSON) else JSON
    assert negotiate(", ".join(ranges), (JSON, HTML)) == wanted


# -- among all that there are ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json, text/plain, */*", JSON),  # axios
        ("application/json, application/problem+json", JSON),  # a tie
        ("application/problem+json", PROBLEM),
        ("application/problem+json, application/json;q=0.9", PROBLEM),
        ("application/problem+json, */*", PROBLEM),
        ("application/*", JSON),
        (CHROME, HTML),
        (FIREFOX, HTML),
        ("text/*", HTML),
        ("text/plain", PLAIN),
        ("text/plain, */*;q=0.1", PLAIN),
        ("text/plain;q=0.9, text/html;q=0.1", PLAIN),
        ("text/event-stream", JSON),  # none is acceptable
    ],
)
def test_media_type_of_four_formats_is_preferred_one(accept: str, chosen: str) -> None:
    assert negotiate(accept, MEDIA_TYPES) == chosen


# -- languages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept_language", "chosen"),
    [
        ("", "en"),
        ("*", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("de-CH-1901, de;q=0.9", "de"),
        ("fr;q=0.5, de;q=0.8", "de"),
        ("fr, de", "fr"),  # of equals, the first named
        ("de, fr", "de"),
        ("ja, de;q=0.5", "de"),  # the first that there is
        ("ja", "en"),
        ("ja, *;q=0.5, de;q=0.1", "en"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("de;q=0", "en"),
        ("pt-PT", "pt-BR"),  # better than a foreign language
        ("pt", "pt-BR"),
        ("pt-br", "pt-BR"),
        ("p", "en"),
        ("de;q=9, fr", "fr"),  # malformed from here on
        ("d e", "en"),
        ("-", "en"),
        ("-de", "en"),
        (";;,,-,", "en"),
    ],
)
def test_language_preferred_by_client_is_chosen(accept_language: str, chosen: str) -> None:
    assert negotiate_language(accept_language, ("en", "de", "fr", "pt-BR"), "en") == chosen


def test_language_unknown_is_default() -> None:
    assert negotiate_language("ja", ("en", "de"), "de") == "de"


@given(st.text(max_size=200) | st.text(alphabet="defrptBR-*;,q=01. ", max_size=200))
def test_language_of_any_header_is_known(accept_language: str) -> None:
    assert negotiate_language(accept_language, ("en", "de", "pt-BR"), "en") in ("en", "de", "pt-BR")


# -- work ------------------------------------------------------------------------------------------

LONG: Final = st.sampled_from(
    ["a,", "a;q=1,", ";", ",", "a-b-c-d-e-f-g-h-i,", "a;b;c;d,", "text/html;q=0.1,", '"', "\\", "x"]
)


@given(LONG, LONG, st.integers(0, 200))
@example("a,", "a,", 0)
@example("a-b-c-d-e-f-g-h-i,", "a;q=1,", 0)
def test_negotiation_any_header_needs_bounded_work(piece: str, other: str, start: int) -> None:
    header = (other * start + piece * 1024)[:1024]
    tags = [f"x{number}-Y" for number in range(30)]
    accepting = lines_run(lambda: negotiate(header, MEDIA_TYPES))
    speaking = lines_run(lambda: negotiate_language(header, tags, "en"))
    assert accepting <= 32 * 60
    assert speaking <= 30 * 4 + 32 * 100


def test_negotiation_ranges_beyond_the_32nd_are_ignored() -> None:
    assert negotiate("image/png," * 31 + "text/html", MEDIA_TYPES) == HTML
    assert negotiate("image/png," * 32 + "text/html", MEDIA_TYPES) == JSON
    assert negotiate_language("ja," * 32 + "de", ("en", "de"), "en") == "en"


# -- headers ---------------------------------------------------------------------------------------


def test_header_with_several_lines_is_one_list() -> None:
    lines = [
        ("accept", "application/json;q=0.5"),
        ("accept-language", "de"),
        ("accept", "text/html"),
        ("accept-language", "fr"),
    ]
    joined = b"application/json;q=0.5,text/html", b"de,fr", False
    assert preferences(http_scope(headers=lines)) == joined


async def test_header_over_limit_is_ignored() -> None:
    padding = "image/x-padding, " * 100
    response = MaintenanceResponse(ON)
    for accept in ("text/html", f"{padding}text/html", f"{padding}text/html", "text/html"):
        start, _ = await exchange(response, http_scope(headers={"accept": accept}))
        kind = dict(start["headers"])[b"content-type"]
        assert kind.startswith(b"text/html" if accept == "text/html" else b"application/json")
    assert len(response._preferred) == 2


def test_header_with_any_number_of_lines_is_bounded() -> None:
    accept, _, _ = preferences(http_scope(headers=[("accept", "a" * 100)] * 1000))
    assert 1024 < len(accept) < 1200
