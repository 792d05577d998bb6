"""The history of changes: what one entry says, and what is noted by whoever makes a change. Pure."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..exceptions import InvalidStateError
from .state import MaintenanceState

__all__ = ["Attribution", "Change", "Kind", "attribution_json", "truncated"]

Kind = Literal[
    "set", "noticed", "expired", "cleared", "taken", "released", "lapsed", "restored", "lost"
]

_LONGEST: Final = {
    "by": 200,
    "message": 500,
    "reason": 500,
}  # characters; the history is a record and no archive


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a backend's history.

    `kind` says what happened. To a switch: `set` through this package, `noticed` when it had been written past it, `expired` with
    its time to live. To a hold: `taken`, `released`, `lapsed` when its lease ran out. To both: `cleared` by force; after the
    backend lost its data, `restored`, or `lost` where nothing was.
    `state` is what was set, held or let go, without its lists and with long texts cut; None where that cannot be read, and then
    `error` says why, or where there is none. `host` and `pid` are the process that did it or, where it was not done through this package,
    that noticed it.
    """

    id: str
    at: datetime
    kind: Kind
    component: str | None = None
    hold: str | None = None
    state: MaintenanceState | None = None
    by: str | None = None
    host: str | None = None
    pid: int | None = None
    error: str | None = None

    @property
    def reason(self) -> str | None:
        """Why, if that was said."""
        return None if self.state is None else self.state.reason

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, always with the same keys."""
        state = (
            None
            if self.state is None
            else self.state.model_dump(mode="json", exclude={"allow", "bypass"})
        )
        return asdict(self) | {"at": self.at.isoformat().replace("+00:00", "Z"), "state": state}


class Attribution(BaseModel):
    """What is stored of who makes a change, where and to what; from the backend, so not trusted."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    by: str | None = None
    host: str | None = None
    pid: Annotated[int, Field(ge=0)] | None = None
    state: MaintenanceState | None = None
    component: str | None = Field(default=None, validation_alias="scope")  # as it is stored

    @field_validator("state", mode="plain")
    @classmethod
    def _or_none(cls, value: Any) -> MaintenanceState | None:
        try:
            return MaintenanceState.from_document(value)
        except (
            InvalidStateError
        ):  # of a newer version, say; author and place can be read all the same
            return None

    @classmethod
    def parse(cls, text: str | bytes) -> Attribution:
        """Read what `note` wrote. Raises `InvalidStateError` for anything else."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            raise InvalidStateError("The note cannot be read.") from None


def attribution_json(
    state: MaintenanceState | None = None, *, by: str | None = None, component: str | None = None
) -> str:
    """What this process notes of a change that it makes, as JSON; `by` where the state itself does not say who does it."""
    facts = {
        "by": _cut(by, "by"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "scope": component,
    }
    if state is not None:
        facts["by"] = _cut(state.by, "by") or facts["by"]
        facts["state"] = json.loads(truncated(state).model_dump_json(exclude_none=True))
    return json.dumps({name: fact for name, fact in facts.items() if fact is not None})


def truncated(state: MaintenanceState) -> MaintenanceState:
    """A state as it is recorded: texts cut, no lists."""
    texts = {name: _cut(getattr(state, name), name) for name in _LONGEST}
    return state.model_copy(update={**texts, "allow": None, "bypass": None})


def _cut(text: str | None, name: str) -> str | None:
    longest = _LONGEST[name]
    return text if text is None or len(text) <= longest else f"{text[: longest - 1]}…"
