"""A port for the demo's servers to listen on."""

from __future__ import annotations

import random
import socket
from typing import Final

from .errors import DemoError

__all__ = ["HOST", "free_port", "is_listening"]

HOST: Final = "127.0.0.1"

# Below what kernels hand out to outgoing connections: a client that tries a port from there before its server listens can be
# given that very port as its own and is then connected to itself.
_RANGE: Final = range(20_000, 32_000)
_TRIES: Final = 100


def free_port() -> int:
    """Find a port that nobody listens on. Raises `DemoError` if there is none."""
    for port in random.sample(_RANGE, _TRIES):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise DemoError(f"No free port was found on {HOST}; {_TRIES} between {_RANGE.start} and {_RANGE.stop} were tried. End what holds them.")


def is_listening(port: int) -> bool:
    """Whether a server listens on it. It is on this machine, so the answer is there at once."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
