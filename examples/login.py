"""An application behind an OAuth2 password login, which stays open in read-only mode."""

from __future__ import annotations

import os
from secrets import compare_digest
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import BaseModel

from fastapi_maintenance import MaintenanceModeMiddleware, maintenance_reads

_USERS: Final = {"ana": "tea"}  # in a real application: hashes, in a database
_TOKENS: Final = URLSafeTimedSerializer(os.environ.get("TOKEN_SECRET", "change me"))

app = FastAPI()
# The backend is the one that FASTAPI_MAINTENANCE_BACKEND names.
app.add_middleware(MaintenanceModeMiddleware)
auth = APIRouter(prefix="/auth", tags=["auth"])


class Credentials(BaseModel):
    """What a user logs in with."""

    username: str
    password: str


@auth.post("/login")
async def login(given: Credentials) -> dict[str, str]:
    """Issue a token. It is signed, not stored, so a login writes nothing."""
    if not compare_digest(_USERS.get(given.username, "").encode(), given.password.encode()):
        raise HTTPException(401, "The name or the password is wrong.")
    return {"access_token": str(_TOKENS.dumps(given.username)), "token_type": "bearer"}


# In read-only mode, POST requests are refused. These pass, because they change nothing that is
# being migrated. With fastapi-users: maintenance_reads(fastapi_users.get_auth_router(backend)).
app.include_router(maintenance_reads(auth))


def user(token: Annotated[str, Depends(OAuth2PasswordBearer("/auth/login"))]) -> str:
    """Return the name of the user who is logged in."""
    try:
        return str(_TOKENS.loads(token, max_age=3600))
    except BadSignature as error:
        raise HTTPException(401, "The token is invalid.") from error


@app.get("/orders")
async def orders(name: Annotated[str, Depends(user)]) -> list[str]:
    """Read: passes in read-only mode."""
    return [f"{name}'s tea"]


@app.post("/orders")
async def order(name: Annotated[str, Depends(user)]) -> str:
    """Write: refused in read-only mode, with a login or without one."""
    return f"{name} has ordered"
