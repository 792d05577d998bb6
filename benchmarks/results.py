"""What was measured, kept as JSON for each part, and written as one page."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tests.support.servers import RedisServer

from . import cost, targets
from .environments import OURS, PEERS, versions_of

__all__ = ["PAGE", "README", "keep", "with_summary", "write"]

_HOME: Final = Path(__file__).parent
PAGE: Final = _HOME / "RESULTS.md"
README: Final = _HOME.parent / "README.md"
_BEGIN: Final = "<!-- written by scripts/bench -->"
_END: Final = "<!-- end of scripts/bench -->"


def keep(name: str, figures: Mapping[str, Any], seconds: float, load: float) -> None:
    """Remember a part's figures with when they were made, how long it took and how busy the machine was before."""
    document = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds),
        "load": round(load, 1),
        "machine": _machine(),
        "versions": {
            environment: versions
            for environment in (OURS, *PEERS)
            if (versions := versions_of(environment))
        },
        "figures": figures,
    }
    (_HOME / "results" / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def write(parts: Mapping[str, ModuleType]) -> None:
    """Write the page and its plots from what is remembered of each part."""
    documents = {
        name: json.loads(path.read_text())
        for name in parts
        if (path := _HOME / "results" / f"{name}.json").exists()
    }
    sections = [
        _head(documents),
        targets.report({name: document["figures"] for name, document in documents.items()}),
    ]
    for name, document in documents.items():
        part = parts[name]
        drawn = part.plots(document["figures"])
        for plot, svg in drawn.items():
            (_HOME / "plots" / f"{plot}.svg").write_text(svg)
        pictures = [f"![{part.TITLE}](plots/{plot}.svg)" for plot in drawn]
        note = f"`scripts/bench {name}`, {document['measured']}: {document['seconds']} s, load average before it {document['load']:.1f}."
        sections.append(
            "\n\n".join([f"## {part.TITLE}", note, part.report(document["figures"]), *pictures])
        )
    PAGE.write_text("\n\n".join(sections) + "\n")
    if "cost" in documents:
        README.write_text(
            with_summary(README.read_text(), cost.summary(documents["cost"]["figures"]))
        )


def with_summary(page: str, summary: str) -> str:
    """The page with another table between its two marks."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{summary}\n{_END}{after}"


def _head(documents: Mapping[str, Any]) -> str:
    machine = list(documents.values())[-1]["machine"]
    installed = {
        name: found
        for document in documents.values()
        for name, found in document["versions"].items()
    }  # not every part has peers
    versions = "\n".join(
        f"- {name}: {', '.join(f'{package} {v}' for package, v in found.items())}"
        for name, found in installed.items()
    )
    return f"""\
# Results

Written by `scripts/bench`, which measures everything anew, or by `scripts/bench PART`, which measures one part. Everything is a ratio to
what was measured beside it in the same rounds; absolute times are of this machine, and the busier it was, the less they mean. The load
average stands with each part: on {machine["processors"]} processors, more than {machine["processors"]} means that others were using them too.

- machine: {machine["name"]}, {machine["processors"]} processors, {machine["system"]}
- server: {machine["redis"]}
{versions}"""


def _machine() -> dict[str, Any]:
    return {
        "name": _processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "redis": _redis(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _redis() -> str:
    with RedisServer() as server:
        info = dict(
            line.split(":", 1) for line in server.cli("INFO", "server").splitlines() if ":" in line
        )
    return f"Redis {info['redis_version'].strip()}"
