"""Content negotiation: media types (RFC 9110, 12.5.1) and languages (RFC 9110, 12.5.4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from starlette.types import Scope

_ASKED: Final = frozenset({b"accept", b"accept-language", b"origin"})
MAX_LENGTH: Final = 1024  # bytes; browsers send under 200
# Further ranges and parameters are ignored, so that a made-up header costs no time.
_MAX_RANGES: Final = 32
_MAX_PARAMETERS: Final = 8
_MAX_SUBTAGS: Final = 8  # language, script, region and a few variants


Preferences = tuple[bytes, bytes, bool]
"""The headers Accept and Accept-Language, and whether there is an Origin."""


def preferences(scope: Scope) -> Preferences:
    """Return what a client asks for, the lines of each header joined (RFC 9110, 5.3)."""
    accept = accept_language = b""
    cross_origin = False
    for name, value in scope["headers"]:
        if name in _ASKED:
            if name == b"accept":
                accept = _joined(accept, value) if accept else value
            elif name == b"origin":
                cross_origin = True
            else:
                accept_language = _joined(accept_language, value) if accept_language else value
    return accept, accept_language, cross_origin


def _joined(lines: bytes, line: bytes) -> bytes:
    return b"%b,%b" % (lines, line) if len(lines) <= MAX_LENGTH else lines


def negotiate(accept: str, offers: Sequence[str]) -> str:
    """Return the media type that a client prefers, or the first offer if it prefers none.

    A range that names a type is preferred to a wildcard of the same quality. Parameters other than
    q are not compared, and malformed ranges are ignored.
    """
    qualities = _qualities(accept)
    if not qualities:
        return offers[0]
    # Of equals, max returns the first.
    return max(offers, key=lambda offer: _preference(offer, qualities))


def _preference(media_type: str, qualities: dict[str, float]) -> tuple[float, int]:
    """Return quality and precision. The most precise matching range decides, also if it is zero."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    for precision, media_range in zip((3, 2, 1), ranges, strict=True):
        if media_range in qualities:
            quality = qualities[media_range]
            return (quality, precision) if quality else (0.0, 0)
    return 0.0, 0


def negotiate_language(accept_language: str, tags: Collection[str], default: str) -> str:
    """Return the language that a client prefers (lookup, RFC 4647, 3.4), else the default.

    `de-AT` matches `de`, and `pt` matches `pt-BR`. Case is ignored.
    """
    known = {tag.lower(): tag for tag in tags}
    for tag in tags:  # `pt` is `pt-BR` unless there is a plain one
        known.setdefault(tag.lower().partition("-")[0], tag)
    qualities = _qualities(accept_language)
    # Of equals, the first named stays first.
    for language, quality in sorted(qualities.items(), key=lambda item: -item[1]):
        if quality and (found := _look_up(language, known, default)) is not None:
            return found
    return default


def _look_up(language: str, known: dict[str, str], default: str) -> str | None:
    if language == "*":
        return default
    subtags = language.split("-", _MAX_SUBTAGS)[:_MAX_SUBTAGS]
    prefixes = ("-".join(subtags[:length]) for length in range(len(subtags), 0, -1))
    return next((known[prefix] for prefix in prefixes if prefix in known), None)


# An unclosed quote reaches to the end; without that, matching is quadratic.
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_QVALUE: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def _qualities(accept: str) -> dict[str, float]:
    """Return each range and its quality, between 0 and 1."""
    qualities: dict[str, float] = {}
    for part in _QUOTED.sub('""', accept).split(",", _MAX_RANGES)[:_MAX_RANGES]:
        named, *parameters = part.split(";", _MAX_PARAMETERS + 1)[: _MAX_PARAMETERS + 1]
        name = named.strip().lower()
        if name and (quality := _quality(parameters)) is not None:
            qualities[name] = max(quality, qualities.get(name, 0.0))
    return qualities


def _quality(parameters: Sequence[str]) -> float | None:
    """Return the q among a range's parameters: 1 if there is none, `None` if it is malformed."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return float(value) if _QVALUE.fullmatch(value := value.strip()) else None
    return 1.0
