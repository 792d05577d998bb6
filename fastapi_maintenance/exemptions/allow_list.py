"""The allow list of a state: paths, path templates and networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Final

from starlette._utils import get_route_path
from starlette.convertors import CONVERTOR_TYPES
from starlette.types import Scope

from ..exceptions import ConfigurationError
from .proxies import AddressRange, Proxies, is_in, network_of
from .rules import Method

# Parameters are whole segments, so that a path is split once for all entries, and no entry makes a
# regular expression go back.
_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
_TYPED: Final = ("str", "int", "float", "uuid")
_PARAMETER: Final = re.compile(rf"\{{{_NAME}(?::({'|'.join(_TYPED)}))?\}}")
_REST: Final = re.compile(rf"\{{{_NAME}:path\}}")
_LITERAL: Final = re.compile(r"[^{}]*")
_SEGMENTS: Final = {kind: re.compile(CONVERTOR_TYPES[kind].regex) for kind in _TYPED[1:]}
_MAX_ENTRY: Final = 200  # characters
_MAX_SEGMENTS: Final = 32
_MAX_VALUE: Final = 100  # characters of a segment that is an int, a float or a uuid


@dataclass(frozen=True, slots=True)
class _Entry:
    """A path or a network, for some methods or for all. A tuple is the type of a parameter."""

    methods: Method | None = None
    segments: tuple[str | tuple[str], ...] = ()
    is_open: bool = False
    network: AddressRange | None = None


class AllowList:
    """The allow list of a state. `errors` has a sentence for each ignored entry.

    The work for a request is bounded by the number of entries times their segments, however long
    its path and headers are.
    """

    def __init__(self, entries: Sequence[str], proxies: Proxies | None = None) -> None:
        self.entries = entries
        self.errors: list[str] = []
        self._proxies = proxies or Proxies()
        self._entries: list[_Entry] = []
        for entry in entries:
            try:
                self._entries.append(_parse(entry))
            except ConfigurationError as error:
                self.errors.append(str(error))

    def matches(self, scope: Scope) -> bool:
        """Return whether an entry allows the request."""
        path = get_route_path(scope)
        # A newline matches nothing.
        is_valid = path.startswith("/") and "\n" not in path
        given = path.split("/", _MAX_SEGMENTS + 1)[1:] if is_valid else []
        is_a = cache(_is_a)  # each segment is compared once with each type
        is_for = (each.methods is None or each.methods.matches(scope) for each in self._entries)
        entries = list(compress(self._entries, is_for))
        if any(entry.network is None and _covers(entry, given, is_a) for entry in entries):
            return True
        networks = [entry.network for entry in entries if entry.network is not None]
        address = self._proxies.client_of(scope) if networks else None
        return address is not None and is_in(address, networks)


def _covers(entry: _Entry, given: Sequence[str], is_a: Callable[[str, str], bool]) -> bool:
    """Return whether the segments of a path are as an entry has them."""
    wanted = entry.segments
    if len(given) <= len(wanted) if entry.is_open else len(given) != len(wanted):
        return False
    return all(
        text == segment if isinstance(segment, str) else is_a(segment[0], text)
        for segment, text in zip(wanted, given, strict=False)
    )


def _is_a(kind: str, text: str) -> bool:
    if kind == "str":
        return text != ""
    return len(text) <= _MAX_VALUE and _SEGMENTS[kind].fullmatch(text) is not None


def check_entry(entry: str) -> str:
    """Return an entry of `allow` if it is valid. Raises `ConfigurationError`."""
    _parse(entry)
    return entry


def _parse(entry: str) -> _Entry:
    try:
        words = entry.split() if len(entry) <= _MAX_ENTRY else []
        if len(words) not in (1, 2):
            raise ConfigurationError('write it like "/login", "POST /login" or "10.1.0.0/16".')
        *names, what = words
        methods = Method(*names[0].split(",")) if names else None
        if not what.startswith("/"):
            return _Entry(methods, network=network_of(what))
        segments = what.split("/")[1:]
        is_open = _REST.fullmatch(segments[-1]) is not None
        return _Entry(methods, tuple(_read(segments[:-1] if is_open else segments)), is_open)
    except ConfigurationError as error:
        shown = entry if len(entry) <= 40 else f"{entry[:40]}…"
        raise ConfigurationError(f"Invalid allow entry {shown!r}: {error}") from None


def _read(segments: Sequence[str]) -> Iterator[str | tuple[str]]:
    if len(segments) > _MAX_SEGMENTS:
        got = len(segments)
        raise ConfigurationError(f"A path must have at most {_MAX_SEGMENTS} segments, got {got}.")
    for segment in segments:
        if parameter := _PARAMETER.fullmatch(segment):
            yield (parameter[1] or "str",)
        elif _LITERAL.fullmatch(segment):
            yield segment
        else:
            raise ConfigurationError(
                "A parameter must be a whole segment like {id}, {id:int} or, last, {rest:path}."
            )
