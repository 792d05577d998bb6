"""Exemptions granted by the state itself."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi_maintenance.exemptions.granted import GrantedExemptions
from fastapi_maintenance.exemptions.proxies import Proxies
from fastapi_maintenance.model.state import ON

from ..support.asgi import http_scope


def test_redirect_without_a_bypass_is_none() -> None:
    granted = GrantedExemptions(lambda: datetime.now(UTC), Proxies())

    assert granted.bypass_redirect(http_scope(), [ON]) is None
