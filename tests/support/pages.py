"""The pages of the documentation, and how the blocks of code in them are run, or read by what reads
such text.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import crossplane
import kubernetes_validate
from ruamel.yaml import YAML

from fastapi_maintenance import MaintenanceState

from .forked import run_file
from .ports import free_port
from .servers import RedisServer
from .topologies import Cluster, SentinelGroup, cluster, sentinel_group
from .waiting import eventually_sync

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    str(page.relative_to(ROOT))
    for where in (
        "*.md",
        ".github/**/*.md",
        "backends/**/*.md",
        "benchmarks/**/*.md",
        "docs/**/*.md",
        "examples/**/*.md",
        "tests/**/*.md",
    )
    for page in ROOT.glob(where)
)

_FENCE: Final = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_OPTIONS: Final = {
    "bash": {"background", "cd", "no-run", "with"},
    "json": set[str](),
    "nginx": set[str](),
    "python": {"file", "no-run"},
    "text": {"floors", "output", "tree", "walk-of-block", "walk-of-run"},
    "toml": set[str](),
    "yaml": {"schema"},
}
_TOPOLOGIES: Final[dict[str, Callable[[], AbstractContextManager[Cluster | SentinelGroup]]]] = {
    "cluster": cluster,
    "sentinel": sentinel_group,
}


def fences_of(page: str) -> int:
    """How many lines of a page begin or end a block, whatever we make of it."""
    return len(re.findall(r"^\s*(?:```|~~~)", (ROOT / page).read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Block:
    """One fenced block; what follows the language on its first line says how to run it."""

    language: str
    options: dict[str, str]
    text: str

    @classmethod
    def all_of(cls, page: str) -> list[Block]:
        found = _FENCE.findall((ROOT / page).read_text())
        return [
            cls(
                language,
                dict(word.partition("=")[::2] for word in rest.split()),
                re.sub(rf"^{indent}", "", text, flags=re.MULTILINE),
            )
            for indent, language, rest, text in found
        ]

    @property
    def unknown(self) -> list[str]:
        """What of its first line nobody here understands."""
        if self.language not in _OPTIONS:
            return [self.language]
        return sorted(self.options.keys() - _OPTIONS[self.language])


@dataclass
class Reader:
    """Does what a page says, from its top to its bottom, in a directory of its own, with a Redis of
    the tests and free ports.
    """

    redis: RedisServer
    home: Path
    port: int = 0  # of the server that was started last
    said: str = ""  # by the last block of commands

    def __post_init__(self) -> None:
        programs = self.home / "bin"
        programs.mkdir()
        sleep = shutil.which("sleep")
        commands = {
            "redis-cli": f"{shutil.which('redis-cli')} -p {self.redis.port}",
            "fastapi-maintenance": f"{sys.executable} -m fastapi_maintenance",
            "uvicorn": f"{sys.executable} -m uvicorn",
            "alembic": f"{sys.executable} -m alembic",
            "pytest": f"{sys.executable} -m pytest -q -p no:cacheprovider",
            # A second longer than the page says: a machine that is tested on is slower than a
            # reader's.
            "sleep": f"""sh -c '{sleep} 1; exec {sleep} "$@"' sleep""",
        }
        for name, command in commands.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (programs / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(self.home / "bin"), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(self.home), str(ROOT), "."]),
            "SHOP_DATABASE": str(self.home / "shop.db"),
            "FASTAPI_MAINTENANCE_SECRET": "0123456789abcdef0123456789abcdef",
            "no_proxy": "127.0.0.1,localhost",
        }

    def read(self, page: str) -> None:
        with self._left_as_it_was() as background:
            for block in Block.all_of(page):
                assert not block.unknown, (
                    f"{page}: nobody here knows what to do with {block.unknown} of\n{block.text}"
                )
                if "background" in block.options:
                    self.port = free_port()  # not earlier: others look for free ports, too
                    background.append(self._start(self._here(block.text)))
                else:
                    getattr(self, f"_{block.language}")(block, self._here(block.text))

    def _here(self, text: str) -> str:
        """The text with the addresses of this test's servers."""
        for there, ours in (
            ("localhost:6379", f"localhost:{self.redis.port}"),
            (":8000", f":{self.port}"),
            ("8001", str(free_port())),
        ):
            text = text.replace(there, ours)
        return text

    @contextmanager
    def _left_as_it_was(self) -> Iterator[list[subprocess.Popen[bytes]]]:
        background: list[subprocess.Popen[bytes]] = []
        try:
            yield background
        finally:
            for process in background:
                process.terminate()
                process.wait(20)

    # -- by language -------------------------------------------------------------------------------

    def _python(self, block: Block, text: str) -> None:
        if "no-run" in block.options:
            ast.parse(text)
            return
        file = self.home / block.options.get("file", "block.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        code = run_file(file, said := self.home / "said", self.environment)
        assert code == 0, f"{text}\n{said.read_text()}"

    def _bash(self, block: Block, text: str) -> None:
        """Run it, and hold it to the status codes that its comments promise."""
        if "no-run" in block.options:
            self._run(["bash", "-n", "-c", text], self.home, text)
            return
        if topology := block.options.get("with"):
            with _TOPOLOGIES[topology]() as there:
                self._bash(replace(block, options={}), re.sub(r"redis\+\w+://\S+", there.url, text))
            return
        where = ROOT / block.options["cd"] if "cd" in block.options else self.home
        self.said = self._run(["bash", "-euo", "pipefail", "-c", text], where, text)
        promised = re.findall(r"^curl .*# (\d{3})", text, re.MULTILINE)
        assert re.findall(r"HTTP/1.1 (\d{3})", self.said) == promised, f"{text}\n{self.said}"

    def _text(self, block: Block, text: str) -> None:
        """What the commands before it say, if it is their output; `…` stands for anything."""
        if "output" in block.options:
            for line in text.splitlines():
                pattern = r"\s+".join(
                    ".*".join(map(re.escape, word.split("…"))) for word in line.split()
                )
                assert re.search(pattern, self.said), f"{line!r} is not in\n{self.said}"

    def _json(self, block: Block, text: str) -> None:
        MaintenanceState.parse(text)

    def _toml(self, block: Block, text: str) -> None:
        tomllib.loads(text)

    def _nginx(self, block: Block, text: str) -> None:
        """A part of a configuration, within `http`."""
        file = self.home / "nginx.conf"
        file.write_text(f"events {{}}\nhttp {{\n{text}\n}}\n")
        # What is within `types` and `map` looks like unknown directives.
        parsed = crossplane.parse(str(file), strict=True, ignore=["types", "map"])
        assert parsed["status"] == "ok", parsed["errors"]

    def _yaml(self, block: Block, text: str) -> None:
        """Documents of a kind, held against the schema that whoever reads them publishes."""
        kind = block.options.get("schema")
        assert kind, f"Say what this YAML is for, as in ```yaml schema=kubernetes:\n{text}"
        if kind == "kubernetes":
            for document in YAML(typ="safe").load_all(text):
                kubernetes_validate.validate(document, "1.32", strict=True)
            return
        file = self.home / "document.yaml"
        file.write_text(text)
        self._run(
            [
                sys.executable,
                "-m",
                "check_jsonschema",
                "--builtin-schema",
                f"vendor.{kind}",
                str(file),
            ],
            self.home,
            text,
        )

    # -- processes ---------------------------------------------------------------------------------

    def _run(self, command: list[str], where: Path, text: str) -> str:
        """Run it to its end, end whatever it started too, and return what it said. Fails if it
        fails.
        """
        with (self.home / "said").open("w+") as said:
            process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=where,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(120)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            said.seek(0)
            output = said.read()
        assert code == 0, f"{text}\n{output}"
        return output

    def _start(self, text: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*shlex.split(text), "--port", str(self.port)], env=self.environment, cwd=self.home
        )
        ask = ["curl", "-s", "-o", os.devnull, f"http://127.0.0.1:{self.port}/"]
        try:
            eventually_sync(
                lambda: subprocess.run(ask, env=self.environment, check=False).returncode == 0,
                within=60,
                every=0.2,
            )
        except AssertionError:
            process.terminate()
            raise
        time.sleep(2)  # for the slowest of several workers
        return process
