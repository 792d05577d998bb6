"""An imitation of Redis (fakeredis), for a demo without a redis-server.

`python -m fastapi_maintenance.cli.embedded PORT` serves it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from fakeredis import TcpFakeServer


def embedded_redis(port: int) -> TcpFakeServer:
    """Return the imitation, bound to a local port; `serve_forever` lets it answer.

    Raises `ModuleNotFoundError` without fakeredis, `OSError` if the port is taken.
    """
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", port))
    server.RequestHandlerClass = _corrected(server.RequestHandlerClass)
    return server


def _corrected(handler: Any) -> Any:
    """Return a handler without two faults: hanging up after an error, and half of RESP3."""

    class Corrected(handler):  # type: ignore[misc]
        def setup(self) -> None:
            super().setup()
            client = self.current_client
            client.get_socket().hello = _refuse_hello
            client.read_response = partial(_reply_or_error, client.read_response)

    return Corrected


def _refuse_hello(*args: bytes) -> NoReturn:
    """Answer as Redis 5 does, so that clients speak RESP2."""
    raise ResponseError("unknown command 'HELLO'")


def _reply_or_error(read_response: Callable[[], Any]) -> Any:
    try:
        return read_response()
    except RedisError as error:  # line breaks, as in errors of Lua, would break the protocol
        return ResponseError(" ".join(str(error).split()))


if __name__ == "__main__":
    embedded_redis(int(sys.argv[1])).serve_forever()
