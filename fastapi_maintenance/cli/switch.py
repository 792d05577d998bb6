"""The commands `on` and `off`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from ..backends import BaseStateBackend
from ..backends.base import ReplicaAck
from ..backends.status import StatusReport, describe_hold, look
from ..model.holds import Hold
from ..model.state import OFF, MaintenanceState
from .console import ExitCode, echo, exit_with, handle_errors
from .durations import parse_until
from .options import (
    AllowOption,
    AtOption,
    BackendOption,
    ByOption,
    ComponentOption,
    ForOption,
    JsonOption,
    MessageOption,
    ModeName,
    ModeOption,
    ReasonOption,
    RetryAfterOption,
    TimeoutOption,
    UnfencedOption,
    UntilOption,
    operator,
)
from .render import print_status, replicas_line
from .workers import conclude_wait, watch_wait

_MAX_NAMED_HOLDS: Final = 5
_REPLICA_TIMEOUT: Final = 1.0  # seconds

_WOULD_OPEN: Final = (
    "The switch is on already. A window would turn it off until the start, so nothing was changed. "
    "Run 'off' first to replace it by the window."
)
_TOO_LATE: Final = (
    "The end would be beyond the calendar, so nothing was changed. Use a shorter --for, or none."
)
_CHANGED_AGAIN: Final = (
    "The switch was written, and then changed by another operator. See 'status' and try again."
)

app = typer.Typer()


@app.command()
def on(
    backend: BackendOption,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every live worker has closed.")
    ] = False,
    drained: Annotated[
        bool,
        typer.Option(
            "--drained", help="Also wait until no request is in flight that is refused now."
        ),
    ] = False,
    timeout: TimeoutOption = 30.0,
    allow_unfenced: UnfencedOption = False,
    message: MessageOption = None,
    reason: ReasonOption = None,
    at: AtOption = None,
    length: ForOption = None,
    until: UntilOption = None,
    retry_after: RetryAfterOption = None,
    mode: ModeOption = ModeName.FULL,
    allow: AllowOption = None,
    component: ComponentOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn maintenance on, and print the resulting status.

    With --at it starts at that time. Until then, 'schedule' shows the window and can cancel it.

    If Redis has replicas, prints how many have the new state, after one second at most. A
    failover to a replica without it would open the service.

    Exits with 1 if maintenance is off afterwards, for whatever reason. With --wait, exits with 3
    if workers have not followed in time, and with 4 if vanished workers may still be serving.
    Maintenance then stays on.
    """
    if length is not None and until is not None:
        raise typer.BadParameter("both set the end. Use one.", param_hint="--for and --until")
    if at is not None and (wait or drained):
        raise typer.BadParameter(
            "nothing closes before the start. Use one.", param_hint="--at and --wait"
        )
    starts_at, ends_at = _window(at, until)
    state = MaintenanceState(
        enabled=True,
        message=message or None,
        reason=reason or None,
        retry_after=retry_after,
        starts_at=starts_at,
        ends_at=ends_at,
        mode=mode.value,
        allow=tuple(allow or ()) or None,
        by=by or operator(),
    )
    with handle_errors():
        finish(asyncio.run(_turn_on(backend, state, length, component)), as_json=as_json)
        if not (wait or drained):
            return
        result = watch_wait(
            backend, component=component, drained=drained, timeout=timeout, silent=as_json
        )
    conclude_wait(result, strict=not allow_unfenced)


