"""The options of a mode, declared once for all that have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..backends import BaseStateBackend
from ..exemptions.bypass import Bypass
from ..exemptions.proxies import ForwardedHeader
from .gate import OutagePolicy
from .hooks import ChangeHook


@dataclass(kw_only=True, eq=False, repr=False, match_args=False)
class MaintenanceOptions:
    """Options of `MaintenanceModeMiddleware`, `MaintenanceMode` and `BackgroundMode`.

    Args:
        fallback: Backends or URLs, read in order until the first state is known; the environment
            variable comes last. A fallback file also mirrors every confirmed state.
        on_unreachable: What to do in an outage after `stale_after`: "last-known" keeps the last
            state, "open" admits every request, "closed" none.
        stale_after: Seconds after the last confirmation; 2 `ttl` by default.
        close_websockets: Seconds after a closing until open WebSockets are closed with code 1012.
        close_streams: Seconds after a closing until responses without a Content-Length are ended.
            The application sees a disconnect, the client the end of the response.
        trusted_proxies: Networks whose `forwarded` header is believed for the `allow` list.
        forwarded: "x-forwarded-for", or "forwarded" (RFC 7239).
        bypass: Admits requests with a token that the switch lists.
        on_change: Called as `on_change(old, new, source)` in each worker, in order.
        on_change_once: Called in one of all workers that share the backend, at least once. Both
            hooks may be sync or async, delay no request, and need the lifespan.
    """

    fallback: str | BaseStateBackend | Sequence[str | BaseStateBackend] = ()
    on_unreachable: OutagePolicy = "last-known"
    stale_after: float | None = None
    close_websockets: float | None = None
    close_streams: float | None = None
    trusted_proxies: str | Sequence[str] = ()
    forwarded: ForwardedHeader = "x-forwarded-for"
    bypass: Bypass | None = None
    on_change: ChangeHook | None = None
    on_change_once: ChangeHook | None = None

    def mode_options(self) -> dict[str, Any]:
        """Return these options by name, for a mode that is to have the same."""
        return {each.name: getattr(self, each.name) for each in fields(MaintenanceOptions)}
