"""Parts of a library that the tests write."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastapi_maintenance._internal import imports
from fastapi_maintenance._internal.imports import import_part

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the library `parted`: its `__init__`, and that of `parted.inner`, and a part in it."""

    def write(outer: str, inner: str = "", part: str = "VALUE = 2") -> None:
        package = tmp_path / "parted" / "inner"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").write_text(outer)
        (package / "__init__.py").write_text(inner)
        (package / "part.py").write_text(part)
        (package / "other.py").write_text("from .part import VALUE")

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    yield write
    for name in loaded():
        del sys.modules[name]


def loaded() -> list[str]:
    return sorted(name for name in sys.modules if name.partition(".")[0] == "parted")


def test_part_is_imported_without_its_packages(write: Write) -> None:
    write("1 / 0", "1 / 0")

    import_part("parted.inner.part")

    assert loaded() == ["parted.inner.part"]
    assert importlib.import_module("parted.inner.part").VALUE == 2


def test_import_after_a_part_has_the_whole_library(write: Write) -> None:
    write(
        "from parted import inner\nfrom .inner import part, NAME", "from .part import VALUE as NAME"
    )
    import_part("parted.inner.part")
    part = sys.modules["parted.inner.part"]

    library = importlib.import_module("parted")

    assert (library.NAME, library.inner.NAME, library.inner.part) == (2, 2, part)
    assert type(library) is type(library.inner) is type(sys)
    assert library.__spec__ == find_spec("parted")
    assert library.__spec__ is not None
    assert library.__loader__ is library.__spec__.loader


def test_import_of_another_module_runs_its_packages(write: Write) -> None:
    write("RUN = 1", "RUN = 2")
    import_part("parted.inner.part")

    assert importlib.import_module("parted.inner.other").VALUE == 2
    assert [sys.modules[name].RUN for name in ("parted", "parted.inner")] == [1, 2]


def test_part_that_keeps_its_package_sees_it_whole(write: Write) -> None:
    write("RUN = 1", part="import parted\ndef run(): return parted.RUN")
    import_part("parted.inner.part")

    assert sys.modules["parted.inner.part"].run() == 1
    with pytest.raises(AttributeError, match="no attribute 'MISSING'"):
        _ = sys.modules["parted"].MISSING


def test_part_that_needs_the_rest_is_left_to_imports(write: Write) -> None:
    write("NEEDED = 1\nfrom .inner.part import NEEDED", part="from parted import NEEDED")

    import_part("parted.inner.part")

    assert loaded() == []
    assert importlib.import_module("parted.inner.part").NEEDED == 1


PART_BESIDE_A_THREAD = """
import concurrent.futures, sys

def other():
    from parted import NAME
    return NAME

started = concurrent.futures.ThreadPoolExecutor().submit(other)
sys.parted.append(started)
concurrent.futures.wait([started], 0.5)
"""


@pytest.mark.parametrize("needed", ["", "from parted import NAME"])
def test_thread_that_imports_meanwhile_has_the_library(
    write: Write, monkeypatch: pytest.MonkeyPatch, needed: str
) -> None:
    write("NAME = 1", part=PART_BESIDE_A_THREAD + needed)
    started: list[Future[int]] = []
    monkeypatch.setattr(sys, "parted", started, raising=False)

    import_part("parted.inner.part")

    assert [each.result(timeout=20) for each in started] == [1]


def test_thread_that_imports_for_long_is_not_waited_for(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("RUN = 1", part="import parted\ndef run(): return parted.RUN")
    import_part("parted.inner.part")
    monkeypatch.setattr(imports, "_LOCK_TIMEOUT", 0.01)

    with ThreadPoolExecutor() as threads, imports._Unrun.lock:
        assert threads.submit(sys.modules["parted.inner.part"].run).result(timeout=20) == 1


def test_part_of_a_loaded_library_changes_nothing(write: Write) -> None:
    write("RUN = 1")
    library = importlib.import_module("parted")

    import_part("parted.inner.part")

    assert (sys.modules["parted"], loaded()) == (library, ["parted"])


@pytest.mark.parametrize("module", ["parted_missing.part", "parted.missing.part"])
def test_part_that_is_missing_changes_nothing(write: Write, module: str) -> None:
    write("")

    import_part(module)

    assert loaded() == []


def test_part_dropped_by_a_test_runner_is_imported_again(write: Write) -> None:
    write("RUN = 1")
    import_part("parted.inner.part")
    import_part("parted.inner.part")
    del sys.modules["parted.inner.part"]

    import_part("parted.inner.part")

    assert importlib.import_module("parted").RUN == 1
    assert loaded() == ["parted", "parted.inner.part"]
