"""The harness that starts real worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException

import pytest

from .holders import stubborn
from .ports import is_free
from .waiting import eventually_sync
from .workers import Workers

APP = "tests.apps.bare:app"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(APP, count=2, env={"COLOUR": "green"}) as running:
        yield running


def test_each_worker_has_its_own_connection(workers: Workers) -> None:
    assert len(workers.pids) == 2
    for _ in range(3):
        assert {pid: int(answer.text) for pid, answer in workers.get_all("/pid").items()} == {
            pid: pid for pid in workers.pids
        }


def test_workers_get_the_environment(workers: Workers) -> None:
    assert workers.get(workers.pids[0], "/env/COLOUR").text == '"green"'


def test_answer_has_status_headers_and_body(workers: Workers) -> None:
    answer = workers.get(
        workers.pids[0], "/missing", method="POST", headers={"Accept": "application/json"}
    )

    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == b'{"detail":"Not Found"}'


def test_killed_worker_is_replaced_and_found(workers: Workers) -> None:
    killed, other = workers.pids
    workers.kill(killed)
    with pytest.raises((OSError, HTTPException)):
        workers.get(killed, "/pid")
    workers.connect(within=20)

    assert len(workers.pids) == 2
    assert other in workers.pids
    assert killed not in workers.pids


def test_frozen_worker_answers_once_resumed(workers: Workers) -> None:
    frozen = workers.pids[0]
    workers.pause(frozen)
    connection = workers._connections[frozen]
    connection.request("GET", "/pid")
    workers.resume(frozen)

    assert int(connection.getresponse().read()) == frozen


def test_stopping_leaves_no_process_not_even_a_frozen_one() -> None:
    with Workers(APP, count=2) as workers:
        workers.pause(workers.pids[0])
        workers.stop()
        workers.stop()

    assert is_free(workers.port)  # every one of them listened on it


def test_workers_that_do_not_stop_are_killed() -> None:
    with stubborn() as process, closing(Workers(APP, patience=0.1)) as workers:
        workers._process = process
        workers.stop()

        assert process.poll() == -signal.SIGKILL


def test_workers_end_with_a_killed_parent() -> None:
    with Workers(APP, count=2) as workers:
        workers.patience = 0.0

    eventually_sync(lambda: is_free(workers.port), within=10)


def test_import_error_is_reported_with_the_log() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)not running.*no_such_module"):
        Workers("no_such_module:app").__enter__()


def test_application_without_pid_is_reported() -> None:
    with pytest.raises(RuntimeError, match="GET /who must answer"):
        Workers(APP, pid_path="/who").__enter__()


def test_missing_workers_are_reported() -> None:
    with pytest.raises(RuntimeError, match=r"of 2 workers after 0\.0 s"):
        Workers(APP, patience=0.0).__enter__()
