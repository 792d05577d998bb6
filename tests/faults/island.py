"""A network namespace behind one wire, on which packets are lost as they are in a real network:
without a word.
"""

from __future__ import annotations

import secrets
import subprocess
from contextlib import suppress
from typing import Final, Self

import pytest

# An address that no interface here has: who is sent to it, hears nothing.
_NOBODY: Final = "02:00:00:00:00:01"


class Island:
    """Whatever `launcher` starts is reached at `address`, and only there.

    A packet to a neighbour whose hardware address is wrong is dropped by whoever receives it, and
    nobody is told; the traffic shaper that would do the same, netem, many kernels lack. Needs root
    and iproute2, and skips the test where there are none.
    """

    def __init__(self) -> None:
        name = secrets.token_hex(4)
        # For tests of networks: RFC 2544.
        subnet = f"198.18.{secrets.randbelow(256)}.{4 * secrets.randbelow(64)}"
        host = subnet.rsplit(".", 1)
        self._name = f"faults-{name}"
        self._ours, self._theirs = f"fa{name}", f"fb{name}"
        self._here, self.address = f"{host[0]}.{int(host[1]) + 1}", f"{host[0]}.{int(host[1]) + 2}"
        self.launcher = ("ip", "netns", "exec", self._name)

    def __enter__(self) -> Self:
        try:
            self._ip("netns", "add", self._name)
            self._ip(
                "link",
                "add",
                self._ours,
                "type",
                "veth",
                "peer",
                "name",
                self._theirs,
                "netns",
                self._name,
            )
            for side, address, interface in (
                ([], self._here, self._ours),
                (["-n", self._name], self.address, self._theirs),
            ):
                self._ip(*side, "addr", "add", f"{address}/30", "dev", interface)
                self._ip(*side, "link", "set", interface, "up")
        except (OSError, RuntimeError) as error:
            self._sink()
            pytest.skip(
                f"true loss of packets needs root and iproute2 (apt-get install iproute2): {error}"
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sink()

    def lose(self, *, there: bool = False, back: bool = False) -> None:
        """From now on lose every packet to it, or from it."""
        if there:
            self._ip(
                "neigh",
                "replace",
                self.address,
                "lladdr",
                _NOBODY,
                "nud",
                "permanent",
                "dev",
                self._ours,
            )
        if back:
            wrong = self._here, "lladdr", _NOBODY, "nud", "permanent", "dev", self._theirs
            self._ip("-n", self._name, "neigh", "replace", *wrong)

    def heal(self) -> None:
        """Lose nothing any more."""
        self._ip("neigh", "flush", "dev", self._ours, "nud", "permanent")
        self._ip("-n", self._name, "neigh", "flush", "dev", self._theirs, "nud", "permanent")

    def _sink(self) -> None:
        """Remove it, and with it the wire."""
        with suppress(OSError, RuntimeError):
            self._ip("netns", "delete", self._name)

    def _ip(self, *arguments: str) -> None:
        done = subprocess.run(
            ["ip", *arguments], capture_output=True, text=True, timeout=10, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
