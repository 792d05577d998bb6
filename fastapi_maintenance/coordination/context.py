"""Close or open the service for the length of a block, on every worker."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, cast

from .._internal.callables import is_async
from .._internal.logging import error_text, log_fields
from .._internal.validation import positive, require
from ..backends.base import BaseStateBackend, SupportsComponents, SupportsLeases
from ..exceptions import ConfigurationError, LeaseLostError, UnsupportedError
from ..model.components import check_component
from ..model.holds import Hold
from ..model.state import MaintenanceState, Mode
from ..runtime.current import current_backend
from ..runtime.requests import current_request
from .barrier import BarrierResult, wait_until_applied
from .lease import HoldKeeper, LeaseKeeper

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
    return MaintenanceContext(state, backend, lease, on_error, on_lost, component, wait, strict)


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
    state = _state(False, reason=reason)
    return MaintenanceContext(state, backend, lease, on_error, on_lost, component)


@dataclass(eq=False, repr=False)
class MaintenanceContext:
    """The context manager and decorator that holds maintenance on or off."""

    _state: MaintenanceState
    _backend: str | BaseStateBackend | None
    _seconds: float
    _on_error: OnError
    _on_lost: OnLost
    _component: str | None
    _wait: Wait | None = None
    _strict: bool = True
    _entered: ExitStack | None = field(default=None, init=False)  # what to undo at the end
    _keeper: HoldKeeper | None = field(default=None, init=False)  # stays, for `lost` and `check`
    _cancellation: _Cancellation | None = field(default=None, init=False)
    release_error: str = field(default="", init=False)
    """The reason why the hold could not be released when the block ended, or empty."""

    def __post_init__(self) -> None:
        on_error, on_lost = self._on_error, self._on_lost
        require(on_error in ("release", "keep"), "on_error must be release or keep", on_error)
        require(
            on_lost in ("tell", "cancel") or callable(on_lost),
            "on_lost must be tell or cancel, or a function",
            on_lost,
        )
        positive("lease", self._seconds)
        if self._component is not None:
            check_component(self._component)

    @property
    def lost(self) -> bool:
        """Return whether the hold ended before the block did."""
        return self._keeper is not None and bool(self._keeper.lost)

    def check(self) -> None:
        """Raise `LeaseLostError` if the hold is lost. Call it before each step that needs it."""
        if self._keeper is not None:
            self._keeper.check()

    # -- async with -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        keeper = self._prepare()
        try:
            await keeper.acquire()
        except asyncio.CancelledError as cancelled:
            self._detach()
            with suppress(Exception):  # the process may be about to end, so wait for this
                async with asyncio.timeout(_RELEASE_TIMEOUT):
                    await keeper.release(self._kept_state(keeper, cancelled))
            raise
        self._enter(keeper)
        try:
            await self._drain(keeper)
        except BaseException as error:
            await self.__aexit__(None, error, None)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._leaving(error) as (keeper, keep):
            await keeper.release(keep)
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
        keeper = self._prepare(LeaseKeeper)
        assert isinstance(keeper, LeaseKeeper)
        try:
            keeper.submit_acquire().result()
        except BaseException:
            keeper.submit_release()  # as on Ctrl-C while it is being taken
            raise
        self._enter(keeper)
        if self._wait is not None:
            try:
                # In another thread, because this one may run an event loop. Ctrl-C ends the wait.
                from anyio.from_thread import start_blocking_portal

                with start_blocking_portal() as portal:
                    portal.call(self._drain, keeper)
            except BaseException as error:
                self.__exit__(None, error, None)
                raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._leaving(error) as (keeper, keep):
            assert isinstance(keeper, LeaseKeeper)
            keeper.submit_release(keep).result()

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
                async with replace(self):
                    return await cast(Awaitable[Any], function(*args, **kwargs))

            return cast(Callable[P, R], run_async)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with replace(self):
                return function(*args, **kwargs)

        return run

    # -- both -------------------------------------------------------------------------------------

    def _prepare(self, kind: type[LeaseKeeper] | None = None) -> HoldKeeper:
        if self._entered is not None:
            raise RuntimeError(
                "This block is already entered. Call maintenance_mode_on() or "
                "maintenance_mode_off() again for another one."
            )
        backend = current_backend(self._backend)
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
            self._keeper = LeaseKeeper(backend, hold, self._seconds, on_lost)
        else:
            self._keeper = HoldKeeper(backend, hold, self._seconds)
        return self._keeper

    def _enter(self, keeper: HoldKeeper) -> None:
        self._entered = ExitStack()
        if not keeper.hold.state.enabled:
            return
        id, request = keeper.hold.id, current_request.get()
        _enclosing.set((*_enclosing.get(), id))

        def leave() -> None:
            # Not by token, because an async generator may be finalised in another context.
            _enclosing.set(tuple(other for other in _enclosing.get() if other != id))

        self._entered.callback(leave)
        if request is not None:
            # A drain must not wait for the request that runs the block: it would wait for itself.
            excluded = keeper.backend.describe(), self._component
            request.exclude(*excluded)
            self._entered.callback(request.include, *excluded)

    async def _drain(self, keeper: HoldKeeper) -> None:
        if self._wait is not None:
            (await self._wait(keeper.backend)).check(strict=self._strict)
            keeper.check()

    @contextmanager
    def _leaving(
        self, error: BaseException | None
    ) -> Iterator[tuple[HoldKeeper, MaintenanceState | None]]:
        """Yield what to release, and what to keep. A failure does not hide how the block ended."""
        entered, keeper = self._entered, self._keeper
        if entered is None or keeper is None:
            raise RuntimeError("This block was never entered.")
        self._entered = None
        entered.close()
        keep = self._kept_state(keeper, error)
        try:
            yield keeper, keep
        except asyncio.CancelledError as cancelled:
            self._detach(cancelled)  # our own cancellation may arrive only now
            raise
        except Exception as failure:
            note = f"The hold could not be released ({error_text(failure).removesuffix('.')})"
            if isinstance(keeper.backend, SupportsLeases):
                note += f"; it expires within {self._seconds:g} s"
            if keep is not None:
                position = "on" if keep.enabled else "off"
                note += f", and the switch was NOT kept {position}: turn it {position} by hand"
            self.release_error = note
            extra = log_fields("hold-kept", backend=keeper.backend.describe())
            logger.critical("%s", note, extra=extra)
            if error is not None:
                error.add_note(note)

    def _kept_state(
        self, keeper: HoldKeeper, error: BaseException | None
    ) -> MaintenanceState | None:
        if error is None or self._on_error == "release":
            return None
        state = keeper.hold.state
        parts = state.reason, type(error).__name__, str(error)[:500]
        return state.replace(reason=": ".join(filter(None, parts)))


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