@app.command()
def off(
    backend: BackendOption,
    force: Annotated[
        bool, typer.Option("--force", help="Also end all holds. Their holders are told.")
    ] = False,
    component: ComponentOption = None,
) -> None:
    """Turn maintenance off, and print the resulting status.

    Turning a component off removes its own switch. The general switch then applies to it.

    Exits with 1 if maintenance is still on, as it is while a hold stands.
    """
    if force and component is not None:
        raise typer.BadParameter(
            "--force ends the holds of all components. Use one.",
            param_hint="--force and --component",
        )
    with handle_errors():
        finish(asyncio.run(turn_off(backend, force=force, component=component)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The status after a change. `problem` is empty if the change had its effect."""

    report: StatusReport
    problem: str
    replicas: ReplicaAck | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything but the problem as JSON values, always with the same keys."""
        replicas = None if self.replicas is None else asdict(self.replicas)
        return self.report.to_json() | {"replicas": replicas}


def finish(outcome: Outcome, *, as_json: bool = False) -> None:
    """Print the status, and exit with an error if the change did not have its effect."""
    if as_json:
        echo(json.dumps(outcome.to_json(), indent=2))
    else:
        print_status(outcome.report)
        if outcome.replicas is not None:
            echo(replicas_line(outcome.replicas))
    if outcome.problem:
        exit_with(outcome.problem, ExitCode.FAILED)


async def turn_off(
    backend: BaseStateBackend, *, force: bool = False, component: str | None = None
) -> Outcome:
    """Turn a switch off, and with `force` end all holds. Raises `BackendError`."""
    if component is not None:
        await backend.write_component(component, OFF)
    elif force:
        await backend.clear()
    else:
        await backend.write(OFF)
    report = await look(backend, component)
    return Outcome(report, _why_not_off(report))


async def _turn_on(
    backend: BaseStateBackend,
    state: MaintenanceState,
    length: timedelta | None,
    component: str | None,
) -> Outcome:
    # Windows are judged by the backend's clock, so `length` counts from there, not from this
    # host's.
    before = await look(backend, component)
    own = component is None or before.has_own_switch
    if state.starts_at is not None and before.switch_is_on and own:
        return Outcome(before, _WOULD_OPEN)
    state = state.replace(since=before.now.replace(microsecond=0))
    if length is not None:
        # An end, not a time to live of the key: it can still be read when it is over, and it
        # survives an edit with a plain SET and a copy to another server.
        try:
            state = state.replace(ends_at=(state.starts_at or before.now) + length)
        except OverflowError:
            return Outcome(before, _TOO_LATE)
    replicas = None
    if component is None:
        replicas = await backend.write_replicated(state, within=_REPLICA_TIMEOUT)
    else:
        await backend.write_component(component, state)
    report = await look(backend, component)
    return Outcome(report, _why_not_on(report, state), replicas)


def _window(at: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    now = datetime.now().astimezone()
    name = "--at"
    try:
        starts_at = None if at is None else parse_until(at, now)
        name = "--until"
        return starts_at, None if until is None else parse_until(until, now, starts_at)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def _why_not_on(report: StatusReport, asked: MaintenanceState) -> str:
    if report.switch != asked:
        return _CHANGED_AGAIN
    if report.state is None:
        return f"The switch is on, but the effective state is unknown: {report.reading.error}"
    if report.state.enabled or report.upcoming is not None:
        return ""
    if report.deciding:
        return (
            f"The switch is on, but maintenance stays off because of {_named(report.deciding)}. "
            "It starts when they end. To end them now, run 'off --force' and then 'on' again."
        )
    return (
        "The switch is on, but its end is over already: "
        f"on {report.url} it is {report.now:%Y-%m-%d %H:%M:%S} UTC."
    )


def _why_not_off(report: StatusReport) -> str:
    own = report.component is None or report.has_own_switch
    if own and report.switch is not None and report.switch.enabled:
        return _CHANGED_AGAIN
    if report.state is None:
        return f"The switch is off, but the effective state is unknown: {report.reading.error}"
    if not report.state.enabled:
        return ""
    if not report.deciding:
        return (
            "The component has no switch of its own any more, but maintenance stays on because of "
            "the general one. See 'status'."
        )
    return (
        f"The switch is off, but maintenance stays on because of {_named(report.deciding)}. "
        "It ends when they do. To end them now, run 'off --force'."
    )


def _named(holds: Sequence[Hold]) -> str:
    names = ", ".join(describe_hold(hold) for hold in holds[:_MAX_NAMED_HOLDS])
    more = len(holds) - _MAX_NAMED_HOLDS
    rest = f" and {more} more" if more > 0 else ""
    return f"{len(holds)} {'hold' if len(holds) == 1 else 'holds'}: {names}{rest}"
