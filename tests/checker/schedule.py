"""Schedules, each drawn from a seed, so that it can be drawn again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Step:
    """One action, `after` seconds after the previous step began.

    `which` picks a worker, `kind` a variety of the action, and `length` is in seconds.
    """

    after: float
    action: str
    which: float = 0.0
    length: float = 0.0
    kind: float = 0.0


ACTIONS: Final = {
    "close": 4,  # SET by a bare client
    "open": 3,  # DEL by a bare client
    "close component": 2,
    "open component": 1,
    "hold": 2,
    "barrier": 3,
    "drained barrier": 3,
    "component barrier": 1,
    "drained component barrier": 1,
    "mistyped barrier": 0.5,  # on a key that no worker has
    "start": 2,
    "start without rights": 1,  # to register
    "start with a long fence": 0.5,  # longer than the registry's lifetime
    "join": 0.5,  # a thousand registrations at once, by bare clients
    "pause": 3,
    "kill": 1,
    "leave": 1,
    "request": 4,  # that takes its time
    "cut off": 4,  # one worker from Redis: silently, one way only, or refused
    "cut links": 2,
    "freeze redis": 1,
    "flush": 1,
    "restart redis": 1,  # empty
    "roll back redis": 1,  # to older data
    "lose registry": 1.5,
    "lose reports": 1,
    "evict": 1,  # under volatile-lru, and refuse writes meanwhile
    "step clock": 1,  # of Redis
    "strand": 0,  # a worker that knows no closing, and comes back first after a flush; see `draw`
}
SENTINEL_ACTIONS: Final = {
    "isolate master": 3,  # from Sentinels and replica, until another one is promoted
    "cut replica": 2,  # so that it lacks what comes now
    "pause sentinels": 2,  # two of three, or one
    "fail over": 1,  # as an operator does it
}
_ALSO_BEHIND_SENTINELS: Final = (
    *("close", "open", "hold", "barrier", "drained barrier", "start", "pause", "kill", "leave"),
    *("request", "cut off", "cut links", "join", "lose registry", "lose reports"),
)
_PRELUDES: Final = (
    *("pause", "cut off", "request", "start", "start without rights", "start with a long fence"),
    *("lose registry", "lose reports", "evict", "isolate master", "cut replica"),
)
"""What makes a closing hard that comes right after it."""
_LENGTHS: Final = (0.1, 0.4, 1.2)
_LONG: Final = (0.4, 1.2, 1.2)
_SENTINEL_PACE: Final = 4.0  # times as slow, for a failover takes seconds
_SENTINEL_SHARE: Final = 0.015
_STRANDED_SHARE: Final = 0.03


def is_behind_sentinels(seed: int) -> bool:
    """Return whether a schedule runs behind Sentinels, which takes ten times as long."""
    return random.Random(f"topology {seed}").random() < _SENTINEL_SHARE


def draw(
    seed: int, favours: Mapping[str, float] | None = None, *, sentinels: bool = False
) -> list[Step]:
    """A schedule that closes and waits at a barrier at least once, with anything around it.

    `favours` multiplies the weights of actions.
    """
    chance, favours = random.Random(seed), favours or {}
    weights = ACTIONS
    if sentinels:
        weights = SENTINEL_ACTIONS | {name: ACTIONS[name] for name in _ALSO_BEHIND_SENTINELS}
    weights = {name: weight * favours.get(name, 1) for name, weight in weights.items()}
    preludes = {name: weight for name, weight in weights.items() if name in _PRELUDES}

    def some(weights: Mapping[str, float], count: int) -> list[str]:
        return chance.choices(list(weights), list(weights.values()), k=count)

    def of(*names: str) -> Mapping[str, float]:
        return {name: weights[name] for name in names if name in weights}

    pace = _SENTINEL_PACE if sentinels else 1.0

    def step(action: str, pause: float, lengths: Sequence[float] = _LENGTHS) -> Step:
        after, length = chance.uniform(0, pause) * pace, chance.choice(lengths) * pace
        return Step(after, action, chance.random(), length, chance.random())

    before, after = some(weights, chance.randint(0, 3)), some(weights, chance.randint(0, 3))
    prelude = some(preludes, chance.choice([1, 2, 2, 3] if sentinels else [0, 1, 1, 2, 2]))
    closing, *_ = some(of("close", "close component", "hold"), 1)
    component = "component " if closing == "close component" else ""
    wait, *_ = some(of(f"{component}barrier", f"drained {component}barrier"), 1)
    meanwhile = some(weights, chance.choice([0, 0, 0, 1]))
    # Often all disturbances are of one worker.
    victim = chance.random() if chance.random() < 0.5 else None
    if any("start" in action for action in prelude) and chance.random() < 0.7:
        victim = 0.999  # the one that has just started
    steps = [step(action, 0.2) for action in before]
    for action in prelude:
        drawn = step(action, 0.02 if chance.random() < 0.5 else 0.8, _LONG)
        steps.append(drawn if victim is None else replace(drawn, which=victim))
    # Drawn apart, so that the schedules of all other seeds stay what they were.
    apart = random.Random(f"stranded {seed}")
    if not sentinels and apart.random() < _STRANDED_SHARE * favours.get("strand", 1):
        steps.append(Step(0.3, "strand", apart.random(), apart.uniform(1.5, 3.0)))
    steps += [step(closing, 0.8 if sentinels else 0.05, _LONG)]
    steps += [step(action, 0.05) for action in (*meanwhile, wait)]
    # Only if workers have known the registry for a lifetime by then, a proof may come at once.
    steps[0] = replace(steps[0], after=chance.choice((0.0, 0.6, 0.8)))
    return steps + [step(action, 0.4) for action in after]
