"""Headless Chromium, and applications for it to visit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from .visit import WAIT, Visit

_NAMES: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CHROMIUM_OPTIONS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Return the Chromium that is installed, or that the environment variable CHROMIUM names."""
    return next(filter(None, map(shutil.which, [os.environ.get("CHROMIUM", ""), *_NAMES])), None)


# Not longer: while it runs, this thread cannot run an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The installed Chromium, with its own profile."""
    program = find_chromium()
    if program is None:
        pytest.fail(
            "There is no Chromium. Debian: apt-get install chromium; macOS: brew install --cask "
            "chromium; or name it in CHROMIUM."
        )
    expect.set_options(timeout=WAIT)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Visits by different visitors; fails at the end if a page had an unexpected error."""
    visits = Visit(browser)
    try:
        yield visits
        assert visits.complaints == []
    finally:
        visits.leave()


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the switch of every application without a backend."""

    def set_switch(value: str) -> None:
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", value)

    return set_switch
