"""The value of the switch: parsing, writing, windows and Retry-After. Pure: no clock, no I/O."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from ..exceptions import InvalidStateError

TRUE_WORDS: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
FALSE_WORDS: Final = frozenset({"0", "off", "f", "false", "n", "no"})
MAX_BYTES: Final = 64 * 1024
DEFAULT_RETRY_AFTER: Final = 3600
MAX_RETRY_AFTER: Final = 2**31 - 1  # seconds; what every HTTP client can still parse
MAX_ALLOW_ENTRIES: Final = 100  # entries of a list, each of which a request is compared with
Mode = Literal["full", "read-only"]
_MAX_PROBLEMS: Final = 5


def _writable(text: str) -> str:
    """Escape lone surrogates, as in file names, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _in_utc(time: datetime) -> datetime:
    """Convert a time to UTC: the first or last second of the calendar if it is outside of that."""
    return min(max(time, _FIRST), _LAST).astimezone(UTC)


_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC, microsecond=0)
Text = Annotated[str, AfterValidator(_writable)]
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


def parse_bool(word: str) -> bool:
    """Parse a boolean word of the switch, in any case and with surrounding space.

    Raises `InvalidStateError` for any other text.
    """
    folded = word.strip().lower()
    if folded in TRUE_WORDS:
        return True
    if folded in FALSE_WORDS:
        return False
    raise InvalidStateError(
        f"{_excerpt(word)} is not a boolean word: "
        "write 1, on, true, yes, y or t for on; 0, off, false, no, n or f for off."
    )


class BypassRecord(BaseModel):
    """The record of a bypass token in the switch. It does not contain the token."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    id: Annotated[Text, Field(max_length=64)]
    until: Time
    note: Text | None = None


class MaintenanceState(BaseModel):
    """The state of a switch or a hold: on or off, with details for visitors and operators.

    `message` is public; `reason` and `by` are for operators only. `retry_after` is in seconds.
    `starts_at` and `ends_at` need a time zone. Each reader evaluates the window by the clock of the
    backend. `allow` lists up to 100 requests that pass, like `/login`, `POST /login` or
    `10.1.0.0/16`. `bypass` lists up to 100 bypass tokens by their records.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool
    message: Text | None = None
    reason: Text | None = None
    retry_after: Annotated[int, Field(ge=0, le=MAX_RETRY_AFTER)] | None = None
    starts_at: Time | None = None
    ends_at: Time | None = None
    mode: Mode = "full"
    by: Text | None = None
    since: Time | None = None
    allow: Annotated[tuple[Text, ...], Field(max_length=MAX_ALLOW_ENTRIES)] | None = None
    bypass: Annotated[tuple[BypassRecord, ...], Field(max_length=MAX_ALLOW_ENTRIES)] | None = None

    _ignored: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> Self:
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise ValueError("ends_at must be later than starts_at")
        return self

    @classmethod
    def parse(cls, value: str | bytes | None) -> MaintenanceState:
        """Parse a switch value: absent is off, else a boolean word or a JSON object.

        A JSON object with a valid `enabled` is obeyed; `ignored` has the details that are not.
        Raises `InvalidStateError` for everything else and beyond 64 KiB.
        """
        if value is None:
            return OFF
        # A lone surrogate, as the environment may contain, becomes the bytes that are not UTF-8
        # again.
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        if len(raw) > MAX_BYTES:
            raise InvalidStateError(
                f"The value must have at most {MAX_BYTES} bytes, got {len(raw)}."
            )
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise InvalidStateError(f"{_excerpt(raw)} is not UTF-8 text.") from None
        if not text.lstrip().startswith("{"):
            return ON if parse_bool(text) else OFF
        try:
            document = from_json(text)
        except ValueError as error:
            raise InvalidStateError(
                f"The JSON cannot be read as a state: Invalid JSON: {error}."
            ) from None
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Any) -> MaintenanceState:
        """Read a JSON object without its unknown and invalid details.

        Raises `InvalidStateError` without a valid `enabled`.
        Without a detail, a state closes at least as much as the intended one: every request, from
        now on, without an end.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            problems = _explain(error)
            invalid = {problem["loc"][0] if problem["loc"] else None for problem in error.errors()}
        if not isinstance(document, dict) or "enabled" in invalid:
            raise InvalidStateError(
                f"The JSON cannot be read as a state: {'; '.join(problems)}."
            ) from None
        if None in invalid:  # an empty window
            invalid |= {"starts_at", "ends_at"}
        state = cls.from_document({key: document[key] for key in document if key not in invalid})
        state._ignored = (*problems, *state._ignored)[:_MAX_PROBLEMS]
        return state

    @property
    def ignored(self) -> tuple[str, ...]:
        """The problems of the details that were ignored when the state was read."""
        return self._ignored

    def replace(self, **changes: object) -> MaintenanceState:
        """Return a copy with other values, which must be valid."""
        return self.model_copy(update=changes)

    def dump(self) -> str:
        """Format the value: `1` or `0` without details, else JSON.

        Raises `InvalidStateError` beyond 64 KiB.
        """
        if not self.has_details:
            return "1" if self.enabled else "0"
        text = self.model_dump_json(exclude_none=True)
        if (size := len(text.encode())) > MAX_BYTES:
            raise InvalidStateError(
                f"The state must have at most {MAX_BYTES} bytes, got {size}. Shorten its texts."
            )
        return text

    @property
    def has_details(self) -> bool:
        """Return whether the state has more than on or off."""
        return self not in (ON, OFF)

    def active_at(self, now: datetime) -> bool:
        """Return whether the state is on at a time. A window includes its start, not its end."""
        return (
            self.enabled
            and (self.starts_at is None or self.starts_at <= now)
            and (self.ends_at is None or now < self.ends_at)
        )

    def changes_after(self, now: datetime) -> datetime | None:
        """Return the next time at which `active_at` changes, or `None`."""
        edges = (self.starts_at, self.ends_at) if self.enabled else ()
        return min((edge for edge in edges if edge is not None and now < edge), default=None)

    def retry_after_at(self, now: datetime, default: int = DEFAULT_RETRY_AFTER) -> int:
        """Return the seconds for Retry-After: as set, else until the end, else the default."""
        if self.retry_after is not None:
            return self.retry_after
        if self.ends_at is None:
            return default
        return min(max(0, math.ceil((self.ends_at - now).total_seconds())), MAX_RETRY_AFTER)


ON: Final = MaintenanceState(enabled=True)
OFF: Final = MaintenanceState(enabled=False)


def _excerpt(value: str | bytes) -> str:
    shown = repr(value if len(value) <= 40 else value[:40])
    return shown if len(value) <= 40 else f"{shown}…"


def _explain(error: ValidationError) -> list[str]:
    """Return a clause with the key for each of the first problems. None quotes a whole value."""
    clauses = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(map(str, problem["loc"]))[:40]
        message = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        clauses.append(f"{key}: {message}" if key else message)
    return clauses[:_MAX_PROBLEMS]
