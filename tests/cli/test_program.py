"""The command line as people and scripts run it: real processes, a real Redis, pipes
and terminals.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from ..conftest import RedisServerFactory
from ..support.servers import RedisServer
from .program import Program, run


def test_a_script_gets_plain_text_and_an_exit_code(
    redis_url: str, redis_server: RedisServer
) -> None:
    environment = {"FASTAPI_MAINTENANCE_BACKEND": redis_url}
    on = run("on", "--reason", "OPS-417", "--for", "1h", env=environment)
    assert (on.code, on.err) == (0, "")
    assert on.lines[0] == "maintenance: on"
    assert "\x1b" not in on.out
    assert json.loads(redis_server.cli("GET", "maintenance"))["reason"] == "OPS-417"
    assert run("status", "--exit-code", env=environment).code == 6


def test_a_terminal_gets_colour(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.cli("SET", "maintenance", "1")
    status = run("status", "--backend", redis_url, terminal=True)
    assert status.code == 0
    assert "\x1b[1;31m● Maintenance is on\x1b[0m" in status.out


def test_a_terminal_gets_no_colour_where_the_user_wants_none(
    redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance", "1")
    status = run("status", "--backend", redis_url, terminal=True, env={"NO_COLOR": "1"})
    assert "● Maintenance is on" in status.out
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", status.out)


def test_pipe_closed_early_undoes_nothing(redis_url: str, redis_server: RedisServer) -> None:
    with Program("on", "--backend", redis_url) as program:
        program.close()
        on = program.ended()
    assert (on.code, on.err) == (0, "")
    assert redis_server.cli("EXISTS", "maintenance") == "1"


def test_without_typer_one_sentence_says_how_to_install_it() -> None:
    script = (
        "import sys; sys.modules['typer'] = None; from fastapi_maintenance.__main__ import "
        "main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "The command line needs typer, which is not installed: pip install "
        '"fastapi-maintenance-cluster[cli]"\n'
    )


def test_watch_to_a_pipe_prints_a_line_for_each_change(
    redis_url: str, redis_server: RedisServer
) -> None:
    with Program("watch", "--backend", f"{redis_url}?ttl=60") as watch:
        watch.until(" off [redis, ")
        redis_server.cli("SET", "maintenance", '{"enabled": true, "by": "ana"}')
        watch.until(" on, full, by: ana [redis, ", within=20)
        redis_server.cli("DEL", "maintenance")
        watch.until(" off [redis, ", times=2, within=20)
        watch.signal(signal.SIGINT)
        ended = watch.ended()
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 3


def test_watch_keeps_trying_while_redis_cannot_be_reached(
    own_redis_server: RedisServerFactory, free_port: int
) -> None:
    with Program("watch", "--backend", f"redis://127.0.0.1:{free_port}/0") as watch:
        with socket.socket() as reserved:  # nobody answers there, and nobody else can
            reserved.bind(("127.0.0.1", free_port))
            watch.until(" unknown, error: ")
        own_redis_server(port=free_port)
        watch.until(" off [redis, ", within=20)
        watch.signal(signal.SIGTERM)
        ended = watch.ended()
    assert (ended.code, ended.err) == (0, "")


def test_watch_as_json_without_a_reader_ends(
    tmp_path: Path,
) -> None:
    """As in `fastapi-maintenance watch --json | head -2`."""
    switch, new = tmp_path / "switch.json", tmp_path / "new.json"
    with Program("watch", "--json", "--backend", f"file:{switch}") as watch:
        watch.until("\n")
        new.write_text("1")
        os.replace(new, switch)
        watch.until('"enabled": true', within=20)
        watch.close()
        ended = watch.ended()
    assert (ended.code, ended.err) == (0, "")
    documents = [json.loads(line) for line in ended.lines]
    assert (documents[0]["enabled"], documents[-1]["enabled"]) == (False, True)


def test_watch_is_live_on_a_terminal_until_ctrl_c(
    redis_url: str, redis_server: RedisServer
) -> None:
    with Program("watch", "--backend", redis_url, terminal=True) as watch:
        watch.until("Ctrl-C ends")
        assert "● Maintenance is off" in watch.output
        redis_server.cli("SET", "maintenance", '{"enabled": true, "reason": "OPS-417"}')
        watch.until("● Maintenance is on", within=20)
        watch.type("\x03")
        ended = watch.ended()
    assert ended.code == 0
    assert "Traceback" not in ended.out
    assert ended.out.rindex("\x1b[?25h") > ended.out.rindex("\x1b[?25l"), (
        "the cursor must come back"
    )
