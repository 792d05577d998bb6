"""The precedence table, row by row and as a whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Final, get_args

import pytest

from fastapi_maintenance.model.precedence import (
    SAFE_METHODS,
    Closure,
    DecidedBy,
    Decision,
    Effect,
    Mark,
    closure_of,
    decide,
)
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState, Mode

READ_ONLY: Final = MaintenanceState(enabled=True, mode="read-only", message="Reading is fine")
FULL: Final = MaintenanceState(enabled=True, message="Back at 04:00 UTC", retry_after=120)
FINISHED: Final = FULL.model_copy(update={"enabled": False})  # a switch whose window is over
STATES: Final = (OFF, ON, FULL, READ_ONLY, FINISHED)
METHODS: Final = (
    "GET",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "CONNECT",
    "QUERY",
    "get",
    "",
    None,
)


def passed_or_refused(
    mark: Mark | None,
    found: bool,
    exempt: bool,
    hold: MaintenanceState | None,
    override: bool | None,
    switch: MaintenanceState,
    method: str | None,
    effect: Effect | None,
) -> tuple[bool, str, MaintenanceState]:
    """Apply the table of the design: the first row whose condition holds decides."""

    def by_state(name: str, state: MaintenanceState) -> tuple[bool, str, MaintenanceState]:
        if not state.enabled:
            return False, "open", OFF
        reads = effect == "reads" or (
            effect is None and method in ("GET", "HEAD", "OPTIONS", "TRACE")
        )
        passes = state.mode == "read-only" and reads
        return not passes, name, state

    table: list[tuple[bool, Callable[[], tuple[bool, str, MaintenanceState]]]] = [
        (mark == "on", lambda: (True, "forced-on", ON)),
        (mark == "off", lambda: (False, "forced-off", OFF)),
        (not found, lambda: (False, "no-route", OFF)),
        (exempt, lambda: (False, "exempt", OFF)),
        (hold is not None, lambda: by_state("hold", hold or OFF)),
        (
            override is not None,
            lambda: by_state("override", MaintenanceState(enabled=bool(override))),
        ),
        (True, lambda: by_state("switch", switch)),
    ]
    return next(says() for applies, says in table if applies)


def test_every_combination_is_decided_as_the_table_says() -> None:
    cases = 0
    marks, effects = ((None, *get_args(each)) for each in (Mark, Effect))
    yes = (True, False)
    for mark, found, exempt, hold, override, switch, method, effect in product(
        marks, yes, yes, (None, *STATES), (None, True, False), STATES, METHODS, effects
    ):
        closed = closure_of(hold, override, switch)
        decision = decide(
            mark=mark, found=found, exempt=exempt, closure=closed, method=method, effect=effect
        )
        expected = passed_or_refused(mark, found, exempt, hold, override, switch, method, effect)
        assert (decision.refused, decision.rule.value, decision.state) == expected, (
            mark,
            found,
            exempt,
            hold,
            override,
            switch,
            method,
            effect,
        )
        cases += 1
    assert cases == 3 * 2 * 2 * 6 * 3 * 5 * len(METHODS) * 3


def test_inputs_of_the_table_are_complete() -> None:
    """A new mark or mode must be thought through here before it is used."""
    assert get_args(Mark) == ("on", "off")
    assert get_args(Effect) == ("reads", "writes")
    assert get_args(Mode) == ("full", "read-only")
    assert {"GET", "HEAD", "OPTIONS", "TRACE"} == SAFE_METHODS


def test_outcomes_are_listed_in_order_of_precedence() -> None:
    assert [outcome.value for outcome in DecidedBy] == [
        "forced-on",
        "forced-off",
        "no-route",
        "exempt",
        "hold",
        "override",
        "switch",
        "open",
    ]


@pytest.mark.parametrize("state", STATES)
def test_hold_precedes_override_and_override_precedes_switch(state: MaintenanceState) -> None:
    assert closure_of(ON, False, OFF) == Closure(DecidedBy.HOLD, ON)
    assert closure_of(OFF, True, ON) is None
    assert closure_of(None, True, state) == Closure(DecidedBy.OVERRIDE, ON)
    assert closure_of(None, False, state) is None


def test_closure_has_the_details_of_the_rule_that_closed() -> None:
    assert closure_of(READ_ONLY, True, FULL) == Closure(DecidedBy.HOLD, READ_ONLY)
    assert closure_of(None, None, FULL) == Closure(DecidedBy.SWITCH, FULL)


def test_override_with_read_only_switch_refuses_everything() -> None:
    closed = closure_of(None, True, READ_ONLY)
    assert decide(mark=None, found=True, exempt=False, closure=closed, method="GET") == Decision(
        True, DecidedBy.OVERRIDE, ON
    )


def test_forced_on_route_is_refused_while_open() -> None:
    assert decide(mark="on", found=True, exempt=True, closure=None, method="GET") == Decision(
        True, DecidedBy.FORCED_ON, ON
    )


def test_forced_on_route_has_no_details_of_the_switch() -> None:
    closed = closure_of(None, None, FULL)
    assert decide(mark="on", found=True, exempt=False, closure=closed, method="GET").state == ON


@pytest.mark.parametrize("method", ["POST", "DELETE", "get", None])
def test_read_only_mode_refuses_writes_and_websockets(method: str | None) -> None:
    closed = closure_of(None, None, READ_ONLY)
    assert decide(mark=None, found=True, exempt=False, closure=closed, method=method) == Decision(
        True, DecidedBy.SWITCH, READ_ONLY
    )


@pytest.mark.parametrize("method", sorted(SAFE_METHODS))
def test_read_only_mode_passes_safe_methods_only_there(method: str) -> None:
    def refused(state: MaintenanceState) -> bool:
        return decide(
            mark=None, found=True, exempt=False, closure=closure_of(state, None, OFF), method=method
        ).refused

    assert not refused(READ_ONLY)
    assert refused(FULL)


@pytest.mark.parametrize("method", METHODS)
def test_effect_decides_in_read_only_mode_whatever_the_method(method: str | None) -> None:
    def refused(effect: Effect, state: MaintenanceState) -> bool:
        closed = closure_of(state, None, OFF)
        return decide(
            mark=None, found=True, exempt=False, closure=closed, method=method, effect=effect
        ).refused

    assert [
        refused(effect, state) for state in (READ_ONLY, FULL) for effect in get_args(Effect)
    ] == [False, True, True, True]
