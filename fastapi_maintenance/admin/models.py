"""What the API answers, as its OpenAPI document describes it. Checks little: all of it was read by stricter models before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field

from ..backends.status import StatusReport
from ..model import history
from ..model.history import Kind
from ..model.state import BypassRecord, Mode
from ..model.workers import RegistrySnapshot, Worker

__all__ = [
    "Barrier",
    "BarrierRequest",
    "Bypass",
    "BypassCreate",
    "BypassCreated",
    "Change",
    "ComponentReport",
    "Hold",
    "State",
    "StateReport",
    "Switch",
    "WorkerReport",
]


class Bypass(BaseModel):
    """What is known of a token that lets a tester through; not the token."""

    id: str
    until: AwareDatetime
    note: str | None = None

    @classmethod
    def all_of(cls, records: Iterable[BypassRecord]) -> list[Bypass]:
        """Return what is public of each token."""
        return [Bypass.model_validate(record.model_dump()) for record in records]


class State(BaseModel):
    """What a switch or a hold says."""

    enabled: bool
    message: str | None = Field(None, description="For visitors.")
    reason: str | None = Field(None, description="For operators.")
    retry_after: int | None = Field(None, description="Seconds.")
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    mode: Mode = "full"
    by: str | None = None
    since: AwareDatetime | None = None
    allow: list[str] | None = Field(None, description="Who passes all the same.")
    bypass: list[Bypass] | None = None


class Switch(State):
    """The switch as it is stored."""

    expires_in: float | None = Field(None, description="Seconds that its key has left to live.")
    ignored: list[str] = Field(
        [], description="Invalid or unknown details of the stored JSON, which are ignored."
    )


class Hold(State):
    """A lease on the state."""

    id: str
    lease: float | None = Field(
        None,
        description="Seconds until it ends unless it is renewed; null where it ends with its process.",
    )
    lifts: list[str] = Field(description="The holds that an off hold lifts.")
    component: str | None = None


class Window(BaseModel):
    """When it will be on."""

    starts_at: AwareDatetime | None
    ends_at: AwareDatetime | None


class BackendReport(BaseModel):
    """Where the switch is kept."""

    kind: str
    url: str = Field(description="Without a password.")


class StateReport(BaseModel):
    """What is true at one instant of the backend's clock."""

    component: str | None
    enabled: bool | None = Field(
        description="Whether maintenance is on; null where that cannot be said."
    )
    decided_by: Literal["hold", "switch", "general switch"] | None
    state: State | None = Field(description="The effective state, of switch and holds together.")
    retry_after: int | None = Field(description="Seconds that clients are told to wait.")
    changes_at: AwareDatetime | None = Field(description="When the state may change by itself.")
    switch: Switch | None = Field(description="null where it cannot be read; `error` says why.")
    upcoming: Window | None = Field(description="The window that has not begun.")
    holds: list[Hold] | None = Field(
        description="The live ones, oldest first; null where they cannot be read."
    )
    error: str | None
    now: AwareDatetime
    backend: BackendReport

    @classmethod
    def of(cls, report: StatusReport) -> Self:
        """The same as JSON values."""
        return cls.model_validate(report.to_json())


class ComponentReport(BaseModel):
    """A part of the application that can be closed alone."""

    name: str
    enabled: bool | None
    decided_by: Literal["hold", "switch", "general switch"] | None
    has_own_switch: bool

    @classmethod
    def all_of(cls, report: StatusReport, names: Iterable[str]) -> list[Self]:
        """Return what a report says of each part, by name."""
        reports = {name: report.about(name) for name in sorted(names)}
        return [
            cls.model_validate(
                {
                    "name": name,
                    "enabled": None if one.state is None else one.state.enabled,
                    "decided_by": one.decided_by,
                    "has_own_switch": one.has_own_switch,
                }
            )
            for name, one in reports.items()
        ]


class WorkerReport(BaseModel):
    """One worker process, as the registry has it."""

    id: str
    host: str
    pid: int
    version: str
    rung: str = Field(description="How it hears of changes.")
    stands: Literal["open", "closed", "drained", "vanished"] = Field(
        description="drained: closed, with no request in flight to wait for; vanished: it was lost without leaving, up to a minute ago."
    )
    applied: bool = Field(description="Whether it has read what is stored now.")
    http: int = Field(description="Requests in flight; while closed, those to wait for.")
    websockets: int
    fenced: bool = Field(
        description="Whether it surely closes by itself once the registry has lost it."
    )
    unrouted: list[str] = Field(
        description="Paths that it answered without a route while closed: ways around the gate."
    )

    @classmethod
    def all_of(cls, roll: RegistrySnapshot) -> list[Self]:
        """Those that live, and those that vanished without leaving, by host and process."""
        present = sorted(
            (worker for worker in roll.workers if not worker.left),
            key=lambda worker: (worker.host, worker.pid, worker.id),
        )
        return [cls._of(worker, roll) for worker in present]

    @classmethod
    def _of(cls, worker: Worker, roll: RegistrySnapshot) -> Self:
        lives = roll.reading.now < worker.deadline
        known: dict[str, Any] = {
            name: getattr(worker, name)
            for name in ("id", "host", "pid", "version", "rung", "http", "websockets")
        }
        return cls(
            **known,
            stands=worker.standing if lives else "vanished",
            applied=worker.applied == roll.reading.fingerprint,
            fenced=worker.is_fenced,
            unrouted=list(worker.unrouted),
        )


class Change(BaseModel):
    """One change of a switch or a hold."""

    id: str
    at: AwareDatetime
    kind: Kind = Field(
        description="Of a switch: set, noticed (it had been written past us), expired. Of a hold: taken, released, lapsed. "
        "Of both: cleared by force, restored or lost after a loss of data."
    )
    component: str | None
    hold: str | None
    state: State | None
    by: str | None
    host: str | None
    pid: int | None
    error: str | None

    @classmethod
    def all_of(cls, changes: Sequence[history.Change]) -> list[Self]:
        """The newest first."""
        return [cls.model_validate(change.to_json()) for change in reversed(changes)]


class BarrierRequest(BaseModel):
    """What to wait for."""

    drained: bool = Field(
        False, description="Also until no request is in flight that would be refused now."
    )
    timeout: float = Field(30.0, gt=0, le=300, description="Seconds.")


class BarrierWorker(BaseModel):
    """A worker that was waited for."""

    id: str
    host: str
    pid: int
    http: int
    websockets: int
    fenced: bool


class Barrier(BaseModel):
    """Where every worker stands when the wait is over."""

    ok: bool = Field(description="Whether it is proved that every worker has followed.")
    why_not: str | None
    elapsed: float = Field(description="Seconds.")
    settles_in: float = Field(
        description="For so many seconds there may be workers of whom a young registry does not know yet."
    )
    state: State
    drained: list[BarrierWorker]
    applied: list[BarrierWorker]
    waiting: list[BarrierWorker]
    expired: list[BarrierWorker]
    unfenced: list[BarrierWorker]
    joined: list[str]


class BypassCreate(BaseModel):
    """A token to make."""

    lasting: float = Field(3600.0, gt=0, le=366 * 86400, description="Seconds.")
    note: str | None = Field(
        None, max_length=200, description="Who it is for; visitors never see it."
    )


class BypassCreated(Bypass):
    """A token that lets its bearer through. It is said once, and kept nowhere."""

    token: str = Field(description="For the header X-Maintenance-Bypass.")
    query: str = Field(description="Added to any URL of the application: one visit sets a cookie.")
    link: str = Field(
        description="The application's root with the token, relative to the URL of this request."
    )
