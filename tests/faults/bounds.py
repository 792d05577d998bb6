"""How long things may take in these tests, in seconds: what DESIGN.md's failure table promises, and
what a busy machine may add.
"""

from __future__ import annotations

from typing import Final

SLACK: Final = 20.0
"""A machine ten times slower than ours must pass. How fast it really is, the benchmarks say."""

TTL: Final = 0.5
"""Of the workers here, so that polls, pings and deadlines happen often."""

PATIENT: Final = 4.0
"""The ttl of workers that must keep their connection while the whole machine stands still: its
deadlines are half of that.
"""

NO_POLL: Final = 300.0
"""The ttl of workers whom only a push can tell in time: their next poll is far beyond every bound
here.
"""

BY_PUSH: Final = SLACK
"""One round trip or two; with a ttl of NO_POLL this proves that it was a push."""

BY_POLL: Final = 1.2 * PATIENT + SLACK
BY_RECONNECT: Final = 0.25 + SLACK
UNREACHABLE: Final = 2 * TTL + SLACK
BACK: Final = 2.0 + SLACK
"""From when a server is up again until everybody follows it."""

BOOT: Final = 60.0 + SLACK
"""For a program that has to start, import and find others."""

LEASE: Final = 5.0
"""Of the holds here."""

LOOP_LAG: Final = 0.1
"""By this much the event loop may be late because of us; what the machine adds is not counted
(watchdog.py).
"""
