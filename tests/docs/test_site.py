"""The documentation as a site: it is built without a complaint, every link in it leads somewhere,
and nothing comes from other hosts.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser

from ..browser.conftest import browser
from ..support.pages import PAGES
from .test_reference import MODULES, public_names

__all__ = ["browser"]

ROOT: Final = Path(__file__).parents[2]
ZENSICAL: Final = Path(sysconfig.get_path("scripts")) / "zensical"
NAMES: Final = [f"{module}.{name}" for module in MODULES for name in public_names(module)]
OUTSIDE_OF_THE_MENU: Final = {"backends/env/README.md", "backends/file/README.md"}


class Page(HTMLParser):
    """What a page links to, what it loads, and what of it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag == "link" and values.get("rel") != "canonical":
            self.loads.add(values["href"])
        self.loads |= {values["src"]} if "src" in values else set()


@dataclass(frozen=True)
class Site:
    """A directory with pages, each as it was read."""

    home: Path
    pages: dict[Path, Page]

    def target_of(self, page: Path, link: str) -> tuple[Path, str]:
        """The file that a link leads to, and the place in it."""
        url = urlsplit(link)
        target = (
            (self.home if url.path.startswith("/") else page.parent) / unquote(url.path).lstrip("/")
            if url.path
            else page
        )
        target = target.resolve()
        return (target / "index.html" if target.is_dir() else target), unquote(url.fragment)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    home = tmp_path_factory.mktemp("site").resolve()
    built = subprocess.run(
        ["scripts/docs", home], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return Site(
        home / "site", {page: Page(page.read_text()) for page in home.glob("site/**/*.html")}
    )


@pytest.mark.timeout(320)
def test_every_link_leads_somewhere(site: Site) -> None:
    dead = []
    for path, page in site.pages.items():
        for link in page.links | page.loads:
            if urlsplit(link).scheme or path.name == "404.html":
                continue
            target, anchor = site.target_of(path, link)
            if not target.is_file() or (
                anchor and target in site.pages and anchor not in site.pages[target].anchors
            ):
                dead.append(f"{path.relative_to(site.home)}: {link}")

    assert dead == []


@pytest.mark.timeout(320)
def test_nothing_is_loaded_from_other_hosts(site: Site) -> None:
    assert {
        link for page in site.pages.values() for link in page.loads if urlsplit(link).netloc
    } == set()
    styles = "".join(sheet.read_text() for sheet in site.home.glob("**/*.css"))
    assert [
        url for url in re.findall(r"url\(([^)]*)\)", styles) if re.match(r"[\"']?(https?:)?//", url)
    ] == []


@pytest.mark.timeout(320)
def test_a_reader_talks_to_nobody_else(site: Site, browser: Browser) -> None:
    asked: list[str] = []
    with served(site.home) as address, browser.new_context() as context:
        reader = context.new_page()
        reader.on("request", lambda request: asked.append(request.url))
        complaints: list[str] = []
        reader.on("pageerror", lambda error: complaints.append(str(error)))
        for path in ("", "docs/architecture/", "docs/reference/", "docs/testing/"):
            answer = reader.goto(f"{address}/{path}", wait_until="networkidle")
            assert answer is not None
            assert answer.ok, path
            assert reader.locator("h1").first.is_visible()

    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert complaints == []


class served:
    """A directory by HTTP, as long as the block is."""

    def __init__(self, directory: Path) -> None:
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Quiet, directory=str(directory))
        )
        self.thread = Thread(target=self.server.serve_forever)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


# -- what is in it ---------------------------------------------------------------------------------


def in_the_menu() -> set[str]:
    def pages(item: Any) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        for inner in (
            item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        ):
            yield from pages(inner)

    return set(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))


def test_every_page_is_in_the_menu() -> None:
    wanted = {page.removeprefix(".") for page in PAGES}  # as scripts/docs calls what is hidden

    assert wanted - in_the_menu() - OUTSIDE_OF_THE_MENU == set()


@pytest.mark.timeout(320)
def test_the_reference_shows_every_public_name(site: Site) -> None:
    anchors = site.pages[site.home / "docs" / "reference" / "index.html"].anchors

    assert [name for name in NAMES if name not in anchors] == []


@pytest.mark.parametrize(
    "fault", ["[nowhere](nowhere.md)", "[nobody](#nobody)", "::: fastapi_maintenance.NoSuchName"]
)
def test_a_page_with_a_fault_is_not_built(fault: str, tmp_path: Path) -> None:
    (tmp_path / "zensical.toml").write_text(
        re.sub(
            r"nav = \[\n.*?^\]\n",
            "",
            (ROOT / "zensical.toml").read_text(),
            flags=re.DOTALL | re.MULTILINE,
        )
    )
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "README.md").write_text(f"# Page\n\n{fault}\n")

    built = subprocess.run(
        [ZENSICAL, "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert built.returncode != 0
