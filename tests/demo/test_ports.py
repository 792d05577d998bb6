from __future__ import annotations

import socket

import pytest

from fastapi_maintenance.demo import ports
from fastapi_maintenance.demo.errors import DemoError
from fastapi_maintenance.demo.ports import free_port, is_listening


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_a_port_is_listened_on_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert is_listening(port)
    assert not is_listening(port)


def test_without_a_free_port_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        monkeypatch.setattr(ports, "_RANGE", range(port, port + 1))
        monkeypatch.setattr(ports, "_TRIES", 1)
        with pytest.raises(DemoError, match="No free port"):
            free_port()
