"""Close or open the service for the length of a block, on every worker."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from copy import copy
from datetime import UTC, datetime
from inspect import isasyncgenfunction, isgeneratorfunction
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, cast

from .._internal.callables import is_async
from .._internal.logging import error_text, log_fields
from .._internal.validation import positive
from ..backends.base import BaseStateBackend, SupportsComponents, SupportsLeases
from ..exceptions import ConfigurationError, LeaseLostError, UnsupportedError
from ..model.components import check_component
from ..model.holds import Hold
from ..model.state import MaintenanceState, Mode
from ..runtime.current import current_backend
from ..runtime.requests import current_request
from .barrier import BarrierResult, wait_until_applied
from .lease import LeaseKeeper, LocalHold

logger = logging.getLogger("fastapi_maintenance")

P = ParamSpec("P")
R = TypeVar("R")
OnError = Literal["release", "keep"]
OnLost = Literal["tell", "cancel"] | Callable[[LeaseLostError], object]
Progress = Callable[[BarrierResult], object]
Wait = Callable[[BaseStateBackend], Awaitable[BarrierResult]]

_RELEASE_TIMEOUT: Final = 2.0  # seconds, for a block that was cancelled while taking its hold

_enclosing: ContextVar[tuple[str, ...]] = ContextVar("fastapi_maintenance_enclosing", default=())
"""The ids of the on holds of the enclosing blocks. An off hold inside lifts these and no others."""


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
    """Hold maintenance on for the length of a block: `async with`, `with`, or a decorator.

    `backend` defaults to that of the current application, else to the default of the process.
    The hold is a lease of `lease` seconds, renewed from a thread. It expires if the process dies.
    `allow` lists requests that pass, like `/login`, `POST /login` or `10.1.0.0/16`. If several
    holds stand, a request passes only if all of them allow it.
    `on_error="keep"` turns a failed block into a switch that stays on, with the error as its
    reason.

    A hold is lost if it is ended by force, or expires while the process is cut off. Then `lost` is
    True and `check()` raises `LeaseLostError`. `on_lost="cancel"` also cancels the block, which
    ends with that error (`async with` only). A function as `on_lost` is called with the error at
    once, from the thread that renews the lease.

    With `drain`, the block starts only when every worker has closed and no request is in flight
    that a closed service refuses, except for the one that runs the block. `drain` is the longest
    wait in seconds. `DrainTimeout` names the workers that are still pending. `UnfencedError` names
    workers that vanished and may still be serving, unless `strict` is False, and says if no worker
    is registered. `expect` waits for exactly this number of workers, which may be 0. In all these
    cases the hold is released, or kept as `on_error` says. `progress` is called with a
    `BarrierResult` whenever something has changed during the wait.

    With `component`, all of this applies to its routes only. `on_error="keep"` then needs Redis;
    otherwise entering raises `UnsupportedError`.
    Entering raises `BackendError` if the hold cannot be taken. If entering raises, the block is
    not run.
    """
    if allow:
        from ..exemptions.allow_list import check_entry  # imports FastAPI

        allow = tuple(map(check_entry, allow))
    state = _state(
        True,
        message=message,
        reason=reason,
        retry_after=retry_after,
        mode=mode,
        allow=tuple(allow) or None,
    )
    wait: Wait | None = None
    if drain is not None:
        wait = functools.partial(
            wait_until_applied,
            component=component,
            drained=True,
            timeout=positive("drain", drain),
            expect=expect,
            progress=progress,
        )
    return MaintenanceContext(
        state, backend, lease, on_error, on_lost, wait=wait, strict=strict, component=component
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
    """Hold maintenance off for the length of a block.

    Lifts the switch and the holds of enclosing blocks, but no other hold. Without `component`, it
    does not lift the switches of components. The options are those of `maintenance_mode_on`.
    """
    return MaintenanceContext(
        _state(False, reason=reason), backend, lease, on_error, on_lost, component=component
    )


class MaintenanceContext:
    """The context manager and decorator that holds maintenance on or off."""

    def __init__(
        self,
        state: MaintenanceState,
        backend: str | BaseStateBackend | None,
        lease: float,
        on_error: OnError,
        on_lost: OnLost,
        *,
        wait: Wait | None = None,
        strict: bool = True,
        component: str | None = None,
    ) -> None:
        if on_error not in ("release", "keep"):
            raise ConfigurationError(f"on_error must be release or keep, got {on_error!r}.")
        if on_lost not in ("tell", "cancel") and not callable(on_lost):
            raise ConfigurationError(
                f"on_lost must be tell or cancel, or a function, got {on_lost!r}."
            )
        self._state = state
        self._given = backend
        self._seconds = positive("lease", lease)
        self._on_error = on_error
        self._on_lost = on_lost
        self._wait = wait
        self._strict = strict
        self._component = component if component is None else check_component(component)
        self._entered: ExitStack | None = None  # what to undo when the block is left
        self._lease: LocalHold | None = None  # stays after the block, for `lost` and `check`
        self._cancellation: _Cancellation | None = None
        self.release_error = ""
        """The reason why the hold could not be released when the block ended, or empty."""

    @property
    def lost(self) -> bool:
        """Return whether the hold ended before the block did."""
        return self._lease is not None and bool(self._lease.lost)

    def check(self) -> None:
        """Raise `LeaseLostError` if the hold is lost. Call it before each step that needs it."""
        if self._lease is not None:
            self._lease.check()

    # -- async with -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        lease = self._prepare()
        try:
            await lease.acquire()
        except asyncio.CancelledError as cancelled:
            self._detach()
            with suppress(Exception):  # the process may be about to end, so wait for this
                async with asyncio.timeout(_RELEASE_TIMEOUT):
                    await lease.release(self._kept_state(lease.hold, cancelled))
            raise
        self._enter(lease)
        try:
            await self._drain(lease)
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
        lease = self._leave()
        keep = self._kept_state(lease.hold, error)
        try:
            await lease.release(keep)
        except asyncio.CancelledError as cancelled:
            self._detach(cancelled)  # our own cancellation may arrive only now
            raise
        except Exception as failure:
            self._report_release_failure(lease.backend, failure, error, keep)
        if self._cancellation is not None:
            self._cancellation.take_back(error)

    def _detach(self, error: asyncio.CancelledError | None = None) -> None:
        """Detach the task from the thread that still takes or releases the hold."""
        if self._cancellation is not None:
            self._cancellation.detached = True
            self._cancellation.take_back(error)

    # -- with -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._on_lost == "cancel":
            raise ConfigurationError(
                "on_lost='cancel' must be used with 'async with', got 'with'. "
                "Call check() in the block instead."
            )
        lease = self._prepare(LeaseKeeper)
        assert isinstance(lease, LeaseKeeper)
        try:
            lease.submit_acquire().result()
        except BaseException:
            lease.submit_release()  # as on Ctrl-C while it is being taken
            raise
        self._enter(lease)
        if self._wait is not None:
            try:
                # In another thread, because this one may run an event loop. Ctrl-C ends the wait.
                from anyio.from_thread import start_blocking_portal

                with start_blocking_portal() as portal:
                    portal.call(self._drain, lease)
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
        lease = self._leave()
        assert isinstance(lease, LeaseKeeper)
        keep = self._kept_state(lease.hold, error)
        try:
            lease.submit_release(keep).result()
        except Exception as failure:
            self._report_release_failure(lease.backend, failure, error, keep)

    # -- decorator --------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Run each call of a function in a block."""
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise ConfigurationError(
                f"The decorated function must not be a generator, got {function!r}. "
                "Use 'with' inside it instead."
            )
        if is_async(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._copy():
                    return await cast(Awaitable[Any], function(*args, **kwargs))

            return cast(Callable[P, R], run_async)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._copy():
                return function(*args, **kwargs)

        return run

    def _copy(self) -> MaintenanceContext:
        block = copy(self)
        block._entered = block._lease = block._cancellation = None
        return block

    # -- both -------------------------------------------------------------------------------------

    def _prepare(self, kind: type[LeaseKeeper] | None = None) -> LocalHold:
        if self._entered is not None:
            raise RuntimeError(
                "This block is already entered. Call maintenance_mode_on() or "
                "maintenance_mode_off() again for another one."
            )
        backend = current_backend(self._given)
        keeps = self._component is None or isinstance(backend, SupportsComponents)
        if self._on_error == "keep" and not keeps:
            raise UnsupportedError(
                f"{backend.describe()} stores no switches of components. "
                "Use on_error='release', or Redis."
            )
        state = self._state.replace(
            by=f"{socket.gethostname()}:{os.getpid()}", since=datetime.now(UTC)
        )
        lifts = () if state.enabled else _enclosing.get()
        hold = Hold(secrets.token_hex(8), state, lifts=lifts, component=self._component)
        self.release_error = ""
        self._cancellation = _Cancellation() if self._on_lost == "cancel" else None
        if kind is LeaseKeeper or isinstance(backend, SupportsLeases):
            on_lost = self._cancellation or (self._on_lost if callable(self._on_lost) else None)
            self._lease = LeaseKeeper(backend, hold, self._seconds, on_lost)
        else:
            self._lease = LocalHold(backend, hold, self._seconds)
        return self._lease

    def _enter(self, lease: LocalHold) -> None:
        self._entered = ExitStack()
        if not lease.hold.state.enabled:
            return
        id, request = lease.hold.id, current_request.get()
        _enclosing.set((*_enclosing.get(), id))

        def leave() -> None:
            # Not by token, because an async generator may be finalised in another context.
            _enclosing.set(tuple(other for other in _enclosing.get() if other != id))

        self._entered.callback(leave)
        if request is not None:
            # A drain must not wait for the request that runs the block: it would wait for itself.
            excluded = lease.backend.describe(), self._component
            request.exclude(*excluded)
            self._entered.callback(request.include, *excluded)

    async def _drain(self, lease: LocalHold) -> None:
        if self._wait is not None:
            (await self._wait(lease.backend)).check(strict=self._strict)
            lease.check()

    def _leave(self) -> LocalHold:
        entered, self._entered = self._entered, None
        if entered is None or self._lease is None:
            raise RuntimeError("This block was never entered.")
        entered.close()
        return self._lease

    def _kept_state(self, hold: Hold, error: BaseException | None) -> MaintenanceState | None:
        if error is None or self._on_error == "release":
            return None
        parts = hold.state.reason, type(error).__name__, str(error)[:500]
        return hold.state.replace(reason=": ".join(filter(None, parts)))

    def _report_release_failure(
        self,
        backend: BaseStateBackend,
        failure: Exception,
        error: BaseException | None,
        keep: MaintenanceState | None,
    ) -> None:
        """Log and note a failed release, which must not hide how the block ended."""
        note = f"The hold could not be released ({error_text(failure).removesuffix('.')})"
        if isinstance(backend, SupportsLeases):
            note += f"; it expires within {self._seconds:g} s"
        if keep is not None:
            position = "on" if keep.enabled else "off"
            note += f", and the switch was NOT kept {position}: turn it {position} by hand"
        self.release_error = note
        logger.critical("%s", note, extra=log_fields("hold-kept", backend=backend.describe()))
        if error is not None:
            error.add_note(note)


class _Cancellation:
    """Cancels the task of a block whose hold is lost, and tells this cancellation from others."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._task = asyncio.get_running_loop(), task
        self._others = task.cancelling()
        self._lost: LeaseLostError | None = None
        self.detached = False

    def __call__(self, lost: LeaseLostError) -> None:
        """Cancel the task. Called from the thread that renews the lease."""

        def cancel() -> None:
            if not self.detached:
                self._lost = lost
                self._task.cancel()

        with suppress(RuntimeError):  # the loop was closed without leaving the block
            self._loop.call_soon_threadsafe(cancel)

    def take_back(self, error: BaseException | None) -> None:
        """Undo the cancellation. Raises `LeaseLostError` if `error` is its result alone."""
        lost, self._lost = self._lost, None
        if lost is None:
            return
        only_ours = self._task.uncancel() <= self._others
        if only_ours and isinstance(error, asyncio.CancelledError):
            raise LeaseLostError(f"The block was cancelled. {lost}") from error


def _state(enabled: bool, **details: Any) -> MaintenanceState:
    try:
        return MaintenanceState(enabled=enabled, **details)
    except ValueError as error:
        raise ConfigurationError(f"Invalid maintenance options: {error}") from None
