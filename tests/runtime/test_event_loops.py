"""Event loops other than asyncio's, as trio's: the application refuses to start, and says why."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.exceptions import ConfigurationError

from ..support.asgi import UNUSED, exchange, http_scope, refusal_to_start

T = TypeVar("T")

SENTENCE = "The event loop must be asyncio's, got none or another kind."


def run_without_asyncio(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, as a loop would that asyncio does not know."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("It waits for something.")


@pytest.mark.parametrize("url", ["env:MAINTENANCE", "file:maintenance.json"])
def test_lifespan_without_asyncio_refuses_to_start(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=url)

    message, error = run_without_asyncio(refusal_to_start(app.build_middleware_stack()))

    assert message["type"] == "lifespan.startup.failed"
    assert SENTENCE in message["message"]
    assert isinstance(error, ConfigurationError)


def test_request_without_asyncio_names_asyncio(tmp_path: Path) -> None:
    app = MaintenanceModeMiddleware(FastAPI(), backend=f"file:{tmp_path / 'maintenance.json'}")

    with pytest.raises(ConfigurationError, match=SENTENCE):
        run_without_asyncio(exchange(app, http_scope(), UNUSED))
