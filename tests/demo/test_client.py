from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from fastapi_maintenance.demo import client as client_module
from fastapi_maintenance.demo.client import Client


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[Client]:
    """A client of a server that gives these answers, one after the other, waits for one request more, and hangs up."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            for answer in answers:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
            await reader.readuntil(b"\r\n\r\n")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = await Client.connect(*server.sockets[0].getsockname())
        yield client
        client.close()
        await over.wait()


async def test_one_connection_carries_one_answer_after_another() -> None:
    first = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After:  3600 \r\nContent-Length: 4\r\n\r\nbody"
    second = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with answering(first, second) as client:
        answer = await client.get("/")
        assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "3600", b"body")
        answer = await client.get("/")
        assert (answer.status, answer.body) == (200, b"")


async def test_a_server_that_hangs_up_is_an_error() -> None:
    async with answering() as client:
        with pytest.raises((OSError, EOFError)):
            await client.get("/")


async def test_a_server_that_does_not_finish_its_answer_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbody") as client:
        monkeypatch.setattr(client_module, "_DEADLINE", 0.05)
        with pytest.raises(TimeoutError):
            await client.get("/")
