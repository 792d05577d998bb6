"""The place of one worker in the registry: its record, its reports, and what the registry lost."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import NoPermissionError

from ..._internal.logging import log_fields
from ..._internal.threads import in_thread
from ..._internal.validation import is_number
from ...model.snapshot import Snapshot
from ...model.workers import FORMAT, Worker
from ..base import WorkerReporter
from .connection import Command, Reply
from .keys import Keys
from .process import Process, proved_gone
from .script import is_unknown

logger = logging.getLogger("fastapi_maintenance")

LIFETIMES: Final = 3  # a report lives this many ttl
RETRY_AFTER: Final = 10  # after this many ttl, try again what was forbidden
_RECORDED: Final = ("host", "pid", "started", "version", "fence")
"""The fields of the record, which is written once. The other fields are in the reports."""

Send = Callable[..., Awaitable[list[Reply]]]


class Registration:
    """Builds the commands that register a worker, and interprets the replies.

    Without `report`, the worker only observes. Each report has a sequence number, by which a
    rollback of the data is noticed.
    """

    def __init__(
        self, backend: str, keys: Keys, worker: str, report: WorkerReporter | None, *, ttl: float
    ) -> None:
        self._backend = backend
        self._keys = keys
        self._worker = worker
        self.said: WorkerReporter = report or dict  # of itself; empty for an observer
        self._ttl = ttl
        self._lifetime = ttl * LIFETIMES
        self.begun_at = 0.0
        self.joined = False  # on this connection
        self.ever_joined = False
        self.refusal = ""  # why it is not registered
        self._logged = ""
        self._retry_at = 0.0
        self._has_record = False  # as far as this worker knows
        self.sequence = self._reported = 0  # the last report that was made, and that was accepted
        self.knows_since = 0  # the first report that was made with the switch that it knows
        self._pending: tuple[object, ...] = ()
        self._acknowledged: tuple[object, ...] | None = None
        self.generation = ""
        self._generation_since = 0.0
        self.is_regenerated = False
        self.noticed = 0  # bare writes that the history has
        self.restored = b""  # with which knowledge lost data was last restored
        self.vanished = b""  # the workers whose reports are over, as the registry lists them
        self._beside: dict[bytes, Worker] = {}  # vanished workers whose records are known
        self._process: Process | None = None

    def begin(self) -> None:
        """Forget what the server of the last connection permitted and knew."""
        self.joined = False
        self.begun_at = self._generation_since = time.monotonic()
        self._retry_at = 0.0

    async def find_process(self) -> None:
        """Find out what identifies this process; again after a fork."""
        if self._process is None or self._process.pid != os.getpid():
            self._process = await in_thread(Process.current)

    def commands(self, delivery: str, *, changed: bool = False) -> list[Command]:
        """Return the commands that register this worker; none if it may not register.

        With `changed`, none either if the registry has this report already.
        """
        said = self.said() if time.monotonic() >= self._retry_at else {}
        acknowledgement = _acknowledgement(said)
        if changed and acknowledgement == self._acknowledged:
            return []
        if not said:
            self._acknowledged = None
            return []
        self.sequence += 1
        self._pending = acknowledgement
        known_for = round(time.monotonic() - self._generation_since, 3)
        report = {name: value for name, value in said.items() if name not in _RECORDED}
        report |= {"delivery": delivery, "generation": self.generation, "known_for": known_for}
        text, key = f"{self.sequence} {json.dumps(report)}", self._keys.report(self._worker)
        registering: list[Command] = [("SET", key, text, "PX", round(self._lifetime * 1000))]
        if not self.joined:
            assert self._process is not None
            record = self._process._asdict() | {
                name: said[name] for name in _RECORDED if name in said
            }
            record |= {"lifetime": self._lifetime, "format": FORMAT}
            registering += [
                ("HSETNX", self._keys.registry, "#generation", secrets.token_hex(6)),
                ("HSET", self._keys.registry, self._worker, json.dumps(record)),
            ]
        return registering

    def earlier_report(self, delivery: str) -> tuple[str, int]:
        """Return the registration that versions before 1.0 read, and its lifetime."""
        said = {**self.said(), "rung": delivery, "lifetime": self._lifetime, "format": FORMAT}
        return json.dumps(said), round(self._lifetime * 1000)

    def lacks(self, snapshot: Snapshot) -> bool:
        """Return whether the registry does not know yet that this snapshot was applied."""
        known = (self._acknowledged or (None,))[:2]
        return known[0] is not None and known != (snapshot.epoch, snapshot.fingerprint)

    def accept(self, replies: Sequence[Reply]) -> bool:
        """Return whether the worker is registered."""
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is None:
            self.joined = self.ever_joined = self._has_record = True
            self._reported = self.sequence
            self._acknowledged, self.refusal = self._pending, ""
            return True
        if isinstance(refused, NoPermissionError) or is_unknown(refused):
            self._retry_at = time.monotonic() + RETRY_AFTER * self._ttl
        self._acknowledged, self.refusal = None, str(refused)
        return False

    @property
    def is_stale(self) -> bool:
        """Return whether the connection is so old that what was refused may be tried on another."""
        return time.monotonic() > self.begun_at + RETRY_AFTER * self._ttl

    def log(self) -> None:
        """Log whether this worker is registered, if that is new."""
        if self.refusal == self._logged or (self.refusal and self._logged):
            return
        self._logged = self.refusal
        depth = "read" if self.refusal else "full"
        extra = log_fields("rights", backend=self._backend, depth=depth)
        if self.refusal:
            logger.warning(
                "Redis refuses to register this worker (%s); following the switch without "
                "registering, so no barrier can wait for this worker",
                self.refusal,
                extra=extra,
            )
        else:
            logger.info("Redis registers this worker again", extra=extra)

    def evidence(self) -> list[Command]:
        """Return the commands that read evidence for rolled-back data, without writing."""
        if self.joined or not self._has_record:
            return []
        return [
            ("GET", self._keys.report(self._worker)),
            ("HEXISTS", self._keys.registry, self._worker),
            ("HGET", self._keys.recorded, "!epochs"),
        ]

    def compare(self, evidence: Sequence[Reply], epoch: int) -> tuple[bool, bool]:
        """Return whether the data were rolled back, and whether the report is suspiciously old.

        A missing record proves it, and so does a report from before the last change of the switch,
        unless no newer one was accepted; then it is suspicious only. A missing report proves
        nothing: it may have expired. Later epochs than the last known one, but not that one itself,
        prove that it was lost.
        """
        report, recorded, epochs = evidence
        number = report.partition(b" ")[0] if isinstance(report, bytes) else b""
        suspicious = is_number(number) and int(number) < self.knows_since
        found = epochs.split() if isinstance(epochs, bytes) else []
        past = [int(text) for text in found if is_number(text)]
        lost = bool(past) and past[0] < epoch < past[-1] and epoch not in past
        lost |= recorded == 0 or (suspicious and int(number) < self._reported)
        return lost, suspicious

    def find_place(self, found: Reply) -> bool:
        """Compare the registry with what it was. Return whether it lost something."""
        if not isinstance(found, list):
            return False
        mine, generation, noticed, vanished, restored = found
        generation = (generation or b"").decode(errors="replace")
        count = int(noticed) if noticed and is_number(noticed) else 0
        lost = bool(self.generation) and (generation != self.generation or count < self.noticed)
        if mine is None and self._has_record:
            self.joined = self._has_record = False
            lost = True
        if generation != self.generation:
            self.is_regenerated = True
            self.renew_generation(generation)
        self.noticed, self.vanished, self.restored = count, vanished or b"", restored or b""
        return lost

    def renew_generation(self, generation: str) -> None:
        """Note that the registry has another generation from now on."""
        self.generation, self._generation_since = generation, time.monotonic()

    async def prove_gone(self, send: Send) -> None:
        """Remove the vanished workers of this machine or container that are dead."""
        ids = self.vanished.split()[::2]
        if unknown := [id for id in ids if id not in self._beside]:
            (records,) = await send(("HMGET", self._keys.registry, *unknown))
            if isinstance(records, Exception):
                return
            self._beside |= {
                id: Worker.parse(id.decode(errors="replace"), record or b"", None)
                for id, record in zip(unknown, records, strict=True)
            }
        self._beside = {id: self._beside[id] for id in ids}
        process = self._process
        assert process is not None
        near = [worker for worker in self._beside.values() if process.concerns(worker)]
        if near and (gone := await proved_gone(near, process)):
            await send(("HDEL", self._keys.registry, *gone))


def _acknowledgement(report: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the part of a report that a barrier may wait for."""
    components: Mapping[str, Any] = report.get("components", {})
    statuses = {name: (own["closed"], own["drained"]) for name, own in components.items()}
    return *(report.get(name) for name in ("epoch", "applied", "closed", "drained")), statuses
