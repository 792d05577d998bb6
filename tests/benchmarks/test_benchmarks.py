"""The benchmarks measure what they say, and hold what CI is told to hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import flips, instructions, page, subjects
from benchmarks.__main__ import TITLES
from benchmarks.measuring import spread_of
from benchmarks.plot import bars
from benchmarks.replay import Links, record
from benchmarks.workers import Switch

from ..support.servers import RedisServer

BENCHMARKS = Path(instructions.__file__).parent
COUNTED = {
    "yardstick": 1000.0,
    "open": 100.0,
    "open, 100 routes": 100.0,
    "503": 500.0,
    "503, 1,000 routes": 5000.0,
    "poll": 1000.0,
}


def test_growth_beyond_the_limit_names_the_way_to_renew() -> None:
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


async def test_profile_finds_every_piece(redis_server: RedisServer) -> None:
    shares = await flips.shares(redis_server, links=2, flips=2)

    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) < 1


def test_a_spread_has_the_middle_and_the_ends() -> None:
    spread = spread_of([5, 1, 3, 2, 4])

    assert (spread.low, spread.first, spread.median, spread.third, spread.high) == (1, 2, 3, 4, 5)
    assert spread_of([7]).p99 == 7


def test_plots_name_what_they_show_and_are_well_formed() -> None:
    assert "&lt;peer&gt;" in bars("Cost", {"ours": 1.1, "<peer>": 20}, unit="×")


def test_page_is_rendered_from_the_stored_figures() -> None:
    documents = page.read(TITLES)
    assert page.render(TITLES, documents) == page.PAGE.read_text()
    assert "cost" in documents
    for name in documents:
        without = {other: found for other, found in documents.items() if other != name}
        assert f"## {TITLES[name]}" not in page.render(TITLES, without)


def test_readme_has_the_measured_figure() -> None:
    readme, cost = page.README.read_text(), page.read(TITLES)["cost"]["figures"]
    assert page.summary(cost) in readme
    assert page.with_summary(readme, page.summary(cost)) == readme


def test_scale_page_has_the_measured_figures() -> None:
    scale, load = page.SCALE.read_text(), page.read(TITLES)["load"]["figures"]
    assert page.scale(load) in scale
    assert page.with_summary(scale, page.scale(load)) == scale


def test_target_is_met_only_within_its_reach() -> None:
    links = [
        {"links": number, "ours": {"median": 2.4 * number}, "floor": {"median": 1.0}}
        for number in (1, 10, 100)
    ]
    figures = {"propagation": {"links": links}, "weight": {"import": {"unwanted": ["redis"]}}}
    assert [target.met for target in page.targets(figures)] == [True, False, False]


async def test_link_is_recorded_and_replayed(redis_server: RedisServer) -> None:
    recording = await record(redis_server)
    assert recording.poll.count(b"*") == 8 + recording.poll.count(b"{*")
    assert b"SET" in recording.report
    assert b"HSETNX" in recording.join
    with Links(redis_server, 3, recording) as links:
        links.join()
        switch = Switch(redis_server)
        switch.set(False)
        links.arm()
        assert len(links.flip(switch, True)) == 3
        switch.close()
