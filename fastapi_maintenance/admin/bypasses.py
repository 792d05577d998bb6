"""Bypasses: tokens that let testers through while the switch is on."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter

from ..bypass import PARAMETER
from ..exceptions import UnsupportedError
from ..grants import grant, granted, revoke
from .at_hand import Mode, Operator, Root, Scope
from .models import Bypass, BypassAsked, BypassMade
from .problems import responses

__all__ = ["add_to"]


def add_to(router: APIRouter) -> None:
    """Add the operations to the router."""
    router.get("/bypasses", responses=responses(404))(get_bypasses)
    router.post("/bypasses", status_code=201, responses=responses(400, 403, 404, 409, 415))(post_bypass)
    router.delete("/bypasses/{id}", status_code=204, responses=responses(403, 404, 409))(delete_bypass)


async def get_bypasses(mode: Mode, scope: Scope) -> list[Bypass]:
    """Those that hold now, in general or for a scope with a switch of its own."""
    return [Bypass.model_validate(record.model_dump()) for record in await granted(mode.backend, scope)]


async def post_bypass(asked: BypassAsked, mode: Mode, scope: Scope, operator: Operator, root: Root) -> BypassMade:
    """Make a token. It holds until it runs out, is revoked, or the switch is set anew."""
    if mode.guests.bypass is None:
        raise UnsupportedError("This application lets no testers through: give its middleware bypass=Bypass().")
    backend, lasting = mode.backend.signed(operator), timedelta(seconds=asked.lasting)
    token, record, _ = await grant(backend, mode.guests.bypass, lasting, asked.note or None, scope)
    query = f"{PARAMETER}={token}"
    return BypassMade(**record.model_dump(), token=token, query=query, link=f"{root}?{query}")


async def delete_bypass(mode: Mode, scope: Scope, operator: Operator, id: str) -> None:
    """Revoke one, on every worker at once."""
    await revoke(mode.backend.signed(operator), [id], scope)
