"""Options of the response, validated when they are given."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from typing import Final, TypeGuard
from urllib.parse import urlsplit

from .._internal.logging import log_fields
from ..exceptions import ConfigurationError
from ..model.state import DEFAULT_RETRY_AFTER, ON, MaintenanceState
from .content import Content
from .renderers import (
    HTML,
    PLAIN,
    PROBLEM,
    RenderedBody,
    render_html,
    render_json,
    render_plain,
    render_problem,
)
from .templates import Page, read_file, read_template
from .translations import TRANSLATIONS, Translation

__all__ = ["PROBLEM_TYPE", "ResponseOptions"]

logger = logging.getLogger("fastapi_maintenance")

PROBLEM_TYPE: Final = "urn:problem-type:maintenance"
"""The `type` of problem details. It never changes, so that programs can recognize maintenance by it."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name (RFC 9110, 5.6.2)
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
_LONGEST: Final = 365 * 24 * 3600  # seconds
_EVERYTHING: Final = MaintenanceState(
    enabled=True, message="Back soon", ends_at=datetime(2026, 1, 1, tzinfo=UTC), mode="read-only"
)


@dataclass(frozen=True, kw_only=True)
class ResponseOptions:
    """Options of the response: `MaintenanceModeMiddleware(app, answer=ResponseOptions(retry_after=600))`.

    `status_code` is the status; `read_only_status_code` (for example 405 or 423) replaces it in read-only mode. `headers` are
    added and replace built-in headers of the same name. `retry_after` applies unless the state has its own or a known end.
    `jitter` is the largest random delay that is added to a known end, so that clients do not return at the same time. Both
    are in seconds. `retry_after_as_date` writes an HTTP date.

    Browsers get an HTML page: the built-in one, a Jinja2 `template`, or a static `file` (both loaded at start-up). `refresh`
    adds a Refresh header, in seconds. `redirect` sends browsers to another URL (302) instead. `texts` adds or replaces
    languages of the page and of plain text; `language` is the fallback. `problem_type` is the `type` of problem details (RFC 9457).

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
            f"{name}="
            for name in ("redirect", "template", "file")
            if getattr(self, name) is not None
        ]
        if len(pages) > 1:
            raise ConfigurationError(f"{' and '.join(pages)} exclude each other. Give one of them.")
        for name, path in (("template", self.template), ("file", self.file)):
            if path is not None and not isinstance(path, str | PathLike):
                raise ConfigurationError(f"{name} must be a path, not {path!r}.")
        if not isinstance(self.retry_after_as_date, bool):
            raise ConfigurationError(
                f"retry_after_as_date must be True or False, not {self.retry_after_as_date!r}."
            )
        _check_status(status_code=self.status_code)
        if self.read_only_status_code is not None:
            _check_status(read_only_status_code=self.read_only_status_code)
        _check_headers(self.headers)
        _check_seconds(retry_after=self.retry_after, jitter=self.jitter)
        if self.refresh is not None:
            _check_seconds(least=1, refresh=self.refresh)
        _check_texts(self.translations)
        if self.language not in self.all_texts:
            raise ConfigurationError(
                f"There are no texts in language={self.language!r}; there are {', '.join(self.all_texts)}."
            )
        _check_url(problem_type=self.problem_type)
        if self.redirect is not None:
            _check_url(redirect=self.redirect)
        for name in (
            "headers",
            "translations",
        ):  # what somebody does to theirs later has not been checked
            object.__setattr__(self, name, dict(getattr(self, name)))
        object.__setattr__(self, "_page", self._read_page())

    def _read_page(self) -> Page:
        if self.file is not None:
            return read_file(self.file)
        if self.template is None:
            return render_html
        page = read_template(self.template)
        for state in (ON, _EVERYTHING):  # so that what it cannot do is found now
            page(self.content(state, self.language))
        return page

    @property
    def all_texts(self) -> dict[str, Translation]:
        """The translations by language tag."""
        return {**TRANSLATIONS, **self.translations}

    def content(self, state: MaintenanceState, language: str) -> Content:
        """Return the content of the response for a state, in one language."""
        return Content(state, language, self.all_texts[language], self.jitter)

    def status_of(self, state: MaintenanceState) -> int:
        """Return the status code for a state."""
        if state.mode == "read-only" and self.read_only_status_code is not None:
            return self.read_only_status_code
        return self.status_code

    def render(self, media_type: str, notice: Content) -> RenderedBody:
        """Render the body in one of the media types."""
        if media_type == PROBLEM:
            return render_problem(notice, self.problem_type, self.status_of(notice.state))
        if media_type == HTML:
            return self._encode_page(notice)
        return render_plain(notice) if media_type == PLAIN else render_json(notice)

    def _encode_page(self, notice: Content) -> RenderedBody:
        try:
            return self._page(notice)
        except Exception as error:  # a template can do what it likes
            logger.error(
                "The page of a template is replaced by ours: %s",
                error,
                extra=log_fields("template-failed"),
            )
            return render_html(notice)


def _check_status(**option: object) -> None:
    ((name, status),) = option.items()
    if not _is_int(status) or not 200 <= status <= 599 or status in (204, 205, 304):
        raise ConfigurationError(
            f"{name} must be a status from 200 to 599 that can have a body, not {status!r}."
        )
    if 300 <= status <= 399:
        raise ConfigurationError(
            f"{name}={status} needs to know where to: give redirect= alone, it is answered with 302."
        )


def _check_headers(headers: object) -> None:
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers must be a mapping of names to values, not {headers!r}.")
    for name, value in headers.items():
        if not (isinstance(name, str) and _TOKEN.fullmatch(name)):
            raise ConfigurationError(f"The name of a header must be a token, got {name!r}.")
        if not (isinstance(value, str) and _VALUE.fullmatch(value)):
            raise ConfigurationError(
                f"The value of the header {name} must be Latin-1 text without control characters, got {value!r}."
            )
        if name.lower() in _OURS:
            raise ConfigurationError(f"The header {name} cannot be set: {_OURS[name.lower()]}.")


def _check_seconds(*, least: int = 0, **options: object) -> None:
    for name, seconds in options.items():
        if not _is_int(seconds) or not least <= seconds <= _LONGEST:
            raise ConfigurationError(
                f"{name} must be whole seconds from {least} to {_LONGEST}, not {seconds!r}."
            )


def _check_url(**option: object) -> None:
    ((name, url),) = option.items()
    try:
        if isinstance(url, str) and _URL.fullmatch(url) and urlsplit(url):
            return
    except ValueError:  # of brackets that do not hold an IPv6 address
        pass
    raise ConfigurationError(
        f"{name} must be a URL, percent-encoded where it is not ASCII, not {url!r}."
    )


def _check_texts(texts: object) -> None:
    if not isinstance(texts, Mapping) or not all(
        isinstance(each, Translation) for each in texts.values()
    ):
        raise ConfigurationError(
            f'translations must be a mapping of language tags to Translation, as {{"fi": Translation(title=…)}}, not {texts!r}.'
        )
    for tag in texts:
        if not (isinstance(tag, str) and _TAG.fullmatch(tag)):
            raise ConfigurationError(f"{tag!r} is not a language tag such as fi or pt-BR.")


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
