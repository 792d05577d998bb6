"""Ports that a test's servers can listen on."""

from __future__ import annotations

import os
import random
import socket
from typing import Final

# Below what any kernel hands out for outgoing connections (Linux from 32768, macOS from 49152). In
# that range a client that keeps trying a server which is down can be given the server's port as its
# own, connects to itself, and the server never comes back.
_RANGE: Final = range(20_000, 32_000)


def free_port() -> int:
    """Find a TCP port on 127.0.0.1 that nobody listens on."""
    # The shared one is reseeded before every test, and would propose the same ports again.
    dice = random.SystemRandom()
    while True:
        port = dice.choice(_ours())
        if is_free(port):
            return port


def _ours() -> range:
    """The ports of this process of pytest-xdist: what is free here must not be taken by a neighbour
    a moment later.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return _RANGE[number % 8 :: 8]


def is_free(port: int) -> bool:
    """Whether a server could listen on it now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
