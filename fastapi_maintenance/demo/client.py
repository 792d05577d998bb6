"""One keep-alive HTTP connection, and so, to a server of several processes, always the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["Answer", "Client"]

_DEADLINE: Final = 5.0  # seconds for one answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Sends one request at a time. Everything raises `OSError` or `EOFError` once the connection is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        """Open a connection."""
        async with asyncio.timeout(_DEADLINE):
            return cls(*await asyncio.open_connection(host, port))

    async def get(self, path: str) -> Answer:
        """Ask for a path. The server must say how long its answer is, as uvicorn does for what is not streamed."""
        async with asyncio.timeout(_DEADLINE):
            self._writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await self._reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").splitlines()
            headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
            body = await self._reader.readexactly(int(headers["content-length"]))
            return Answer(int(status_line.split()[1]), headers, body)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
