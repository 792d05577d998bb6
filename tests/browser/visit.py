"""Visits of pages, by visitors with their own language and screen."""

from __future__ import annotations

import re
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

# It says so of every 503.
_OF_CHROMIUM: Final = re.compile(
    r"Failed to load resource: the server responded with a status of \d+"
)
WAIT: Final = 20_000  # milliseconds
PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 320, "height": 640},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


class Visit:
    """Opens pages as new visitors, and records requests and complaints."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        """Of the page's script, and of the browser about the page."""
        self.requests: list[Request] = []

    def to(self, url: str, *, clock: bool = False, **visitor: Any) -> Page:
        """Open an address; `visitor` is what Playwright knows of them, `clock` puts the page's time
        into the test's hand.
        """
        page = self.nowhere(**visitor)
        if clock:
            page.clock.install()
        page.goto(url)
        return page

    def nowhere(self, **visitor: Any) -> Page:
        """A tab before anything is opened in it."""
        context = self._browser.new_context(
            **({"locale": "en-GB", "timezone_id": "Europe/London"} | visitor)
        )
        context.set_default_timeout(WAIT)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request))
        return page

    def leave(self) -> None:
        """Close everything."""
        for context in self._contexts:
            context.close()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _OF_CHROMIUM.match(message.text):
            self.complaints.append(message.text)
