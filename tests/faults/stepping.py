"""A redis-server whose wall clock can be set, by a shim that is compiled here and loaded before
libc (ld.so(8), LD_PRELOAD).
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.servers import RedisServer

# Only the wall clock: what a server measures by the monotonic one goes on, as when an operator or
# NTP sets the time.
_SHIM: Final = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *seconds;

__attribute__((constructor)) static void attach(void) {
  int file = open(getenv("CLOCK_STEP"), O_RDONLY);
  seconds = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
}
int clock_gettime(clockid_t id, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, id, now);
  int real = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
  if (!failed && real && seconds) now->tv_sec += *seconds;
  return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *now) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
"""


class Clock:
    """The wall clock of one server."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set it so many seconds ahead of this machine's."""
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))


def compile_shim(home: Path) -> Path:
    """Compile it; skip the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a shim that sets the clock of one process needs a C compiler: cc")
    source, library = home / "clock.c", home / "clock.so"
    source.write_text(_SHIM)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True
    )
    return library


def stepping_server(home: Path, library: Path | None = None) -> tuple[RedisServer, Clock]:
    """Return a server that is not started yet, and its clock."""
    library = library or compile_shim(home)
    clock = Clock(home / "clock")
    return RedisServer(launcher=("env", f"LD_PRELOAD={library}", f"CLOCK_STEP={clock.file}")), clock
