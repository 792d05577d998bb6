"""What a process knows of itself, and what proves that another one is dead."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastapi_maintenance.backends.redis import process as module
from fastapi_maintenance.backends.redis.process import Process, proved_gone
from fastapi_maintenance.model.workers import Worker

HERE = Process(pid=10, boot="b1", namespace="pid:[1]", start="500", instance="web-1")


def vanished(
    *, pid: int = 7, boot: str = "b1", namespace: str = "pid:[2]", start: str = "400"
) -> Worker:
    """A worker in another container of the same name, unless told otherwise."""
    return Worker(
        "w",
        vanished=True,
        pid=pid,
        boot=boot,
        namespace=namespace,
        start=start,
        instance="web-1",
    )


def test_process_without_proc_has_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "readlink", refuse)
    current = Process.current()

    assert (current.pid, current.boot, current.namespace) == (os.getpid(), "", "")
    assert not current.outlives(vanished())


def test_file_that_is_missing_reads_as_empty() -> None:
    assert module._read("/proc/no such file") == ""


def test_process_that_does_not_exist_has_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_read", lambda path: "")
    assert module._start("1") == ""


@pytest.mark.parametrize(("state", "start"), [("S", "4711"), ("Z", "ended"), ("X", "ended")])
def test_start_of_a_process_is_its_twentieth_field(
    monkeypatch: pytest.MonkeyPatch, state: str, start: str
) -> None:
    said = f"7 (a ) name) {state} " + " ".join(["0"] * 18) + " 4711 0 0"
    monkeypatch.setattr(module, "_read", lambda path: said)
    assert module._start("7") == start


# -- in the same place ---------------------------------------------------------------------------


def near(pid: int, start: str = "400") -> Worker:
    return vanished(pid=pid, namespace=HERE.namespace, start=start)


def test_process_that_has_ended_is_dead() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert HERE.outlives(near(ended.pid))


def test_own_process_is_dead_only_with_another_start() -> None:
    current = Process.current()
    assert not HERE.outlives(near(os.getpid(), current.start))
    assert HERE.outlives(near(os.getpid(), "1"))


@pytest.mark.parametrize("error", [PermissionError("another user's"), OverflowError("no number")])
@pytest.mark.parametrize(("now", "dead"), [("400", False), ("401", True), ("", False)])
def test_process_that_takes_no_signal_is_judged_by_its_start(
    monkeypatch: pytest.MonkeyPatch, error: Exception, now: str, dead: bool
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise error

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(module, "_start", lambda pid: now)
    assert HERE.outlives(near(7)) is dead


# -- in another place ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker", "dead"),
    [
        (vanished(), True),  # it began before this one did
        (vanished(start="500"), False),
        (vanished(start="600"), False),
        (vanished(boot="b0", start="600"), True),
        (vanished(start=""), False),
        (vanished(boot=""), False),
    ],
)
def test_earlier_container_of_the_same_name_is_dead(worker: Worker, dead: bool) -> None:
    assert HERE.outlives(worker) is dead


@pytest.mark.parametrize("instance", ["", "web-2"])
def test_container_of_another_name_proves_nothing(instance: str) -> None:
    assert not HERE._replace(instance=instance).outlives(vanished())


async def test_workers_that_are_proved_gone_are_named_by_their_ids() -> None:
    there = Worker("there", boot="b0", start="1", instance="web-1")
    assert await proved_gone([vanished(), there], HERE) == ["w"]
    assert await proved_gone([there], HERE) == []
