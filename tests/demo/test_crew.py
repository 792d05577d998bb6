from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fastapi_maintenance.demo import crew as crew_module
from fastapi_maintenance.demo.crew import Crew, start_crew
from fastapi_maintenance.demo.errors import DemoError

from ..serving import serving
from .standing import Standing
from .test_program import is_running

pytestmark = pytest.mark.may_block  # the demo is a program and no part of anybody's service: its start-up may block


async def test_a_crew_has_one_connection_to_each_worker(crew: Crew, worker_port: int) -> None:
    assert crew.pids == [os.getpid()]
    assert crew.complete
    assert crew.url == f"http://127.0.0.1:{worker_port}/"
    assert (await crew.ask(os.getpid(), "/health")).status == 200
    assert (await crew.hear(os.getpid())).pid == os.getpid()


async def test_seeking_again_changes_nothing_where_all_are_found(crew: Crew) -> None:
    client = crew._clients[os.getpid()]
    await crew.seek()
    assert crew._clients == {os.getpid(): client}


async def test_a_worker_that_does_not_answer_is_gone_and_can_be_found_again(crew: Crew) -> None:
    crew._clients[os.getpid()].close()
    with pytest.raises(DemoError, match=rf"^Worker {os.getpid()} is gone"):
        await crew.ask(os.getpid(), "/")
    assert crew.pids == []
    assert not crew.complete
    await crew.gather(within=20)
    assert crew.complete


async def test_too_few_workers_in_time_are_an_error(worker_port: int) -> None:
    crew = Crew(2, worker_port, Standing())
    with pytest.raises(DemoError, match=r"^Only 1 of 2 workers answered within 3 s"):
        await crew.gather(within=3)
    crew.part()


async def test_a_crew_whose_server_ended_is_an_error(free_port: int) -> None:
    program = Standing()
    crew = Crew(1, free_port, program)
    await crew.seek()  # nobody listens, which is so while uvicorn starts
    program.ended = True
    with pytest.raises(DemoError, match="stand-in ended"):
        await crew.gather(within=20)
    with pytest.raises(DemoError, match="stand-in ended"):
        crew.check()


async def test_an_application_that_is_not_the_demo_has_no_workers() -> None:
    from ..apps.bare import app

    with serving(app) as address:
        crew = Crew(1, int(address.rpartition(":")[2]), Standing())
        await crew.seek()
        assert crew.pids == []


async def test_a_port_that_is_taken_is_an_error_with_uvicorns_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        monkeypatch.setattr(crew_module, "free_port", lambda: holder.getsockname()[1])
        with pytest.raises(DemoError, match=r"^uvicorn ended with exit code \d+\. It last said: .*[Aa]ddress already in use"):
            await start_crew(2, backend="redis://127.0.0.1:1", home=tmp_path).__aenter__()


async def test_real_workers_run_until_their_block_ends(redis_url: str, tmp_path: Path) -> None:
    async with start_crew(1, backend=redis_url, home=tmp_path) as crew:
        (pid,) = crew.pids
        assert pid != os.getpid()
        assert (await crew.hear(pid)).source == "redis"
    assert not is_running(pid)


async def test_without_uvicorn_it_says_which_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "find_spec", lambda name: None)
    with pytest.raises(DemoError, match=r"needs uvicorn: pip install 'fastapi-maintenance-cluster\[demo\]'"):
        await start_crew(1, backend="redis://127.0.0.1:1", home=tmp_path).__aenter__()


def test_the_workers_know_one_switch_only_and_no_other_uvicorns_options() -> None:
    outer = {"HOME": "/home/me", "UVICORN_ROOT_PATH": "/api", "FASTAPI_MAINTENANCE_MODE": "1", "FASTAPI_MAINTENANCE_BACKEND": "file:x"}
    assert crew_module._environment(outer, "redis://localhost:1/0") == {
        "HOME": "/home/me",
        "FASTAPI_MAINTENANCE_MODE": "",
        "FASTAPI_MAINTENANCE_BACKEND": "redis://localhost:1/0",
    }
