"""Waiting for what must become true: no longer than it takes, and with words where it does not."""

from __future__ import annotations

import pytest

from .waiting import eventually, eventually_sync


class Countdown:
    """False, or an `AssertionError`, until it was asked so often."""

    def __init__(self, asks: int, *, asserting: bool = False) -> None:
        self.left = asks
        self.asserting = asserting

    def __call__(self) -> str:
        self.left -= 1
        assert self.left <= 0 or not self.asserting, "not yet"
        return "" if self.left > 0 else "done"


@pytest.mark.parametrize("asserting", [False, True])
async def test_eventually_returns_the_value(asserting: bool) -> None:
    assert await eventually(Countdown(3, asserting=asserting), within=5, every=0.001) == "done"
    assert eventually_sync(Countdown(3, asserting=asserting), within=5, every=0.001) == "done"


@pytest.mark.parametrize(
    ("asserting", "words"), [(False, "was still '' after 0.01 s"), (True, "not yet")]
)
async def test_time_that_is_up_fails_with_the_last_value(asserting: bool, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        await eventually(Countdown(10**6, asserting=asserting), within=0.01, every=0.001)
    with pytest.raises(AssertionError, match=words):
        eventually_sync(Countdown(10**6, asserting=asserting), within=0.01, every=0.001)


async def test_predicate_is_tried_after_the_deadline() -> None:
    """On a busy machine, one pause can be longer than the whole time given."""
    assert await eventually(Countdown(2), within=0.01, every=0.05) == "done"
    assert eventually_sync(Countdown(2), within=0.01, every=0.05) == "done"
