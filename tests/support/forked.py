"""Python files that run in processes forked from one that has imported what takes long.

A process that imports FastAPI and this package anew computes for half a second.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.testclient import TestClient

import fastapi_maintenance.backends.redis
import fastapi_maintenance.exemptions  # noqa: F401

_CONTEXT: Final = get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def run_file(file: Path, said: Path, environment: Mapping[str, str], within: float = 120) -> int:
    """Run a Python file in its own directory, start the applications in it, and return the exit
    code. `said` gets what it prints.
    """
    process = _CONTEXT.Process(target=_run, args=(file, said, dict(environment)))
    process.start()
    process.join(within)
    with suppress(ProcessLookupError):  # whatever it has started, too
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    return process.exitcode if process.exitcode is not None else -1


def _run(file: Path, said: Path, environment: dict[str, str]) -> None:
    os.setsid()
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(file.parent)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    found: dict[str, Any] = runpy.run_path(str(file), run_name="__main__")
    # An application is put together when it starts; only then does it say what its options are
    # worth.
    for value in list(found.values()):
        if isinstance(value, FastAPI):
            with TestClient(value):
                pass
