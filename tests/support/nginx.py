"""A real nginx, configured as the documentation shows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .pages import Block
from .waiting import eventually_sync


@contextmanager
def nginx(
    upstream: str, port: int, home: Path, options: str = "", *, backup: str | None = None
) -> Iterator[str]:
    """Run nginx with the block of docs/proxies.md and further options, in front of a server of this
    test. With `backup`, its upstream is that of the page's second block.
    """
    if (program := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")) is None:
        missing = (
            "There is no nginx; install it (Debian: apt-get install nginx-light; macOS: "
            "brew install nginx)."
        )
        if "CI" in os.environ:  # where scripts/test installs it
            raise RuntimeError(missing)
        pytest.skip(missing)
    block, with_backup = (
        block.text for block in Block.all_of("docs/proxies.md") if block.language == "nginx"
    )
    if backup is not None:
        here = with_backup.replace("127.0.0.1:8010", backup)
        block, found = re.subn(r"^upstream shop \{.*?^\}\n", here, block, flags=re.DOTALL | re.M)
        assert found == 1
        assert here != with_backup
    for there, here in (
        ("127.0.0.1:8000", upstream),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("/srv/pages", str(home)),
    ):
        assert there in block
        block = block.replace(there, here)
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    within = f"access_log off;\n{options}\n{temporary}{block}"
    alone = (
        f"{user}daemon off;\nmaster_process off;\npid {home}/nginx.pid;\nerror_log "
        f"stderr;\nevents {{}}\n"
    )
    (home / "nginx.conf").write_text(f"{alone}http {{\n{within}}}\n")
    process = subprocess.Popen([program, "-e", "stderr", "-p", home, "-c", home / "nginx.conf"])
    try:
        url = f"http://127.0.0.1:{port}/"
        eventually_sync(lambda: _listens(port), within=30, every=0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
