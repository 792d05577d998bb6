"""What the `allow` of a state lets through: paths, templates and networks, written as one text each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.types import Scope

from ._clients import Proxies
from .exceptions import ConfigurationError
from .exemptions import Method, Network, Path, ScopeRule

__all__ = ["AllowList", "read_entry"]

# A template that anybody may write: parameters are whole segments, so that no path takes long to compare.
_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
_PLAIN_TEMPLATE: Final = re.compile(rf"(?:/(?:[^{{}}/]*|\{{{_NAME}(?::(?:str|int|float|uuid))?\}}))*(?:/\{{{_NAME}:path\}})?")
_LONGEST_ENTRY: Final = 200  # characters


class AllowList:
    """What the `allow` of a state lets through. `problems` says what is wrong with entries that let nobody through."""

    def __init__(self, entries: Sequence[str], proxies: Proxies | None = None) -> None:
        self.entries = entries
        self.problems: list[str] = []
        self._rules: list[tuple[ScopeRule, ...]] = []
        for entry in entries:
            try:
                self._rules.append(read_entry(entry, proxies))
            except ConfigurationError as error:
                self.problems.append(str(error))

    def matches(self, scope: Scope) -> bool:
        """Whether a request is named."""
        return any(all(part.matches(scope) for part in rule) for rule in self._rules)


def read_entry(entry: str, proxies: Proxies | None = None) -> tuple[ScopeRule, ...]:
    """What an entry of `allow` demands: a path, a template or a network, after methods and a space where it is for these only.

    Raises `ConfigurationError`.
    """
    methods, what = _words(entry)
    try:
        if what.startswith("/"):
            if not _PLAIN_TEMPLATE.fullmatch(what):
                raise ConfigurationError("a parameter must be a whole segment like {id}, {id:int} or, at the end, {rest:path}")
            rule: ScopeRule = Path(what)
        else:
            proxies = proxies or Proxies()
            rule = Network(what, trusted_proxies=proxies.trusted, forwarded=proxies.forwarded)
        return (Method(*methods.split(",")), rule) if methods else (rule,)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_excerpt(entry)} allows nothing: {error}") from None


def _words(entry: str) -> tuple[str, str]:
    words = entry.split() if len(entry) <= _LONGEST_ENTRY else []
    if len(words) not in (1, 2):
        raise ConfigurationError(f'{_excerpt(entry)} allows nothing: write it like "/login", "POST /login" or "10.1.0.0/16".')
    return ("" if len(words) == 1 else words[0]), words[-1]


def _excerpt(entry: str) -> str:
    return repr(entry if len(entry) <= 40 else f"{entry[:40]}…")
