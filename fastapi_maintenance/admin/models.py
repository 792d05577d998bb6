"""Models of requests and responses. Stricter models have validated the data of responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..backends.status import StatusReport
from ..model.state import BypassRecord, MaintenanceState
from ..model.workers import RegistrySnapshot

DecidedBy = Literal["hold", "switch", "general switch"]


class State(MaintenanceState, extra="ignore"):
    """The state of a switch or a hold."""


class Switch(State):
    """The stored switch."""

    expires_in: float | None = Field(None, description="Seconds until its key expires.")
    ignored_details: list[str] = Field([], alias="ignored", description="Ignored parts of it.")


class Hold(State):
    """A lease on the state."""

    id: str
    lease: float | None = Field(description="Seconds; null if it ends with its process.")
    lifts: list[str] = Field(description="The holds that an off hold lifts.")
    component: str | None = None


class Window(BaseModel):
    """A window of maintenance."""

    starts_at: AwareDatetime | None
    ends_at: AwareDatetime | None


class BackendReport(BaseModel):
    """The backend that stores the switch."""

    kind: str
    url: str = Field(description="Without the password.")


class StateReport(BaseModel):
    """The state at one time of the backend's clock."""

    component: str | None
    enabled: bool | None = Field(description="Whether maintenance is on; null if unknown.")
    decided_by: DecidedBy | None
    state: State | None = Field(description="The effective state.")
    retry_after: int | None = Field(description="Seconds of the Retry-After header.")
    changes_at: AwareDatetime | None = Field(description="When it may change by time alone.")
    switch: Switch | None = Field(description="null if it cannot be read; `error` says why.")
    upcoming: Window | None = Field(description="The window that has not begun.")
    holds: list[Hold] | None = Field(description="Oldest first; null if they cannot be read.")
    error: str | None
    now: AwareDatetime
    backend: BackendReport

    @classmethod
    def of(cls, report: StatusReport) -> Self:
        return cls.model_validate(report.to_json())


class ComponentReport(BaseModel):
    """A part of the application that can be closed alone."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(validation_alias="component")
    enabled: bool | None
    decided_by: DecidedBy | None
    has_own_switch: bool

    @classmethod
    def all_of(cls, report: StatusReport, names: Iterable[str]) -> list[Self]:
        return [cls.model_validate(report.about(name)) for name in sorted(names)]


class WorkerSummary(BaseModel):
    """A worker process."""

    id: str
    host: str
    pid: int
    http: int = Field(description="Requests in flight; while closed, those that a drain waits for.")
    websockets: int
    fenced: bool = Field(description="Whether it surely closes once the registry has lost it.")


class WorkerReport(WorkerSummary):
    """A worker process, as the registry has it.

    It is drained if it is closed without a request in flight, and vanished if it stopped reporting
    without shutting down and is not proved gone.
    """

    version: str
    delivery: str = Field(description="How it learns of changes.")
    status: Literal["open", "closed", "drained", "vanished"]
    why_not_gone: str | None = Field(description="Why a vanished worker is not proved gone.")
    applied: bool = Field(description="Whether it has applied the stored state.")
    unrouted: list[str] = Field(description="Paths answered without a route while closed.")

    @classmethod
    def all_of(cls, registry: RegistrySnapshot) -> list[Self]:
        present = sorted(registry.workers, key=lambda each: (each.host, each.pid, each.id))
        return [
            cls.model_validate(
                each.to_json()
                | {
                    "status": each.status,
                    "applied": each.applied == registry.reading.fingerprint,
                    "why_not_gone": registry.why_not_gone(each) if each.vanished else None,
                }
            )
            for each in present
        ]


class BarrierRequest(BaseModel):
    """The condition to wait for."""

    drained: bool = Field(False, description="Also wait until no gated request is in flight.")
    timeout: float = Field(30.0, gt=0, le=300, description="Seconds.")


class Barrier(BaseModel):
    """The workers at the end of the wait, by status."""

    ok: bool = Field(description="Whether it is proved that every worker has applied the state.")
    why_not: str | None
    elapsed: float = Field(description="Seconds.")
    trusted_in: float = Field(description="Seconds until the registry is surely complete.")
    state: State
    drained: list[WorkerSummary]
    applied: list[WorkerSummary]
    waiting: list[WorkerSummary]
    expired: list[WorkerSummary]
    unfenced: list[WorkerSummary]
    joined: list[str]


class BypassCreate(BaseModel):
    """A bypass token to create."""

    lasting: float = Field(3600.0, gt=0, le=366 * 86400, description="Seconds.")
    note: str | None = Field(None, max_length=200, description="For whom; shown to operators only.")


class BypassCreated(BypassRecord):
    """A new bypass token. It is stored nowhere, so this is the only answer with it."""

    token: str = Field(description="For the header X-Maintenance-Bypass.")
    query: str = Field(description="Added to any URL of the application: one visit sets a cookie.")
    link: str = Field(description="The root with the token, relative to this request's URL.")
