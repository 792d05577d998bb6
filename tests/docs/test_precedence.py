"""docs/precedence.md: its tables are what the deciding functions say of every input. `RENEW_DOCS=1`
writes them anew.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, product
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.precedence import SAFE_METHODS, Decision, Mark, closure_of, decide
from fastapi_maintenance.model.snapshot import ComponentSwitch, Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.gate import SnapshotCache, StalenessPolicy

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "precedence.md"
ANY: Final = "any"


class Row(NamedTuple):
    """What is given, by the names in the columns, and what comes of it."""

    given: tuple[str, ...]
    outcome: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Inputs by name, and what comes of each combination of their values."""

    maker: str
    columns: Mapping[str, Sequence[str]]
    outcomes: Sequence[str]
    decided: Callable[[tuple[str, ...]], tuple[str, ...]]

    @property
    def header(self) -> tuple[str, ...]:
        return *self.columns, *self.outcomes

    @property
    def _begin(self) -> str:
        return f"<!-- made by tests/docs/test_precedence.py, from {self.maker} -->\n"

    @property
    def _end(self) -> str:
        return f"<!-- end of {self.maker} -->\n"

    def every_row(self) -> list[Row]:
        """All inputs, each with what comes of it."""
        return [Row(given, self.decided(given)) for given in product(*self.columns.values())]

    def text(self) -> str:
        """As it stands in the document."""
        rows = [
            (*row.given, *row.outcome) for row in self._reduced(self.every_row(), len(self.columns))
        ]
        return "".join(
            f"| {' | '.join(cells)} |\n"
            for cells in [self.header, ("---",) * len(self.header), *rows]
        )

    def documented(self) -> list[Row]:
        """The rows of the document, read again."""
        text = DOCUMENT.read_text().partition(self._begin)[2].partition(self._end)[0].strip()
        cells = [
            tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()
        ]
        assert cells[0] == self.header
        return [Row(row[: len(self.columns)], row[len(self.columns) :]) for row in cells[2:]]

    def renew(self) -> None:
        """Write it into the document."""
        before, _, rest = DOCUMENT.read_text().partition(self._begin)
        DOCUMENT.write_text(
            f"{before}{self._begin}\n{self.text()}\n{self._end}{rest.partition(self._end)[2]}"
        )

    def _reduced(self, rows: list[Row], width: int) -> list[Row]:
        """The same with `any` wherever a column makes no difference, from the last column to the
        first.
        """
        if width == 0:
            return rows
        column = width - 1
        values = list(self.columns.values())[column]
        merged: list[Row] = []
        for _, group in groupby(rows, key=lambda row: row.given[:column]):
            alternatives = {
                value: list(found)
                for value, found in groupby(group, key=lambda row: row.given[column])
            }
            tails = [
                [(row.given[width:], row.outcome) for row in found]
                for found in alternatives.values()
            ]
            if len(alternatives) == len(values) and all(tail == tails[0] for tail in tails):
                first = next(iter(alternatives.values()))
                merged += [
                    row._replace(given=(*row.given[:column], ANY, *row.given[width:]))
                    for row in first
                ]
            else:
                merged += [row for found in alternatives.values() for row in found]
        return self._reduced(merged, column)


# -- one request -----------------------------------------------------------------------------------

READ_ONLY: Final = MaintenanceState(enabled=True, mode="read-only")
SAYS: Final = {"nothing": None, "off": OFF, "on": ON, "read-only": READ_ONLY}
MARKS: Final[dict[str, Mark | None]] = {"on": "on", "off": "off", "–": None}
YES: Final = {"no": False, "yes": True}
OVERRIDES: Final = {"`None`": None, "`False`": False, "`True`": True}
OTHERS: Final = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "QUERY", None)


def for_methods(given: tuple[str, ...]) -> tuple[str, ...]:
    """What is decided of safe methods, and of others: of each of them the same."""
    return decided_of(given, SAFE_METHODS), decided_of(given, OTHERS)


def decided_of(given: tuple[str, ...], methods: Iterable[str | None]) -> str:
    mark, found, exempt, hold, override, switch = given
    closed = closure_of(SAYS[hold], OVERRIDES[override], SAYS[switch] or OFF)
    decisions = {
        show(
            decide(
                mark=MARKS[mark],
                found=YES[found],
                exempt=YES[exempt],
                closure=closed,
                method=method,
            )
        )
        for method in methods
    }
    assert len(decisions) == 1, "methods of one kind must not be told apart"
    return decisions.pop()


