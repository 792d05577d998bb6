from __future__ import annotations

from fastapi_maintenance.demo.report import instructions, verdict
from fastapi_maintenance.demo.tally import Sample, Tally


def tally(*reached: float) -> Tally:
    return Tally(Sample(11, "SET", seconds, seconds) for seconds in reached)


def test_the_instructions_are_commands_to_copy() -> None:
    lines = instructions(6400, "redis://127.0.0.1:6400/0", "http://127.0.0.1:8000/", "/a b/python")
    assert "  redis-cli -p 6400 SET maintenance 1" in lines
    assert "  redis-cli -p 6400 DEL maintenance" in lines
    assert "  '/a b/python' -m fastapi_maintenance on --backend redis://127.0.0.1:6400/0 --message 'Back soon' --for 10m" in lines
    assert "  '/a b/python' -m fastapi_maintenance off --backend redis://127.0.0.1:6400/0" in lines
    assert any("curl -i http://127.0.0.1:8000/ " in line for line in lines)


def test_right_answers_within_ten_milliseconds_pass() -> None:
    judged = verdict(tally(0.002, 0.0099, 0.5), [], pushed=True)
    assert judged.passed
    assert not judged.again
    assert judged.words.startswith("OK: ")
    assert "3 times" in judged.words
    assert "median 9.9 ms" in judged.words


def test_a_complaint_fails_whatever_the_speed() -> None:
    judged = verdict(tally(0.001), [f"worker {number} was wrong" for number in range(20)], pushed=True)
    assert not judged.passed
    assert not judged.again
    assert judged.words.splitlines() == ["FAILED: a worker was wrong.", *(f"  worker {number} was wrong" for number in range(10))]


def test_on_a_busy_machine_right_answers_pass_but_deserve_another_attempt() -> None:
    judged = verdict(tally(0.010), [], pushed=True)
    assert judged.passed
    assert judged.again
    assert judged.words.startswith("OK, but slow: ")


def test_what_is_as_slow_as_a_poll_was_not_pushed() -> None:
    judged = verdict(tally(0.100), [], pushed=True)
    assert not judged.passed
    assert judged.again
    assert judged.words.startswith("FAILED: ")


def test_where_nothing_is_pushed_only_the_answers_count() -> None:
    judged = verdict(tally(0.7), [], pushed=False)
    assert judged.passed
    assert not judged.again
    assert judged.words.endswith("median 700.0 ms, by messages and polling alone.")
