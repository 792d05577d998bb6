"""docs/precedence.md: its table is what `decide()` says of every input. `RENEW_DOCS=1` writes it anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path
from typing import Final, NamedTuple

from fastapi_maintenance._policy import SAFE_METHODS, Decision, closing, decide
from fastapi_maintenance.decorators import Mark
from fastapi_maintenance.state import OFF, ON, MaintenanceState

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "precedence.md"
BEGIN: Final = "<!-- made by tests/test_precedence_document.py, from decide() -->\n"
END: Final = "<!-- end -->\n"
HEADER: Final = (
    "route is marked",
    "route exists",
    "exempt",
    "holds say",
    "`enable_maintenance`",
    "switch says",
    "GET, HEAD, OPTIONS, TRACE",
    "others",
)
ANY: Final = "any"

READ_ONLY: Final = MaintenanceState(enabled=True, mode="read-only")
SAYS: Final = {"nothing": None, "off": OFF, "on": ON, "read-only": READ_ONLY}
MARKS: Final[dict[str, Mark | None]] = {"on": "on", "off": "off", "–": None}
YES: Final = {"no": False, "yes": True}
OVERRIDES: Final = {"`None`": None, "`False`": False, "`True`": True}
OTHERS: Final = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "QUERY", None)

COLUMNS: Final = (MARKS, YES, YES, SAYS, OVERRIDES, {name: state for name, state in SAYS.items() if state is not None})


class Row(NamedTuple):
    """What is given, by the names in the columns, and what comes of it."""

    given: tuple[str, ...]
    outcome: tuple[str, str]


def every_row() -> Iterator[Row]:
    """All inputs, each with what `decide` says of safe methods and of others: of each of them the same."""
    for given in product(*COLUMNS):
        yield Row(given, (outcome_for(given, sorted(SAFE_METHODS)), outcome_for(given, OTHERS)))


def outcome_for(given: tuple[str, ...], methods: tuple[str | None, ...] | list[str]) -> str:
    mark, found, exempt, hold, override, switch = given
    closed = closing(SAYS[hold], OVERRIDES[override], SAYS[switch] or OFF)
    decisions = {show(decide(mark=MARKS[mark], found=YES[found], exempt=YES[exempt], closing=closed, method=method)) for method in methods}
    assert len(decisions) == 1, "methods of one kind must not be told apart"
    return decisions.pop()


def show(decision: Decision) -> str:
    return f"{'**refused**' if decision.refused else 'passes'}: {decision.rule.value}"


def reduced(rows: list[Row], width: int = len(COLUMNS)) -> list[Row]:
    """The same table with `any` wherever a column makes no difference, from the last column to the first."""
    if width == 0:
        return rows
    column = width - 1
    merged: list[Row] = []
    for _, group in groupby(rows, key=lambda row: row.given[:column]):
        alternatives: dict[str, list[Row]] = {value: list(found) for value, found in groupby(group, key=lambda row: row.given[column])}
        tails = [[(row.given[width:], row.outcome) for row in found] for found in alternatives.values()]
        if len(alternatives) == len(COLUMNS[column]) and all(tail == tails[0] for tail in tails):
            first = next(iter(alternatives.values()))
            merged += [row._replace(given=(*row.given[:column], ANY, *row.given[width:])) for row in first]
        else:
            merged += [row for found in alternatives.values() for row in found]
    return reduced(merged, column)


def table() -> str:
    rows = [(*row.given, *row.outcome) for row in reduced(list(every_row()))]
    lines = [HEADER, ("---",) * len(HEADER), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def renew() -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


def documented() -> list[Row]:
    """The rows of the document, read again."""
    text = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()]
    assert cells[0] == HEADER
    return [Row(row[:-2], (row[-2], row[-1])) for row in cells[2:]]


def fits(given: tuple[str, ...], row: Row) -> bool:
    return all(there in (ANY, here) for here, there in zip(given, row.given, strict=True))


def test_the_table_in_the_documentation_is_what_decide_says() -> None:
    if os.environ.get("RENEW_DOCS"):
        renew()
    assert table() in DOCUMENT.read_text(), "run this test with RENEW_DOCS=1"


def test_every_input_is_in_exactly_one_row_which_is_right_about_it() -> None:
    rows = documented()
    for given, outcome in every_row():
        assert [row.outcome for row in rows if fits(given, row)] == [outcome], given


def test_every_row_is_needed_and_every_rule_has_one() -> None:
    given = list(every_row())
    assert all(any(fits(row.given, line) for row in given) for line in documented())
    shown = {cell.partition(": ")[2] for line in documented() for cell in line.outcome}
    assert shown == {"forced-on", "forced-off", "no-route", "exempt", "hold", "override", "switch", "open"}
