"""What the tests of the Redis backend share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from fastapi_maintenance.backends.redis.keys import Keys


@pytest.fixture
def keys() -> Keys:
    """The keys of the default switch."""
    return Keys.of("maintenance")


@pytest.fixture
async def operator(redis_url: str) -> AsyncIterator[Redis]:
    """Somebody else's client, to the shared server."""
    async with Redis.from_url(redis_url) as client:
        yield client
