from __future__ import annotations

from typing import Final

import pytest

from fastapi_maintenance.demo.tally import Sample, Tally, lay_out, milliseconds, percentile

SAMPLES: Final = [
    Sample(11, "SET", 0.001, 0.010),
    Sample(12, "SET", 0.003, 0.011),
    Sample(11, "DEL", 0.002, 0.012),
    Sample(12, "DEL", 0.008, 0.013),
]


def test_the_median_is_of_all_workers_and_flips() -> None:
    tally = Tally(SAMPLES[:3])
    assert tally.median == 0.002
    tally.add(SAMPLES[3])
    assert tally.median == 0.0025
    assert tally.flips == 4


def test_a_line_for_each_worker_and_one_for_all() -> None:
    assert Tally(SAMPLES).by_worker({11: "tracking"}) == [
        "worker  hears by  flips  median     p95     max  median seen by a client",
        "------------------------------------------------------------------------",
        "pid 11  tracking      2  1.5 ms  2.0 ms  2.0 ms                  11.0 ms",
        "pid 12         ?      2  5.5 ms  8.0 ms  8.0 ms                  12.0 ms",
        "all                   4  2.5 ms  8.0 ms  8.0 ms                  11.5 ms",
    ]


def test_a_line_for_each_turn_in_the_order_of_their_use() -> None:
    assert Tally(SAMPLES).by_turn() == [
        "turned by  flips  median     p95     max  median seen by a client",
        "-----------------------------------------------------------------",
        "SET            2  2.0 ms  3.0 ms  3.0 ms                  10.5 ms",
        "DEL            2  5.0 ms  8.0 ms  8.0 ms                  12.5 ms",
    ]


def test_without_samples_there_are_tables_too() -> None:
    tally = Tally()
    assert tally.median == 0.0
    assert tally.by_worker({})[2:] == ["all                   0       -    -    -                        -"]
    assert len(tally.by_turn()) == 2


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (19, 19), (20, 19), (100, 95)])
def test_the_95th_percentile_is_the_smallest_value_that_95_percent_do_not_exceed(count: int, expected: int) -> None:
    assert percentile(range(1, count + 1), 95) == expected


def test_the_first_column_is_flush_left_and_the_others_flush_right() -> None:
    assert lay_out([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "-------", "ccc   d"]


def test_durations_are_in_milliseconds() -> None:
    assert milliseconds(0.00149) == "1.5 ms"
