"""Close, or open, the service for the length of a block, across replicas."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from datetime import UTC, datetime
from inspect import isasyncgenfunction, isgeneratorfunction
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, cast

from anyio.from_thread import start_blocking_portal

from .._internal.callables import is_async
from .._internal.logging import error_text, log_fields
from .._internal.validation import positive
from ..backends.base import BaseStateBackend, SupportsComponents, SupportsLeases
from ..exceptions import ConfigurationError, LeaseLostError, UnsupportedError
from ..exemptions.allow_list import check_entry
from ..model.components import check_component
from ..model.holds import Hold
from ..model.state import MaintenanceState, Mode
from ..runtime.current import current_backend
from ..runtime.requests import InFlightRequest, current_request
from .barrier import BarrierResult, wait_until_applied
from .lease import LeaseKeeper, LocalLease

__all__ = ["MaintenanceContext", "maintenance_mode_off", "maintenance_mode_on"]

logger = logging.getLogger("fastapi_maintenance")

P = ParamSpec("P")
R = TypeVar("R")
OnError = Literal["release", "keep"]
OnLost = Literal["tell", "cancel"] | Callable[[LeaseLostError], object]
Progress = Callable[[BarrierResult], None]

_enclosing: ContextVar[tuple[str, ...]] = ContextVar("fastapi_maintenance_enclosing", default=())
"""The on holds of the blocks that the code is in; an off hold inside lifts these and no others."""


def maintenance_mode_on(
    backend: str | BaseStateBackend | None = None,
    *,
    reason: str | None = None,
    message: str | None = None,
    retry_after: int | None = None,
    mode: Mode = "full",
    allow: Sequence[str] = (),
    lease: float = 30.0,
    on_error: OnError = "release",
    on_lost: OnLost = "tell",
    drain: float | None = None,
    strict: bool = True,
    expect: int | None = None,
    progress: Progress | None = None,
    component: str | None = None,
) -> MaintenanceContext:
    """Maintenance is on for the length of a block, everywhere the backend reaches: `async with`, `with`, or a decorator.

    Without `backend`, that of the application whose request or lifespan this runs in, else the process' default.
    The hold is a lease of `lease` seconds, renewed from a thread, so it ends by itself if the process dies.
    `allow` names requests that pass all the same, like `/login`, `POST /login` or `10.1.0.0/16`, as far as all holds that stand allow them.
    `on_error="keep"` turns a failed block into a switch that stays on, with the error as its reason.
    A hold that is lost (ended by force, or run out while cut off) shows on the object: `lost`, and `check()` raises
    `LeaseLostError`; `on_lost="cancel"` also cancels the block (`async with` only), which then ends with that error.
    A function as `on_lost` is called with the error at once, from the thread that renews the lease.
    With `drain`, the block is run only when every live worker has closed and no request that a closed service would refuse
    is in flight, other than the one that runs the block; `drain` is the most seconds to wait for that. If that is not
    reached, `DrainTimeout` names the laggards. If workers vanished that may still be serving, `UnfencedError` names them,
    unless `strict` is False; it says too if none is registered. `expect` waits for exactly so many workers, also for 0.
    The hold is then released, or kept as `on_error` says. `progress` is called with a
    `BarrierResult` whenever something has changed during the wait.
    With `component`, all this is about its routes alone; `on_error="keep"` then needs Redis, else entering raises `UnsupportedError`.
    Entering raises `BackendError` if the hold cannot be taken. Whenever entering raises, the block is not run.
    """
    allowed = tuple(map(check_entry, allow)) or None
    state = _state(
        True, message=message, reason=reason, retry_after=retry_after, mode=mode, allow=allowed
    )
    return MaintenanceContext(
        state,
        backend,
        lease,
        on_error,
        on_lost,
        drain=drain,
        strict=strict,
        expect=expect,
        progress=progress,
        component=component,
    )


def maintenance_mode_off(
    backend: str | BaseStateBackend | None = None,
    *,
    reason: str | None = None,
    lease: float = 30.0,
    on_error: OnError = "release",
    on_lost: OnLost = "tell",
    component: str | None = None,
) -> MaintenanceContext:
    """Maintenance is off for the length of a block: the switch and the enclosing blocks' own holds are lifted.

    Never lifts somebody else's hold, nor without `component` a switch that a component has itself.
    Everything else is as in `maintenance_mode_on`.
    """
    return MaintenanceContext(
        _state(False, reason=reason), backend, lease, on_error, on_lost, component=component
    )


class MaintenanceContext:
    """What `maintenance_mode_on` and `maintenance_mode_off` return."""

    def __init__(
        self,
        state: MaintenanceState,
        backend: str | BaseStateBackend | None,
        lease: float,
        on_error: OnError,
        on_lost: OnLost,
        *,
        drain: float | None = None,
        strict: bool = True,
        expect: int | None = None,
        progress: Progress | None = None,
        component: str | None = None,
    ) -> None:
        if on_error not in ("release", "keep"):
            raise ConfigurationError(f"on_error must be release or keep, not {on_error!r}.")
        if on_lost not in ("tell", "cancel") and not callable(on_lost):
            raise ConfigurationError(
                f"on_lost must be tell or cancel, or a function, not {on_lost!r}."
            )
        self._state = state
        self._given = backend
        self._seconds = positive("lease", lease)
        self._on_error = on_error
        self._on_lost = on_lost
        self._drain = None if drain is None else positive("drain", drain)
        self._strict = strict
        self._expect = expect
        self._progress = progress
        self._scope = component if component is None else check_component(component)
        self._hold: Hold | None = None  # while the block is entered
        self._lease: LeaseKeeper | LocalLease | None = None
        self._cancellation: _Cancellation | None = None
        self._excused: InFlightRequest | None = None
        self.release_error = ""
        """Why the hold could not be released when the block ended, or empty."""

    @property
    def lost(self) -> bool:
        """Whether the hold ended before the block did."""
        return self._lease is not None and bool(self._lease.lost)

    def check(self) -> None:
        """Raise `LeaseLostError` if the hold ended before the block did; call it before what must not run in the open."""
        if self._lease is not None:
            self._lease.check()

    # -- async with ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        hold, lease = self._prepare()
        try:
            await lease.acquire()
        except asyncio.CancelledError:
            self._detach()
            raise
        self._enter(hold)
        try:
            await self._drained()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hold, lease = self._leave()
        keep = self._kept(hold, error)
        try:
            await lease.release(keep)
        except asyncio.CancelledError as cancelled:
            self._detach(cancelled)  # our own may arrive only now that the block is over
            raise
        except Exception as failure:
            self._explain(failure, error, keep)
        if self._cancellation is not None:
            self._cancellation.take_back(error)

    def _detach(self, error: asyncio.CancelledError | None = None) -> None:
        """The task goes on while the thread still takes or releases the hold."""
        if self._cancellation is not None:
            self._cancellation.detached = True
            self._cancellation.take_back(error)

    # -- with ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._on_lost == "cancel":
            raise ConfigurationError(
                "on_lost='cancel' needs 'async with': a synchronous block cannot be cancelled. Call check() in it."
            )
        hold, lease = self._prepare(LeaseKeeper)
        assert isinstance(lease, LeaseKeeper)
        try:
            lease.begin().result()
        except BaseException:
            lease.end()  # as on Ctrl-C while it is being taken
            raise
        self._enter(hold)
        if self._drain is not None:
            try:
                # In a thread of its own, because this one may be running an event loop already; and Ctrl-C here ends the wait there.
                with start_blocking_portal() as portal:
                    portal.call(self._drained)
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hold, lease = self._leave()
        assert isinstance(lease, LeaseKeeper)
        keep = self._kept(hold, error)
        try:
            lease.end(keep).result()
        except Exception as failure:
            self._explain(failure, error, keep)

    # -- decorator -----------------------------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Run every call of a function in a block of its own."""
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise ConfigurationError(
                f"{function!r} is a generator, which runs after its call has ended: use 'with' inside it instead."
            )
        if is_async(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._another():
                    return await cast(Awaitable[Any], function(*args, **kwargs))

            return cast(Callable[P, R], run_async)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._another():
                return function(*args, **kwargs)

        return run

    def _another(self) -> MaintenanceContext:
        block = copy(self)
        block._hold = block._lease = block._cancellation = block._excused = None
        return block

    # -- both ----------------------------------------------------------------------------------------------------------

    def _prepare(
        self, kind: type[LeaseKeeper] | None = None
    ) -> tuple[Hold, LeaseKeeper | LocalLease]:
        if self._hold is not None:
            raise RuntimeError(
                "This block is already entered; call maintenance_mode_on() or _off() again for another one."
            )
        backend = current_backend(self._given)
        if (
            self._scope is not None
            and self._on_error == "keep"
            and not isinstance(backend, SupportsComponents)
        ):
            raise UnsupportedError(
                f"{backend.describe()} keeps no switches of components, so on_error='keep' could not be kept."
            )
        state = self._state.replace(
            by=f"{socket.gethostname()}:{os.getpid()}", since=datetime.now(UTC)
        )
        hold = Hold(
            secrets.token_hex(8),
            state,
            lifts=() if state.enabled else _enclosing.get(),
            component=self._scope,
        )
        self.release_error = ""
        self._cancellation = _Cancellation() if self._on_lost == "cancel" else None
        if kind is LeaseKeeper or isinstance(backend, SupportsLeases):
            on_lost = self._cancellation or (self._on_lost if callable(self._on_lost) else None)
            self._lease = LeaseKeeper(backend, hold, self._seconds, on_lost)
        else:
            self._lease = LocalLease(backend, hold, self._seconds)
        return hold, self._lease

    def _enter(self, hold: Hold) -> None:
        self._hold = hold
        if hold.state.enabled:
            _enclosing.set((*_enclosing.get(), hold.id))
            self._excused = current_request.get()
            self._excuse(hold, lets_go=False)

    async def _drained(self) -> None:
        if self._drain is not None:
            assert self._lease is not None
            result = await wait_until_applied(
                self._lease.backend,
                component=self._scope,
                drained=True,
                timeout=self._drain,
                expect=self._expect,
                progress=self._progress,
            )
            result.check(strict=self._strict)
            self.check()

    def _leave(self) -> tuple[Hold, LeaseKeeper | LocalLease]:
        hold, lease = self._hold, self._lease
        if hold is None or lease is None:
            raise RuntimeError("This block was never entered.")
        self._hold = None
        # Not by token: an async generator may be finalised in another context than it began in.
        _enclosing.set(tuple(id for id in _enclosing.get() if id != hold.id))
        self._excuse(hold, lets_go=True)
        self._excused = None
        return hold, lease

    def _excuse(self, hold: Hold, *, lets_go: bool) -> None:
        """Nobody waits for the request that holds the service closed itself: it would wait for its own end."""
        if self._excused is not None and self._lease is not None:
            change = self._excused.include if lets_go else self._excused.exclude
            change(self._lease.backend.describe(), hold.component)

    def _kept(self, hold: Hold, error: BaseException | None) -> MaintenanceState | None:
        if error is None or self._on_error == "release":
            return None
        summary = ": ".join(
            filter(None, (hold.state.reason, type(error).__name__, str(error)[:500]))
        )
        return hold.state.replace(reason=summary)

    def _explain(
        self, failure: Exception, error: BaseException | None, keep: MaintenanceState | None
    ) -> None:
        """A release that fails must not hide how the block ended; the hold ends by itself."""
        assert self._lease is not None
        backend = self._lease.backend
        note = f"The hold could not be released ({error_text(failure).removesuffix('.')})"
        if isinstance(backend, SupportsLeases):
            note += f"; it ends by itself within {self._seconds:g} s"
        if keep is not None:
            position = "on" if keep.enabled else "off"
            note += f", and the switch was NOT kept {position}: turn it {position} by hand"
        self.release_error = note
        logger.critical("%s", note, extra=log_fields("hold-kept", backend=backend.describe()))
        if error is not None:
            error.add_note(note)


class _Cancellation:
    """Cancels the task that is in a block whose hold was lost; not what others cancel it for."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._task = asyncio.get_running_loop(), task
        self._others = task.cancelling()
        self._lost: LeaseLostError | None = None
        self.detached = False

    def __call__(self, lost: LeaseLostError) -> None:
        """Cancel, from the thread that renews the lease."""

        def cancel() -> None:
            if not self.detached:
                self._lost = lost
                self._task.cancel()

        with suppress(RuntimeError):  # the loop was closed without leaving the block
            self._loop.call_soon_threadsafe(cancel)

    def take_back(self, error: BaseException | None) -> None:
        """Take the cancellation back. Raise why it was made instead of an error that it alone has caused."""
        lost, self._lost = self._lost, None
        if lost is None:
            return
        ours_alone = self._task.uncancel() <= self._others
        if ours_alone and isinstance(error, asyncio.CancelledError):
            raise LeaseLostError(f"The block was cancelled. {lost}") from error


def _state(enabled: bool, **details: Any) -> MaintenanceState:
    try:
        return MaintenanceState(enabled=enabled, **details)
    except ValueError as error:
        raise ConfigurationError(f"The block cannot be described so: {error}") from None
