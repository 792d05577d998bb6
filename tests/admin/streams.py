"""A client of server-sent events with its own connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from typing import Any, Self


class Stream:
    """The events of `GET /maintenance/events`. Each read waits at most `patience` seconds."""

    def __init__(self, port: int, headers: Mapping[str, str], *, patience: float = 30.0) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=patience)
        self._connection.request("GET", "/maintenance/events", headers=dict(headers))
        self.response = self._connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def __iter__(self) -> Iterator[Any]:
        """Every event, until the server ends the stream."""
        for line in self.response:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    def until(self, is_it: Callable[[Any], bool]) -> Any:
        """The first event of which that is true."""
        return next(event for event in self if is_it(event))
