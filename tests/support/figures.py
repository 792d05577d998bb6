"""The figures of the house: entries, floors, circles, lines and retired words, each with its limit.
`scripts/lint` prints and enforces them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final, NamedTuple

import grimp

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "fastapi_maintenance"

_RETIRED: Final = """
MaintenanceAnswer, MaintenanceBlock, maintenance_scope, ScopeSwitch, ScopeStanding, ScopeReport,
ScopeOption, RollCall, roll_call, fill_gaps, replace_state, coming_window, current_admission,
concerned_by, classify_with, mode_at_hand, backend_at_hand, in_flight_changed, follow_scopes,
write_scope, check_scope, scope_of, scopes_on, tell_once, write_through, have_it, since_before,
layers_of, serve_once, refuse_foreign, keep_private, mode_asked, scope_asked, is_on_the_move,
read_on_the_move, marks_of, note_cleared, run_held, roll_on, LiveRoll, RollLines, SharedContext,
CrossOrigin, heard_at, hang_up, is_abandoned, lets_go, let_go, LONGEST_RETRY, MOST_ALLOWED,
encode_json, encode_problem, encode_page, encode_plain, settles_in, at_hand, BypassAsked,
BypassMade, BarrierAsked, Evictable, InFlight, Knowledge, Verdict, whoever, nobody, somebody, of
its own accord, cannot be meant, cannot be said, Rung, rungs, Wire, open_wire, lookout, NameResolver
"""
RETIRED: Final = tuple(" ".join(_RETIRED.split()).split(", "))
"""What has another word now (the glossary is part of CONTRIBUTING): whole words, in the package,
the documentation and the README.
"""


class Figure(NamedTuple):
    """One number, the most that it may be, and what it should come down to where that is less.

    A limit above its aim is lowered with each change that makes room.
    """

    name: str
    value: int
    limit: int
    aim: int | None = None


def figures() -> list[Figure]:
    """Count everything."""
    package = ROOT / PACKAGE
    entries = [path for path in package.iterdir() if path.name not in ("py.typed", "__pycache__")]
    demo = [package / "cli" / name for name in ("demo.py", "embedded.py")]
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return [
        Figure("entries in the package", len(entries), 18),
        Figure("floors", len(_floors()), 10),
        Figure("import circles", len(_circles()), 0),
        Figure(
            "exceptions in the contract of the floors",
            len(_contract().get("ignore_imports", ())),
            0,
        ),
        Figure("lines of the package", _lines(package.rglob("*.py")), 17_600, 12_500),
        Figure("lines of the demo", _lines(demo), 540, 400),
        Figure(
            "lines of the benchmarks", _lines((ROOT / "benchmarks").rglob("*.py")), 2_440, 1_500
        ),
        Figure("lines of the README", _lines(pages[:1]), 160),
        Figure("retired words", sum(1 for _ in retired_in([*_sources(package), *pages])), 0),
    ]


def retired_in(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the place of each retired word."""
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(RETIRED)})(?!\w)")
    for path in sorted(paths):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for match in pattern.finditer(line):
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]}"


def main(*options: str) -> int:
    """Print each figure with its limit; 1 if any is above. `--words` names the places of retired
    words.
    """
    counted = figures()
    for name, value, limit, aim in counted:
        verdict = ("" if aim is None else f", aim {aim}") + ("" if value <= limit else "  too many")
        sys.stdout.write(f"{name:<44}{value:>7} of {limit}{verdict}\n")
    if "--words" in options:
        pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        sys.stdout.writelines(
            f"{place}\n" for place in retired_in([*_sources(ROOT / PACKAGE), *pages])
        )
    return int(any(figure.value > figure.limit for figure in counted))


def _sources(package: Path) -> list[Path]:
    return [*package.rglob("*.py"), *package.rglob("*.lua")]


def _contract() -> dict[str, list[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return next(contract for contract in contracts if contract["name"] == "Floors")


def _circles() -> list[tuple[str, ...]]:
    """Return the entries of the package that import each other, over others or directly."""
    graph = grimp.build_graph(PACKAGE)
    imported: dict[str, set[str]] = {}
    for module in graph.modules - {PACKAGE}:
        theirs = graph.find_modules_directly_imported_by(module) - {PACKAGE}
        imported.setdefault(module.split(".")[1], set()).update(
            name.split(".")[1] for name in theirs
        )
    sorter = TopologicalSorter({entry: others - {entry} for entry, others in imported.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        return [tuple(error.args[1])]
    return []


def _floors() -> list[str]:
    return _contract()["layers"]


def _lines(paths: Iterable[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
