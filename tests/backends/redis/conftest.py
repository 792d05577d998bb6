"""What the tests of the Redis backend share."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

import pytest
from redis.asyncio import Redis

from fastapi_maintenance.backends.redis.keys import Keys
from tests.support.servers import RedisServer


class User:
    """A user of the shared server, who may do everything but what the rules say."""

    def __init__(self, operator: Any, url: str) -> None:
        self.name = f"user-{secrets.token_hex(4)}"
        self.url = url.replace("://", f"://{self.name}:any@")
        self._operator = operator

    async def change(self, *rules: str) -> None:
        """Change what the user may do: rules of ACL SETUSER."""
        await self._operator.execute_command("ACL", "SETUSER", self.name, *rules)


class MakeUser(Protocol):
    """Makes a user who ends with the test."""

    def __call__(self, *rules: str) -> Awaitable[User]: ...


@pytest.fixture
def keys() -> Keys:
    """The keys of the default switch."""
    return Keys.of("maintenance")


@pytest.fixture
async def operator(redis_server: RedisServer) -> AsyncIterator[Any]:
    """Somebody else's client, to the shared server."""
    async with Redis.from_url(redis_server.url, socket_timeout=30) as client:
        yield client


@pytest.fixture
async def make_user(operator: Any, redis_url: str) -> AsyncIterator[MakeUser]:
    """For users with less rights."""
    users = []

    async def make(*rules: str) -> User:
        users.append(user := User(operator, redis_url))
        await user.change("reset", "on", "nopass", "~*", "&*", "+@all", *rules)
        return user

    yield make
    for user in users:
        await operator.acl_deluser(user.name)
