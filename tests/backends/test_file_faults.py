"""Files that cannot be read or written.

The docstring of a test names a fault that another package had in 2026.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from fastapi_maintenance import (
    set_maintenance_mode,
)
from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.exceptions import BackendError

from ..support.shops import SOON, becomes, closable, shop
from ..support.waiting import eventually_sync


@pytest.mark.parametrize("content", [b"", b"maybe", b"\xff\xfe", b'{"enabled": '])
def test_corrupt_file_changes_nothing(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """In fastapi-maintenance 0.0.5 garbage is a 500, and an empty file, as a reader sees
    between truncate and write, is "off".
    """
    path = tmp_path / "switch"
    path.write_text("1")
    with TestClient(closable(backend=LocalFileBackend(path, ttl=0.1))) as client:
        becomes(client, 503)
        path.write_bytes(content)
        eventually_sync(lambda: "The last known state stays" in caplog.text, within=SOON)
        assert client.get("/").status_code == 503
        path.write_text("0")
        becomes(client, 200)


def test_unwritable_file_fails_writer_only(
    tmp_path: Path,
) -> None:
    """fastapi-maintenance 0.0.5 writes the file while reading it, and so every request fails
    where it may not.
    """
    path = tmp_path / "missing" / "switch"
    app = shop()

    @app.post("/close")
    async def close() -> None:
        await set_maintenance_mode(True)

    with TestClient(closable(app, backend=LocalFileBackend(path))) as client:
        assert client.get("/").status_code == 200
        with pytest.raises(BackendError, match="make the directory"):
            client.post("/close")
    assert not path.parent.exists()
