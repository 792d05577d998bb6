"""Whom a worker asks that has never known its backend's state, and what it leaves behind for the
next one.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path

import pytest

from fastapi_maintenance.backends import EnvVarBackend, LocalFileBackend
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.fallbacks import Fallbacks

from ..support.doubles import Ignorant, Switchboard
from ..support.waiting import eventually

VARIABLE = "FASTAPI_MAINTENANCE_MODE"


async def answer_of(fallbacks: Fallbacks) -> tuple[bool | None, str]:
    """What the chain says to the switch, and who says so."""
    await fallbacks.query()
    reading = fallbacks.snapshot
    assert reading is None or reading.switch is not None
    return None if reading is None else reading.switch == ON, fallbacks.source


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# -- asking ----------------------------------------------------------------------------------------


async def test_fallbacks_without_a_state_return_nothing() -> None:
    assert await answer_of(Fallbacks(())) == (None, "default")


@pytest.mark.parametrize(
    ("file", "variable", "answer"),
    [
        ("1", "0", (True, "file")),
        ("0", "1", (False, "file")),
        (None, "1", (True, "env")),
        (None, "0", (False, "env")),
        (None, None, (None, "default")),
        ("1", None, (True, "file")),
        ("garbage", "1", (True, "env")),
    ],
)
async def test_fallback_file_comes_before_the_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str | None,
    variable: str | None,
    answer: tuple[bool | None, str],
) -> None:
    path = tmp_path / "known"
    if file is not None:
        path.write_text(file)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)

    assert await answer_of(Fallbacks(f"file:{path}")) == answer
    assert await answer_of(Fallbacks(LocalFileBackend(path))) == answer
    assert await answer_of(Fallbacks([LocalFileBackend(path)])) == answer


async def test_fallback_environment_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "known"
    path.write_text("1")
    monkeypatch.setenv("OTHER", "0")
    monkeypatch.setenv(VARIABLE, "1")

    assert await answer_of(Fallbacks(["env:OTHER", f"file:{path}"])) == (False, "env")
    monkeypatch.delenv("OTHER")
    path.unlink()
    assert await answer_of(Fallbacks([EnvVarBackend("OTHER"), f"file:{path}"])) == (None, "default")


async def test_fallbacks_stop_at_the_first_known_state() -> None:
    ignorant, first, second = Ignorant(), Switchboard(True), Switchboard(False)

    assert await answer_of(Fallbacks([ignorant, first, second])) == (True, "board")
    assert (ignorant.reads, first.reads, second.reads) == (1, 1, 0)


async def test_fallback_that_fails_is_skipped_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Switchboard()
    broken.error = RuntimeError("out of order")
    fallbacks = Fallbacks([broken, Switchboard(True)])

    for _ in range(3):
        assert await answer_of(fallbacks) == (True, "board")
    assert warnings(caplog) == ["The fallback Switchboard cannot be asked: out of order"]

    broken.error = None
    assert await answer_of(fallbacks) == (False, "board")
    broken.error = RuntimeError("out of order")
    await fallbacks.query()
    assert len(warnings(caplog)) == 2


async def test_fallback_that_hangs_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    hanging = Switchboard()
    hanging.hang()
    started = time.monotonic()

    assert await asyncio.wait_for(answer_of(Fallbacks([hanging, Switchboard(True)])), 20) == (
        True,
        "board",
    )
    assert time.monotonic() - started < 10
    assert warnings(caplog) == ["The fallback Switchboard cannot be asked: timed out"]


async def test_fallback_that_fails_later_keeps_its_last_state(tmp_path: Path) -> None:
    """Else a worker would open because the last resort, too, is out of order for a moment."""
    board, path = Switchboard(True), tmp_path / "known"
    fallbacks, from_file = Fallbacks(board), Fallbacks(f"file:{path}")
    path.write_text("1")
    await fallbacks.query()
    await from_file.query()

    board.error = RuntimeError("out of order")
    path.write_text("garbage")

    assert await answer_of(fallbacks) == (True, "board")
    assert await answer_of(from_file) == (True, "file")
    path.unlink()
    assert await answer_of(from_file) == (None, "default")


async def test_fallback_file_unreadable_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "known"
    path.write_text("garbage")
    fallbacks = Fallbacks(f"file:{path}")

    await fallbacks.query()
    await fallbacks.query()

    (line,) = warnings(caplog)
    assert line.startswith(f"The fallback file:{path} cannot be read: ")
    assert "'garbage' is not a boolean word" in line


async def test_fallback_that_is_unhashable_works() -> None:
    class Unhashable(Switchboard):
        __hash__ = None  # type: ignore[assignment]

    broken = Unhashable()
    broken.error = RuntimeError("out of order")

    assert await answer_of(Fallbacks([broken, Unhashable(True)])) == (True, "board")


@pytest.mark.parametrize("chain", [None, 5, [None], [5], ["nowhere:x"], "nowhere:x"])
def test_fallback_chain_invalid_is_refused(chain: object) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"fallback must be backends or their URLs|A backend URL cannot start with",
    ):
        Fallbacks(chain)  # type: ignore[arg-type]


# -- leaving behind --------------------------------------------------------------------------------


async def test_fallback_files_alone_are_mirrored(tmp_path: Path) -> None:
    first, second, board = tmp_path / "first", tmp_path / "second", Switchboard()
    fallbacks = Fallbacks([f"file:{first}", board, f"file:{second}", EnvVarBackend()])
    state = MaintenanceState(enabled=True, message="Soon")

    await fallbacks.mirror(state)

    assert [MaintenanceState.parse(path.read_bytes()) for path in (first, second)] == [state, state]
    assert board.value is False


async def test_fallback_file_unchanged_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "known"
    fallbacks = Fallbacks(f"file:{path}")
    await fallbacks.mirror(ON)
    path.write_text("by hand")

    await fallbacks.mirror(ON)
    assert path.read_text() == "by hand"
    await fallbacks.mirror(OFF)
    assert path.read_text() == "0"


async def test_fallback_file_unwritable_is_logged_once_and_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, good = tmp_path / "missing" / "known", tmp_path / "good"
    fallbacks = Fallbacks([f"file:{path}", f"file:{good}"])

    await fallbacks.mirror(ON)
    await fallbacks.mirror(ON)
    assert good.read_text() == "1"
    (line,) = warnings(caplog)
    assert line.startswith(f"The fallback file:{path} is not up to date: ")

    path.parent.mkdir()
    await eventually(lambda: mirrored(fallbacks, path), within=30)
    shutil.rmtree(path.parent)
    await fallbacks.mirror(OFF)
    assert len(warnings(caplog)) == 2


async def mirrored(fallbacks: Fallbacks, path: Path) -> bool:
    await fallbacks.mirror(ON)
    return path.exists() and path.read_text() == "1"
