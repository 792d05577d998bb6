"""The benchmarks measure what they say, and hold what CI is told to hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import cost, instructions, profiled, subjects, targets
from benchmarks.__main__ import PARTS
from benchmarks.plot import bars, lines
from benchmarks.results import README, with_summary
from benchmarks.spread import Spread

from ..support.servers import RedisServer

BENCHMARKS = Path(instructions.__file__).parent
COUNTED = {
    "yardstick": 1000.0,
    "open": 100.0,
    "open, 100 routes": 100.0,
    "503": 500.0,
    "503, 100 routes": 5000.0,
}


def test_growth_beyond_what_is_allowed_is_a_problem_that_says_how_to_renew_the_figure() -> None:
    committed = {instructions.interpreter(): instructions.in_yardsticks(COUNTED)}

    assert instructions.check(COUNTED, committed) == []
    assert instructions.check({**COUNTED, "503": 524.0}, committed) == []
    (problem,) = instructions.check({**COUNTED, "open": 106.0}, committed)
    assert "'open' takes +6.0%" in problem
    assert "--renew" in problem


def test_what_makes_every_instruction_count_grow_is_no_growth() -> None:
    committed = {instructions.interpreter(): instructions.in_yardsticks(COUNTED)}

    assert instructions.check({name: 2 * cost for name, cost in COUNTED.items()}, committed) == []


def test_figures_are_committed_for_what_is_counted() -> None:
    for figures in instructions.read().values():
        assert set(figures) == set(COUNTED) - {"yardstick"}


async def test_subjects_take_turns_and_their_times_are_kept_by_round() -> None:
    times = await subjects.race(
        ["bare", "pass-through", "ours, env"],
        rounds=3,
        routes=3,
        path="/things-2/x/parts",
        expect=[200],
    )

    assert {subject: len(rounds) for subject, rounds in times.items()} == {
        "bare": 3,
        "pass-through": 3,
        "ours, env": 3,
    }
    assert all(
        clock > 0 and processor > 0 for rounds in times.values() for clock, processor in rounds
    )


async def test_a_race_of_what_answers_otherwise_does_not_take_place() -> None:
    with pytest.raises(SystemExit, match="hand-written 503 answered 503"):
        await subjects.race(["hand-written 503"], rounds=1, expect=[200])


async def test_every_piece_of_a_workers_time_is_found_in_the_profile(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiled, "_LINKS", 2)
    monkeypatch.setattr(profiled, "_FLIPS", 2)
    shares = await profiled._shares(redis_server)

    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) < 1


def test_a_spread_has_the_middle_and_the_ends() -> None:
    spread = Spread.of([5, 1, 3, 2, 4])

    assert (spread.low, spread.first, spread.median, spread.third, spread.high) == (1, 2, 3, 4, 5)
    assert Spread.of([7]).p99 == 7


def test_plots_name_what_they_show_and_are_well_formed() -> None:
    assert "&lt;peer&gt;" in bars("Cost", {"ours": 1.1, "<peer>": 20}, unit="×")
    assert "<polyline" in lines("Time", {"ours": [(1, 0.5), (10, 2)]}, across="workers", up="ms")


def test_the_page_has_every_part_that_was_measured() -> None:
    page = (BENCHMARKS / "RESULTS.md").read_text()
    measured = [name for name in PARTS if (BENCHMARKS / "results" / f"{name}.json").exists()]

    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [PARTS[name].TITLE for name in measured]
    assert "cost" in measured


def test_the_readme_has_the_figures_that_were_measured() -> None:
    figures = json.loads((BENCHMARKS / "results" / "cost.json").read_text())["figures"]
    page = README.read_text()

    assert cost.summary(figures) in page
    assert with_summary(page, cost.summary(figures)) == page


def test_a_target_is_reached_only_within_its_reach() -> None:
    figures = {"load": {"connections": 1.0}, "weight": {"import": {"unwanted": ["redis"]}}}

    connections, imports = targets.targets(figures)
    assert connections.met
    assert not imports.met
    assert "**no**" in targets.report(figures)
