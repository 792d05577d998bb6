"""The endpoint that is judged is the endpoint that runs, whatever the routes and the request."""

from __future__ import annotations

import os

import pytest

from .effort import VARIABLE
from .routes import compare

PARTS = 4
TREES = 25
REQUESTS = 200


@pytest.mark.may_block
@pytest.mark.parametrize("part", range(PARTS))
def test_judged_endpoint_is_the_endpoint_that_runs(part: int) -> None:
    """20,000 requests; `scripts/fuzz --routes 1000000` sends more, to other trees."""
    times = int(os.environ.get(VARIABLE, "0"))
    first = int.from_bytes(os.urandom(4)) if times else part * TREES
    assert compare(range(first, first + TREES * max(1, times)), requests=REQUESTS) == []
