"""Options that cannot be meant are refused when they are given, in a sentence that says what to
write.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.model.state import ON
from fastapi_maintenance.responses.options import ResponseOptions
from fastapi_maintenance.responses.translations import TRANSLATIONS, Translation


def test_options_valid_combination_is_accepted(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html>")
    ResponseOptions()
    ResponseOptions(
        status_code=500,
        read_only_status_code=405,
        headers={"X-By": "us"},
        file=page,
        retry_after=0,
        jitter=60,
        retry_after_as_date=True,
        refresh=30,
        translations={"fi": TRANSLATIONS["en"]},
        language="fi",
        problem_type="https://example.com/maintenance",
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"redirect": "/", "template": "a.html"}, "redirect= and template= exclude each other"),
        ({"redirect": "/", "file": "a.html"}, "redirect= and file= exclude each other"),
        ({"template": "a.html", "file": "a.html"}, "template= and file= exclude each other"),
        (
            {"redirect": "/", "template": "a.html", "file": "a.html"},
            "redirect= and template= and file= exclude each other",
        ),
        ({"status_code": 302}, "status_code must not be 3xx (give redirect= instead), got 302"),
        ({"read_only_status_code": 303}, "read_only_status_code must not be 3xx"),
        ({"status_code": 300}, "must not be 3xx"),
        ({"status_code": 399}, "must not be 3xx"),
        (
            {"status_code": 101},
            "status_code must be a status from 200 to 599 with a body, got 101",
        ),
        ({"status_code": 600}, "got 600"),
        ({"status_code": 204}, "got 204"),
        ({"status_code": "503"}, "got '503'"),
        ({"status_code": True}, "got True"),
        (
            {"read_only_status_code": 304},
            "read_only_status_code must be a status from 200 to 599 with a body, got 304",
        ),
        ({"headers": [("x", "y")]}, "headers must map names to values"),
        ({"headers": {"x y": "z"}}, "The name of a header must be a token, got 'x y'"),
        ({"headers": {"": "z"}}, "The name of a header must be a token, got ''"),
        ({"headers": {1: "z"}}, "The name of a header must be a token, got 1"),
        (
            {"headers": {"x": "a\r\nSet-Cookie: b"}},
            "The header x must be Latin-1 text",
        ),
        ({"headers": {"x": "a\n"}}, "The header x must be Latin-1 text"),
        ({"headers": {"x\n": "a"}}, "The name of a header must be a token, got"),
        ({"headers": {"x": "→"}}, "The header x must be Latin-1 text"),
        ({"headers": {"x": 1}}, "The header x must be Latin-1 text"),
        (
            {"headers": {"Retry-After": "1"}},
            "The header Retry-After must not be set: give retry_after=",
        ),
        ({"headers": {"Content-Length": "1"}}, "it follows from the body"),
        ({"headers": {"content-type": "text/css"}}, "it follows from what the client accepts"),
        ({"headers": {"LOCATION": "/"}}, "give redirect="),
        ({"headers": {"transfer-encoding": "chunked"}}, "it is the server's"),
        ({"retry_after": -1}, "retry_after must be whole seconds from 0 to 31536000, got -1"),
        ({"retry_after": 1.5}, "retry_after must be whole seconds from 0 to 31536000, got 1.5"),
        ({"retry_after": None}, "got None"),
        ({"jitter": -1}, "jitter must be whole seconds"),
        ({"jitter": 10**9}, "jitter must be whole seconds"),
        ({"refresh": 0}, "refresh must be whole seconds from 1 to 31536000, got 0"),
        ({"refresh": "30"}, "refresh must be whole seconds"),
        ({"retry_after_as_date": "no"}, "retry_after_as_date must be True or False, got 'no'"),
        (
            {"translations": {"de": "Wartung"}},
            "translations must be a mapping like",
        ),
        (
            {"translations": [TRANSLATIONS["de"]]},
            "translations must be a mapping like",
        ),
        (
            {"translations": {"de_AT": TRANSLATIONS["de"]}},
            "A language tag must be like fi or pt-BR, got 'de_AT'",
        ),
        ({"translations": {'"><script>': TRANSLATIONS["de"]}}, "A language tag must be like"),
        ({"language": "fi"}, "language must be one of en, de"),
        (
            {"redirect": "https://exämple.com"},
            "redirect must be a URL, percent-encoded unless it is ASCII",
        ),
        ({"redirect": "/a\r\nb"}, "redirect must be a URL"),
        ({"redirect": "http://[x/"}, "redirect must be a URL"),
        ({"redirect": ""}, "redirect must be a URL"),
        ({"redirect": 1}, "redirect must be a URL"),
        ({"problem_type": ""}, "problem_type must be a URL"),
        ({"problem_type": None}, "problem_type must be a URL"),
    ],
)
def test_options_invalid_value_is_refused_with_reason(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ResponseOptions(**options)
    assert complaint in str(refused.value)


ALL_WAYS: Final[dict[str, Any]] = {
    "status_code": 500,
    "headers": {"X-By": "us"},
    "redirect": "https://status.example/",
    "template": "page.html.jinja2",
    "file": "page.html",
    "response_handler": lambda request: PlainTextResponse("closed"),
}


def problem_with(given: Iterable[str]) -> str | None:
    """Why an application that is given these does not start; None if it does."""
    options = {name: ALL_WAYS[name] for name in given}
    handler = options.pop("response_handler", None)
    app = FastAPI()
    try:
        app.add_middleware(
            MaintenanceModeMiddleware,
            response=ResponseOptions(**options) if options else None,
            response_handler=handler,
        )
        with TestClient(app):
            return None
    except ConfigurationError as error:
        return str(error)


def test_options_exclusive_pages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all of them together, and of every other combination."""
    monkeypatch.chdir(tmp_path)
    for page in ("page.html", "page.html.jinja2"):
        Path(page).write_text("<!doctype html>")
    for number in range(len(ALL_WAYS) + 1):
        for given in combinations(ALL_WAYS, number):
            pages = [f"{page}=" for page in ("redirect", "template", "file") if page in given]
            expected = None
            if len(pages) > 1:
                expected = f"{' and '.join(pages)} exclude each other. Give one of them."
            elif "response_handler" in given and number > 1:
                expected = (
                    "response must be None beside a response_handler, got both. The "
                    "handler makes the whole response: give one of them."
                )
            assert problem_with(given) == expected, given


def test_options_translations_are_added_or_replaced() -> None:
    finnish = Translation(
        title="Huoltokatko",
        message="Palaamme pian.",
        read_only_title="Vain luku",
        read_only_message="Muutoksia ei voi tehdä.",
        until="Takaisin {time}",
        waiting="Odota hetki.",
    )
    answer = ResponseOptions(translations={"fi": finnish, "en": finnish})
    assert answer.content(ON, "fi").title == answer.content(ON, "en").title == "Huoltokatko"
    assert answer.content(ON, "de").title == "Wartungsarbeiten"


def test_options_mappings_are_copied() -> None:
    headers = {"X-By": "us"}
    answer = ResponseOptions(headers=headers)
    headers["X-By"] = "us\r\nX-Injected: 1"
    assert answer.headers == {"X-By": "us"}


def test_options_unknown_media_type_is_refused() -> None:
    options = ResponseOptions()
    with pytest.raises(ValueError, match=r"must be one of MEDIA_TYPES, got 'image/png'\."):
        options.render("image/png", options.content(ON, "en"))
