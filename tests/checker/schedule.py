"""What happens in one schedule: drawn from a seed, so that it can be drawn again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, `after` seconds; `which` picks a worker, `length` is in seconds."""

    after: float
    action: str
    which: float = 0.0
    length: float = 0.0


_ACTIONS: Final = {
    "close": 4,  # SET by a bare client
    "open": 3,  # DEL by a bare client
    "hold": 2,
    "barrier": 5,
    "start": 2,
    "pause": 4,
    "kill": 1,
    "leave": 1,
    "slow": 2,
    "freeze redis": 1,
    "cut links": 2,
    "flush": 1,
    "restart redis": 1,
}


def draw(seed: int) -> list[Step]:
    """A schedule that closes and waits at a barrier at least once, with anything before, between
    and after.
    """
    chance = random.Random(seed)
    names, weights = list(_ACTIONS), list(_ACTIONS.values())
    actions = chance.choices(names, weights, k=chance.randint(4, 8))
    at = chance.randint(0, len(actions))
    actions[at:at] = [chance.choice(["close", "close", "hold"]), "barrier"]
    steps = [
        Step(chance.uniform(0, 0.2), action, chance.random(), chance.choice([0.1, 0.4, 1.2]))
        for action in actions
    ]
    # What a fence is for: a worker that sleeps through the closing and the barrier.
    if chance.random() < 0.3:
        steps[at:at] = [Step(0.0, "pause", chance.random(), 1.2)]
    return steps
