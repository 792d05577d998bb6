"""Exemptions granted by the state itself: its allow list and bypass tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from starlette.types import ASGIApp, Scope

from .._internal.validation import require
from ..model.state import MaintenanceState
from .allow_list import AllowList
from .bypass import Bypass
from .proxies import Proxies


class GrantedExemptions:
    """The allow lists and bypass tokens of the closing states. Raises `ConfigurationError`."""

    def __init__(
        self, now: Callable[[], datetime], proxies: Proxies, bypass: Bypass | None = None
    ) -> None:
        require(isinstance(bypass, Bypass | None), "bypass must be a Bypass", bypass)
        self._now = now
        self._proxies = proxies
        self.bypass = bypass
        self._lists: dict[tuple[str, ...], AllowList] = {}

    def allows(self, scope: Scope, state: MaintenanceState) -> bool:
        """Return whether a closing state lets this request pass."""
        if state.allow is not None and self._allowed_by(state.allow).matches(scope):
            return True
        if self.bypass is None or state.bypass is None:
            return False
        return self.bypass.admits(scope, state.bypass, self._now())

    def bypass_redirect(self, scope: Scope, states: Iterable[MaintenanceState]) -> ASGIApp | None:
        """Return the response to a visit of a bypass link; `None` for other requests."""
        if self.bypass is None:
            return None
        records = [record for state in states for record in state.bypass or ()]
        return self.bypass.welcome(scope, records, self._now())

    def load(self, states: Iterable[MaintenanceState]) -> list[str]:
        """Load the allow lists of a gate, each once. Returns what is wrong with their entries."""
        wanted = {state.allow for state in states if state.allow is not None}
        self._lists = {entries: self._allowed_by(entries) for entries in wanted}
        return sorted(
            {problem for allow_list in self._lists.values() for problem in allow_list.errors}
        )

    def _allowed_by(self, entries: tuple[str, ...]) -> AllowList:
        return self._lists.get(entries) or AllowList(entries, self._proxies)
