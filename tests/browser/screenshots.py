"""Take the pictures of the documentation: the visitors' page and the panel, light and dark.

`scripts/screenshots` runs this. It replaces the files in docs/screenshots.
"""

from __future__ import annotations

import io
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from fastapi_maintenance import MaintenanceState

from ..apps.administered import PASSWORD
from ..cli.program import run
from ..support.servers import RedisServer
from ..support.workers import Workers
from .conftest import CHROMIUM_OPTIONS, find_chromium

_HOME: Final = Path(__file__).parents[2] / "docs" / "screenshots"
_MAX_BYTES: Final = 150_000
_SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


def main() -> None:
    """Start Redis and four workers, and take all pictures."""
    _HOME.mkdir(exist_ok=True)
    program = find_chromium() or sys.exit("There is no Chromium.")
    with RedisServer() as redis, sync_playwright() as playwright:
        env = {"FASTAPI_MAINTENANCE_BACKEND": redis.url}
        browser = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_OPTIONS))
        with Workers("tests.apps.administered:app", count=4, env=env) as workers:
            url = f"http://127.0.0.1:{workers.port}/"
            _prepare(redis)
            for scheme in _SCHEMES:
                page = _open(browser, url, scheme, (960, 480))
                _save(page, f"page-{scheme}")
                panel = _open(browser, f"{url}maintenance/", scheme, (1120, 730))
                panel.get_by_role("row").nth(4).wait_for()
                panel.wait_for_timeout(1500)  # until the first events are drawn
                _save(panel, f"panel-{scheme}")
        browser.close()


def _prepare(redis: RedisServer) -> None:
    """Close the service as an operator would, after some history."""
    env = {"FASTAPI_MAINTENANCE_BACKEND": redis.url}
    run("on", "--component", "billing", "--reason", "OPS-402 invoices", "--by", "ana@ops", env=env)
    run("off", "--component", "billing", env=env)
    state = MaintenanceState(
        enabled=True,
        message="We are moving to a faster database. Your orders are safe.",
        reason="OPS-417 migrate orders",
        by="ana@ops",
        ends_at=datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=30),
    )
    redis.cli("SET", "maintenance", state.dump())


def _open(
    browser: Browser, url: str, scheme: Literal["light", "dark"], size: tuple[int, int]
) -> Page:
    visitor: dict[str, Any] = {"locale": "en-GB", "timezone_id": "Europe/London"}
    context = browser.new_context(
        **visitor,
        color_scheme=scheme,
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=1.5,
        http_credentials={"username": "ana", "password": PASSWORD},
    )
    page = context.new_page()
    page.goto(url)
    return page


def _save(page: Page, name: str) -> None:
    """Write a picture of at most 150 kB: with a palette, as a page has few colours."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = _HOME / f"{name}.png"
    picture.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
    page.context.close()
    size = os.path.getsize(file)
    if size > _MAX_BYTES:
        sys.exit(f"{file} has {size} bytes, over {_MAX_BYTES}.")
    print(f"{file.name}: {size:,} bytes", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
