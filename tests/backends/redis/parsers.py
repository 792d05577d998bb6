"""The parsers of redis-py that are installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

from redis._parsers import _AsyncHiredisParser, _AsyncRESP3Parser

PARSERS: Final[list[type[Any]]] = [
    _AsyncRESP3Parser,
    *([_AsyncHiredisParser] if find_spec("hiredis") else []),
]
