"""The endpoint that is judged is the endpoint that runs, whatever the routes and the request."""

from __future__ import annotations

import os

import pytest

from .effort import VARIABLE
from .routes import compare

TREES = 100
REQUESTS = 200


@pytest.mark.may_block
def test_judged_endpoint_is_the_endpoint_that_runs() -> None:
    """20,000 requests; `scripts/fuzz --routes 1000000` sends more, to other trees."""
    times = int(os.environ.get(VARIABLE, "0"))
    first = int.from_bytes(os.urandom(4)) if times else 0
    assert compare(range(first, first + TREES * max(1, times)), requests=REQUESTS) == []