def show(decision: Decision) -> str:
    return f"{'**refused**' if decision.refused else 'passes'}: {decision.rule.value}"


REQUESTS: Final = Table(
    "decide()",
    {
        "route is marked": [*MARKS],
        "route exists": [*YES],
        "exempt": [*YES],
        "holds say": [*SAYS],
        "`enable_maintenance`": [*OVERRIDES],
        "switch says": [name for name, state in SAYS.items() if state is not None],
    },
    ("GET, HEAD, OPTIONS, TRACE", "others"),
    for_methods,
)

# -- one component ---------------------------------------------------------------------------------

NOW: Final = datetime(2026, 11, 22, tzinfo=UTC)
HOLDS: Final = {"nothing": None, "off": False, "on": True}
GENERAL: Final = MaintenanceState(enabled=True, message="general")
OWN: Final[dict[str, MaintenanceState | None]] = {
    "nothing": None,
    "off": OFF,
    "on": MaintenanceState(enabled=True, message="own"),
    "not yet": MaintenanceState(
        enabled=True, message="own", starts_at=datetime(2100, 1, 1, tzinfo=UTC)
    ),
}
SWITCHES: Final = {"off": OFF, "on": GENERAL}


def for_a_scope(given: tuple[str, ...]) -> tuple[str]:
    """What a worker that has read this goes by for the routes of the component."""
    general_holds, own_holds, override, own, switch = given
    held = {None: HOLDS[general_holds], "billing": HOLDS[own_holds]}
    reading = Snapshot(
        SWITCHES[switch],
        tuple(
            Hold(str(component), ON if on else OFF, component=component)
            for component, on in held.items()
            if on is not None
        ),
        NOW.timestamp(),
        components={} if OWN[own] is None else {"billing": ComponentSwitch(OWN[own])},
    )
    options: Any = {
        "kind": "redis",
        "enable_maintenance": OVERRIDES[override],
        "on_unreachable": "last-known",
    }
    knowledge = SnapshotCache(
        StalenessPolicy(
            **options,
            stale_after=math.inf,
            ttl=1.0,
            counts_from_registering=False,
            asks_always=False,
        )
    )
    knowledge.store(reading, 0.0, 0.0)
    closed = (
        knowledge.evaluate_gate(0.0, None, "default", watched=True).for_component("billing").closure
    )
    if closed is None:
        return ("passes",)
    by = f"{closed.state.message} switch" if closed.rule == "switch" else closed.rule.value
    return (f"**refused**: {by}",)


COMPONENTS: Final = Table(
    "evaluate()",
    {
        "holds of everything say": [*HOLDS],
        "holds of the component say": [*HOLDS],
        "`enable_maintenance`": [*OVERRIDES],
        "the component's own switch says": [*OWN],
        "general switch says": [*SWITCHES],
    },
    ("a request for it",),
    for_a_scope,
)

# --------------------------------------------------------------------------------------------------

TABLES: Final = pytest.mark.parametrize("table", [REQUESTS, COMPONENTS], ids=["requests", "scopes"])


def fits(given: tuple[str, ...], row: Row) -> bool:
    return all(there in (ANY, here) for here, there in zip(given, row.given, strict=True))


@TABLES
def test_the_table_in_the_documentation_is_what_is_decided(table: Table) -> None:
    if os.environ.get("RENEW_DOCS"):
        table.renew()
    assert table.text() in DOCUMENT.read_text(), "run this test with RENEW_DOCS=1"


@TABLES
def test_every_input_is_in_exactly_one_correct_row(table: Table) -> None:
    rows = table.documented()
    for given, outcome in table.every_row():
        assert [row.outcome for row in rows if fits(given, row)] == [outcome], given


@TABLES
def test_every_row_is_needed(table: Table) -> None:
    given = table.every_row()
    assert all(any(fits(row.given, line) for row in given) for line in table.documented())


def test_every_rule_has_a_row() -> None:
    shown = {cell.partition(": ")[2] for line in REQUESTS.documented() for cell in line.outcome}
    assert shown == {
        "forced-on",
        "forced-off",
        "no-route",
        "exempt",
        "hold",
        "override",
        "switch",
        "open",
    }
    assert {cell for line in COMPONENTS.documented() for cell in line.outcome} == {
        "passes",
        "**refused**: hold",
        "**refused**: override",
        "**refused**: own switch",
        "**refused**: general switch",
    }
