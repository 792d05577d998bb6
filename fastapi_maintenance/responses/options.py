"""Options of the response, validated when they are given."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from os import PathLike
from random import randint
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from .._internal.logging import log_fields
from .._internal.validation import TOKEN, is_text, require
from ..exceptions import ConfigurationError
from ..model.state import DEFAULT_RETRY_AFTER, MAX_RETRY_AFTER, ON, MaintenanceState
from . import renderers
from .content import Content
from .renderers import (
    RenderedBody,
    render_html,
    render_json,
    render_plain,
    render_problem,
)
from .templates import Page, read_file, read_template
from .translations import TRANSLATIONS, Translation

logger = logging.getLogger("fastapi_maintenance")

PROBLEM_TYPE: Final = "urn:problem-type:maintenance"
"""The `type` of problem details. It never changes, so that programs can rely on it."""

_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # a header's value (RFC 9110, 5.5)
_TAG: Final = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")  # a language (RFC 5646, 2.1)
_OURS: Final = {
    "content-length": "it follows from the body",
    "content-type": "it follows from what the client accepts",
    "location": "give redirect=",
    "retry-after": "give retry_after=",
    "transfer-encoding": "it is the server's",
}
_URL: Final = re.compile(r"[\x21-\x7e]+")
_MAX_SECONDS: Final = 365 * 24 * 3600
_EVERYTHING: Final = MaintenanceState(
    enabled=True, message="Back soon", ends_at=datetime(2026, 1, 1, tzinfo=UTC), mode="read-only"
)


@dataclass(frozen=True, kw_only=True)
class ResponseOptions:
    """Options of the response.

    Use them as `MaintenanceModeMiddleware(app, response=ResponseOptions(retry_after=600))`.

    `status_code` is the status; `read_only_status_code` (for example 405 or 423) replaces it in
    read-only mode. `headers` are added and replace built-in headers of the same name. `retry_after`
    applies unless the state has its own or a known end. `jitter` is the largest random delay that
    is added to a known end, so that clients do not return at the same time. Both are in seconds.
    `retry_after_as_date` writes an HTTP date.

    Browsers get an HTML page: the built-in one, a Jinja2 `template`, or a static `file` (both
    loaded at start-up). `refresh` adds a Refresh header, in seconds. `redirect` sends browsers to
    another URL (302) instead. `translations` adds or replaces languages of the page and of plain
    text; `language` is the fallback. `problem_type` is the `type` of problem details (RFC 9457).

    Raises `ConfigurationError` for invalid options.
    """

    status_code: int = 503
    read_only_status_code: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    redirect: str | None = None
    template: str | PathLike[str] | None = None
    file: str | PathLike[str] | None = None
    retry_after: int = DEFAULT_RETRY_AFTER
    jitter: int = 0
    retry_after_as_date: bool = False
    refresh: int | None = None
    translations: Mapping[str, Translation] = field(default_factory=dict)
    language: str = "en"
    problem_type: str = PROBLEM_TYPE

    _page: Page = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pages = [
            name for name in ("redirect", "template", "file") if getattr(self, name) is not None
        ]
        if len(pages) > 1:
            raise ConfigurationError(
                f"{'= and '.join(pages)}= exclude each other. Give one of them."
            )
        for name, path in (("template", self.template), ("file", self.file)):
            require(isinstance(path, str | PathLike | None), f"{name} must be a path", path)
        as_date = self.retry_after_as_date
        require(isinstance(as_date, bool), "retry_after_as_date must be True or False", as_date)
        _check_status("status_code", self.status_code)
        if self.read_only_status_code is not None:
            _check_status("read_only_status_code", self.read_only_status_code)
        _check_headers(self.headers)
        _check_seconds("retry_after", self.retry_after)
        _check_seconds("jitter", self.jitter)
        if self.refresh is not None:
            _check_seconds("refresh", self.refresh, least=1)
        _check_translations(self.translations)
        known = self.all_translations
        require(
            self.language in known, f"language must be one of {', '.join(known)}", self.language
        )
        _check_url("problem_type", self.problem_type)
        if self.redirect is not None:
            _check_url("redirect", self.redirect)
        for name in ("headers", "translations"):  # copies, as later changes are not validated
            object.__setattr__(self, name, dict(getattr(self, name)))
        object.__setattr__(self, "_page", self._read_page())

    def _read_page(self) -> Page:
        if self.file is not None:
            return read_file(self.file)
        if self.template is None:
            return render_html
        page = read_template(self.template)
        for state in (ON, _EVERYTHING):  # so that errors of the template show at start-up
            page(self.content(state, self.language))
        return page

    @property
    def all_translations(self) -> dict[str, Translation]:
        """The translations by language tag."""
        return {**TRANSLATIONS, **self.translations}

    def content(self, state: MaintenanceState, language: str) -> Content:
        """Return the content of the response for a state, in one language."""
        return Content(state, language, self.all_translations[language], self.jitter)

    def status_of(self, state: MaintenanceState) -> int:
        """Return the status code for a state."""
        if state.mode == "read-only" and self.read_only_status_code is not None:
            return self.read_only_status_code
        return self.status_code

    def is_retry_after_constant(self, state: MaintenanceState) -> bool:
        """Return whether Retry-After is the same for every request."""
        is_fixed = state.ends_at is None or state.retry_after is not None
        return is_fixed and not self.retry_after_as_date

    def retry_after_at(self, now: datetime, state: MaintenanceState) -> tuple[int, bytes]:
        """Return the seconds to wait, and the header Retry-After (RFC 9110, 10.2.3).

        The seconds are the state's own, else until its end, else the default. They are never
        negative, and never before the end.
        """
        seconds = state.retry_after_at(now, self.retry_after)
        if self.jitter and state.ends_at is not None and state.retry_after is None:
            seconds = min(seconds + randint(0, self.jitter), MAX_RETRY_AFTER)
        if not self.retry_after_as_date:
            return seconds, b"%d" % seconds
        at = now.astimezone(UTC) + timedelta(seconds=seconds)
        if at.microsecond:  # rounded up like the seconds, so that no client returns before the end
            at = at.replace(microsecond=0) + timedelta(seconds=1)
        return seconds, format_datetime(at, usegmt=True).encode()

    def render(self, media_type: str, content: Content) -> RenderedBody:
        """Render the body in one of the media types."""
        match media_type:
            case renderers.HTML:
                return self._render_page(content)
            case renderers.PLAIN:
                return render_plain(content)
            case renderers.PROBLEM:
                status = self.status_of(content.state)
                return render_problem(content, self.problem_type, status)
            case renderers.JSON:
                return render_json(content)
        raise ValueError(f"media_type must be one of MEDIA_TYPES, got {media_type!r}.")

    def _render_page(self, content: Content) -> RenderedBody:
        try:
            return self._page(content)
        except Exception as error:  # templates may raise anything
            extra = log_fields("template-failed")
            logger.error("The template failed, the built-in page is sent: %s", error, extra=extra)
            return render_html(content)


def _check_status(name: str, status: object) -> None:
    has_body = _is_int(status) and 200 <= status <= 599 and status not in (204, 205, 304)
    require(has_body, f"{name} must be a status from 200 to 599 with a body", status)
    is_redirect = _is_int(status) and 300 <= status <= 399
    require(not is_redirect, f"{name} must not be 3xx (give redirect= instead)", status)


def _check_headers(headers: Any) -> None:
    require(isinstance(headers, Mapping), "headers must map names to values", headers)
    for name, value in headers.items():
        require(is_text(name, TOKEN), "The name of a header must be a token", name)
        requirement = f"The header {name} must be Latin-1 text without control characters"
        require(is_text(value, _VALUE), requirement, value)
        if (reason := _OURS.get(name.lower())) is not None:
            raise ConfigurationError(f"The header {name} must not be set: {reason}.")


def _check_seconds(name: str, seconds: object, *, least: int = 0) -> None:
    valid = _is_int(seconds) and least <= seconds <= _MAX_SECONDS
    require(valid, f"{name} must be whole seconds from {least} to {_MAX_SECONDS}", seconds)


def _check_url(name: str, url: object) -> None:
    try:
        valid = is_text(url, _URL) and urlsplit(url)
    except ValueError:  # brackets without an IPv6 address
        valid = False
    require(valid, f"{name} must be a URL, percent-encoded unless it is ASCII", url)


def _check_translations(given: Any) -> None:
    valid = isinstance(given, Mapping) and all(isinstance(t, Translation) for t in given.values())
    require(valid, 'translations must be a mapping like {"fi": Translation(title=…)}', given)
    for tag in given:
        require(is_text(tag, _TAG), "A language tag must be like fi or pt-BR", tag)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
