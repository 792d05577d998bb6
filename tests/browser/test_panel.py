"""The panel in a real browser, over four real workers and a real Redis."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Locator, Page, expect

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.backends import LocalFileBackend, RedisBackend
from fastapi_maintenance.exemptions.bypass import Bypass

from ..apps.administered import PASSWORD
from ..support.registering import register
from ..support.servers import RedisServer
from ..support.serving import serving
from ..support.waiting import eventually_sync
from ..support.workers import Workers
from .visit import PHONE, Visit

TELL: Final = "document.dispatchEvent(new Event('visibilitychange')) }"
EVIL: Final = """<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Evil</title>
<form method="post" enctype="text/plain" action="{action}">
<input name='{{"a":"' value='"}}'><button>Win</button></form>"""
PAGE: Final = (
    '<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>The shop</title>'
)
ANA: Final[dict[str, Any]] = {"http_credentials": {"username": "ana", "password": PASSWORD}}
LONG: Final = (
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen https://example.com/" + "a" * 200
)
SOON: Final = 30.0

pytestmark = pytest.mark.timeout(240)


class Site:
    """Four workers of one application, and the Redis with their switch."""

    def __init__(self, workers: Workers, redis: RedisServer) -> None:
        self.workers = workers
        self.redis = redis
        self.shop = f"http://127.0.0.1:{workers.port}/"
        self.panel = f"{self.shop}maintenance/"

    @property
    def statuses(self) -> set[int]:
        """What each of the four answers to visitors."""
        return {answer.status for answer in self.workers.get_all("/").values()}

    @contextmanager
    def held(self, reason: str) -> Iterator[None]:
        """While a job somewhere holds the service closed."""
        command = ["run", "--drain", "0", "--reason", reason, "--", sys.executable, "-c", "input()"]
        program = [
            sys.executable,
            "-m",
            "fastapi_maintenance",
            "--backend",
            self.redis.url,
            *command,
        ]
        with Popen(program, stdin=-1, stdout=DEVNULL, stderr=DEVNULL, text=True) as job:
            try:
                yield
            finally:
                assert job.stdin is not None
                job.communicate("\n", timeout=60)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with (
        RedisServer() as server,
        Workers(
            "tests.apps.administered:app", count=4, env={"FASTAPI_MAINTENANCE_BACKEND": server.url}
        ) as workers,
    ):
        yield Site(workers, server)


@pytest.fixture
def site(running: Site) -> Site:
    """The site, open, with four registered workers and no history."""
    running.redis.cli("DEL", "maintenance", "maintenance:billing", "{maintenance}:holds")
    eventually_sync(lambda: running.statuses == {200}, within=SOON)
    # A worker that notices the end of an earlier test's switch writes it down.
    eventually_sync(
        lambda: running.redis.cli("HMGET", "{maintenance}:recorded", "", "billing").split() == [],
        within=SOON,
    )
    running.redis.cli("DEL", "{maintenance}:history")
    return running


@pytest.fixture
def panel(visit: Visit, site: Site) -> Page:
    return opened(visit, site)


def opened(visit: Visit, site: Site, **visitor: Any) -> Page:
    page = visit.to(site.panel, **ANA, **visitor)
    expect(rows(page)).to_have_count(4)
    expect(page.get_by_role("heading", level=1)).to_have_text("Open")
    return page


def heading(page: Page) -> Locator:
    return page.get_by_role("heading", level=1)


def rows(page: Page) -> Locator:
    return page.get_by_role("table", name="Workers").locator("tbody tr")


def expect_rows(page: Page, word: str) -> None:
    for number in range(4):
        expect(rows(page).nth(number)).to_contain_text(word)
        expect(rows(page).nth(number)).to_contain_text("✓ yes")


def turn_on(page: Page, reason: str = "", **choices: str) -> None:
    page.get_by_role("button", name="Turn on…").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    for label, option in choices.items():
        dialog.get_by_role("group", name=label).get_by_label(option, exact=True).first.check()
    dialog.get_by_role("button", name=re.compile("Turn on|Schedule")).click()
    expect(dialog).to_be_hidden()


# -- the switch ------------------------------------------------------------------------------------


def test_panel_flip_closes_and_opens_every_worker(panel: Page, site: Site) -> None:
    expect_rows(panel, "open")
    turn_on(panel, "OPS-417 reindex")
    expect(heading(panel)).to_have_text("Closed for maintenance")
    expect_rows(panel, "drained")
    expect(panel.locator("#progress")).to_have_text(
        "All 4 workers are up to date · no request in flight"
    )
    expect(panel.locator("#facts")).to_contain_text("OPS-417 reindex")
    expect(panel.locator("#facts")).to_contain_text("ana")
    assert site.statuses == {503}

    panel.get_by_role("button", name="Turn off…").click()
    panel.get_by_role("dialog").get_by_role("button", name="Turn off").click()
    expect(heading(panel)).to_have_text("Open")
    expect_rows(panel, "open")
    assert site.statuses == {200}
    history = panel.get_by_role("table", name="History")
    expect(history.locator("tbody tr", has_text="ana")).to_have_count(2)


def test_panel_follows_redis_cli_within_a_second(panel: Page, site: Site) -> None:
    for value, word in (
        ("1", "Closed for maintenance"),
        ('{"enabled": true, "mode": "read-only"}', "Read-only"),
        ("0", "Open"),
    ):
        site.redis.cli("SET", "maintenance", value)
        began = time.monotonic()
        expect(heading(panel)).to_have_text(word)
        assert time.monotonic() - began < 15, "a second is promised, and machines are slow at times"
    expect_rows(panel, "open")


def test_panel_changes_nothing_before_confirmation(panel: Page, site: Site) -> None:
    panel.get_by_role("button", name="Turn on…").first.click()
    panel.get_by_role("button", name="Cancel").click()
    panel.get_by_role("button", name="Turn on…").first.click()
    panel.keyboard.press("Escape")
    expect(panel.get_by_role("dialog")).to_be_hidden()
    assert site.redis.cli("EXISTS", "maintenance") == "0"


def test_second_operator_is_told_and_keeps_the_form(site: Site, panel: Page) -> None:
    panel.get_by_role("button", name="Turn on…").first.click()
    dialog = panel.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("mine")
    site.redis.cli("SET", "maintenance", '{"enabled": true, "reason": "hers"}')
    expect(heading(panel)).to_have_text("Closed for maintenance")
    dialog.get_by_role("button", name="Turn on").click()
    expect(dialog.get_by_role("alert")).to_contain_text("has changed since it was read")
    assert dialog.get_by_label("Reason").input_value() == "mine"
    assert "hers" in site.redis.cli("GET", "maintenance")


def test_change_keeps_details_that_the_form_lacks(panel: Page, site: Site) -> None:
    site.redis.cli(
        "SET",
        "maintenance",
        '{"enabled": true, "reason": "old", "retry_after": 77, "allow": ["POST /login"], "since": '
        '"2026-01-01T00:00:00Z"}',
    )
    panel.get_by_role("button", name="Change…").click()
    dialog = panel.get_by_role("dialog")
    expect(dialog.get_by_label("Reason")).to_have_value("old")
    dialog.get_by_label("Message").fill("Back soon")
    dialog.get_by_role("button", name="Apply").click()
    expect(panel.locator("#facts")).to_contain_text("Back soon")
    value = site.redis.cli("GET", "maintenance")
    for kept in (
        '"reason":"old"',
        '"retry_after":77',
        "POST /login",
        "2026-01-01T00:00:00Z",
        '"message":"Back soon"',
    ):
        assert kept in value


def test_invalid_value_is_shown_and_can_be_cleared(panel: Page, site: Site) -> None:
    turn_on(panel)
    expect_rows(panel, "drained")
    site.redis.cli("SET", "maintenance", "garbage")
    expect(heading(panel)).to_have_text("The switch cannot be read")
    expect(panel.locator("#trouble")).to_contain_text("Workers keep their last known state.")
    expect_rows(panel, "drained")
    expect(panel.locator("#history tr").first).to_contain_text("set to an invalid value")
    expect(panel.locator("#history tr").first).to_contain_text("seen by")
    panel.get_by_role("button", name="Turn off…").click()
    panel.get_by_role("dialog").get_by_role("button", name="Turn off").click()
    expect(heading(panel)).to_have_text("Open")
    assert site.redis.cli("EXISTS", "maintenance") == "0"


def test_ignored_details_are_named(panel: Page, site: Site) -> None:
    site.redis.cli("SET", "maintenance", '{"enabled": true, "msg": "x"}')
    expect(panel.locator("#trouble")).to_contain_text("msg: unknown key")
    assert panel.locator("#now").get_attribute("data-is") != "unknown"


def test_dialog_buttons_stay_in_view(panel: Page) -> None:
    panel.set_viewport_size({"width": 1280, "height": 500})
    panel.get_by_role("button", name="Turn on…").click()
    expect(panel.get_by_role("dialog").get_by_role("button", name="Turn on")).to_be_in_viewport(
        ratio=1
    )


# -- windows ---------------------------------------------------------------------------------------


def test_window_is_entered_in_local_time_and_cancelled(visit: Visit, site: Site) -> None:
    page = opened(visit, site, timezone_id="America/New_York")
    page.get_by_role("button", name="Turn on…").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Begin at").fill("2126-11-22T03:00")
    expect(dialog.get_by_role("group", name="Begin").get_by_label("at", exact=True)).to_be_checked()
    dialog.get_by_label("End at").fill("2126-11-22T02:00")
    expect(dialog).to_contain_text("The end must be after the beginning.")
    dialog.get_by_role("button", name="Schedule").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The end must be after the beginning.")
    dialog.get_by_label("End at").fill("2126-11-22T04:00")
    dialog.get_by_role("button", name="Schedule").click()
    expect(page.locator("#facts")).to_contain_text("Begins")
    expect(heading(page)).to_have_text("Open")
    assert '"starts_at":"2126-11-22T08:00:00Z","ends_at":"2126-11-22T09:00:00Z"' in site.redis.cli(
        "GET", "maintenance"
    )

    page.get_by_role("button", name="Cancel the window…").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the window").click()
    expect(page.locator("#facts")).not_to_contain_text("Begins")
    assert site.redis.cli("EXISTS", "maintenance") == "0"


def test_length_sets_the_end(panel: Page, site: Site) -> None:
    turn_on(panel, End="after")
    expect(panel.locator("#facts")).to_contain_text(re.compile(r"in (30|29) min"))
    assert '"ends_at"' in site.redis.cli("GET", "maintenance")


# -- workers, holds, parts, testers ----------------------------------------------------------------


def test_request_in_flight_is_counted_until_it_ends(panel: Page) -> None:
    panel.evaluate("void fetch('/slow?seconds=10')")
    expect(rows(panel).filter(has_text="1 request")).to_have_count(1)
    turn_on(panel)
    expect(panel.locator("#progress")).to_contain_text("1 request in flight")
    expect(rows(panel).filter(has_text="closed")).to_have_count(1)
    expect(panel.locator("#progress")).to_contain_text("no request in flight")
    expect_rows(panel, "drained")


def test_worker_that_vanished_is_shown_until_it_is_forgotten(panel: Page, site: Site) -> None:
    register(site.redis, "elsewhere", reports=False, host="web-9", pid=4711)
    expect(rows(panel).filter(has_text="web-9")).to_contain_text("vanished")
    expect(rows(panel).filter(has_text="web-9")).to_contain_text("may still serve")
    reason = rows(panel).filter(has_text="web-9").locator(".why")
    expect(reason).to_be_visible()
    expect(reason).to_contain_text("its record does not say where its process ran")
    site.redis.cli("HDEL", "{maintenance}:registry", "elsewhere")
    expect(rows(panel).filter(has_text="web-9")).to_have_count(0)


def test_worker_that_is_killed_is_proved_gone_by_the_others(
    visit: Visit, panel: Page, site: Site
) -> None:
    victim = site.workers.pids[0]
    site.workers.kill(victim)
    expect(rows(panel).filter(has_text=str(victim))).to_have_count(0)
    site.workers.connect(within=60)
    expect(rows(panel).filter(has_text="open")).to_have_count(4)
    visit.complaints.clear()  # it may have been the one that served the page


def test_hold_is_shown_with_its_lease_and_can_be_ended(panel: Page, site: Site) -> None:
    with site.held("alembic upgrade"):
        row = panel.get_by_role("table", name="Holds").locator("tbody tr")
        expect(row).to_contain_text("alembic upgrade")
        expect(row).to_contain_text(re.compile(r"\d+ s"))
        expect(heading(panel)).to_have_text("Closed for maintenance")
        expect(panel.locator("#facts")).to_contain_text("1 hold")

        panel.get_by_role("button", name="Turn off…").click()
        dialog = panel.get_by_role("dialog")
        expect(dialog).to_contain_text("a hold keeps the service closed")
        dialog.get_by_label("Also end the hold: alembic upgrade").check()
        expect(dialog).to_contain_text("no migration is still running under a hold")
        dialog.get_by_role("button", name="Turn off").click()
        expect(heading(panel)).to_have_text("Open")
        expect(row).to_have_count(0)


def test_component_is_closed_alone(panel: Page, site: Site) -> None:
    panel.get_by_role("button", name="Turn maintenance on for billing").click()
    dialog = panel.get_by_role("dialog")
    expect(dialog).to_contain_text("For billing, every worker answers 503 from now")
    dialog.get_by_role("button", name="Turn on").click()
    expect(panel.locator("#components tr")).to_contain_text("closed")
    expect(heading(panel)).to_have_text("Open")
    eventually_sync(
        lambda: {answer.status for answer in site.workers.get_all("/billing").values()} == {503},
        within=30,
    )
    panel.get_by_role("button", name="Turn maintenance off for billing").click()
    panel.get_by_role("dialog").get_by_role("button", name="Turn off").click()
    expect(panel.locator("#components tr")).to_contain_text("open")
    assert site.redis.cli("EXISTS", "maintenance:billing") == "0"


def test_link_lets_a_tester_in_until_revoked(visit: Visit, site: Site, panel: Page) -> None:
    expect(panel.get_by_role("button", name="Create a link…")).to_be_disabled()
    turn_on(panel)
    panel.get_by_role("button", name="Create a link…").click()
    dialog = panel.get_by_role("dialog")
    dialog.get_by_label("For whom?").fill("Eve")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_label("Link")).to_have_value(re.compile("maintenance_bypass="))
    link = dialog.get_by_label("Link").input_value()
    dialog.get_by_role("button", name="Close").click()

    tester = visit.to(link)
    assert tester.title() == "The shop"
    expect(panel.locator("#history tr").first).to_contain_text("changed")
    panel.get_by_role("button", name="Revoke the link for Eve").click()
    expect(panel.locator("#bypasses tr")).to_have_count(0)
    eventually_sync(lambda: tester.goto(site.shop) and tester.title() != "The shop", within=SOON)


def test_link_of_a_mounted_application_lets_two_browsers_in(visit: Visit, tmp_path: Path) -> None:
    outer, app = FastAPI(), FastAPI()
    backend, bypass = (
        LocalFileBackend(tmp_path / "switch.json"),
        Bypass("0123456789abcdef0123456789abcdef"),
    )
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, bypass=bypass)
    app.get("/", response_class=HTMLResponse)(lambda: PAGE)
    app.include_router(maintenance_admin(public=True), prefix="/ops")
    outer.mount("/shop", app)
    with serving(outer) as server:
        panel = visit.to(f"http://{server}/shop/ops/maintenance/")
        turn_on(panel)
        panel.get_by_role("button", name="Create a link…").click()
        panel.get_by_role("button", name="Create", exact=True).click()
        field = panel.get_by_role("dialog").get_by_label(
            "Link works in every browser that opens it"
        )
        expect(field).to_have_value(re.compile(f"^http://{server}/shop/\\?maintenance_bypass="))
        for _ in range(2):
            assert visit.to(field.input_value()).title() == "The shop"
        assert visit.to(f"http://{server}/shop/").title() != "The shop"


# -- coming and going ------------------------------------------------------------------------------


def test_page_shown_again_is_current(panel: Page, site: Site) -> None:
    """As after a sleep: the page is hidden, disconnected, and shown again."""
    hide = (
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: "
        "true}); " + TELL
    )
    panel.evaluate(hide, True)
    assert panel.title() == "Maintenance"
    site.redis.cli("SET", "maintenance", "1")
    panel.wait_for_timeout(1500)
    expect(heading(panel)).to_have_text("Open")
    panel.evaluate(hide, False)
    expect(heading(panel)).to_have_text("Closed for maintenance")
    expect_rows(panel, "drained")


def test_page_reconnects_to_a_restarted_server(visit: Visit, site: Site) -> None:
    page = opened(visit, site)
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#link")).to_contain_text("Not connected for")
    site.redis.cli("SET", "maintenance", "1")
    page.context.set_offline(False)
    expect(heading(page)).to_have_text("Closed for maintenance")
    expect(page.locator("#link")).to_have_text("Live")
    visit.complaints.clear()  # that it could not be reached


def test_unreachable_redis_is_shown(visit: Visit, own_redis_server: Any) -> None:
    server = own_redis_server()
    with Workers(
        "tests.apps.administered:app",
        count=1,
        env={"FASTAPI_MAINTENANCE_BACKEND": f"{server.url}?timeout=0.5"},
    ) as workers:
        page = visit.to(f"http://127.0.0.1:{workers.port}/maintenance/", **ANA)
        expect(heading(page)).to_have_text("Open")
        server.kill()
        expect(page.locator("#trouble")).to_contain_text(
            "shows its last known state and serves requests ("
        )
        turn = page.get_by_role("button", name="Turn on…").first
        turn.click()
        page.get_by_role("dialog").get_by_role("button", name="Turn on").click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def test_panel_works_on_a_file(visit: Visit, tmp_path: Any) -> None:
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware, backend=LocalFileBackend(f"{tmp_path}/switch.json", ttl=0.1)
    )
    app.include_router(maintenance_admin(public=True))
    with serving(app) as server:
        page = visit.to(f"http://{server}/maintenance/")
        turn_on(page, "OPS-417")
        expect(heading(page)).to_have_text("Closed for maintenance")
        expect(page.locator("#workers-none")).to_have_text(
            "This backend has no registry of workers; Redis has."
        )
        expect(page.locator("#history-section")).to_be_hidden()


def test_override_is_named(visit: Visit, tmp_path: Any) -> None:
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware,
        enable_maintenance=True,
        backend=LocalFileBackend(f"{tmp_path}/switch.json"),
    )
    app.include_router(maintenance_admin(public=True))
    with serving(app) as server:
        page = visit.to(f"http://{server}/maintenance/")
        expect(heading(page)).to_have_text("Closed for maintenance")
        expect(page.locator("#facts")).to_contain_text(
            "enable_maintenance=True, which overrides the switch"
        )


def test_panel_names_the_ways_around_the_gate(visit: Visit, redis_server: RedisServer) -> None:
    app = FastAPI()
    app.include_router(maintenance_admin(public=True))
    middleware = MaintenanceModeMiddleware(app, backend=RedisBackend(redis_server.url))
    middleware.mode.note_unrouted("/legacy/<b>")
    with serving(middleware) as server:
        page = visit.to(f"http://{server}/maintenance/")
        expect(page.locator("#around")).to_contain_text("/legacy/<b>. No route has these paths")


# -- for everybody ---------------------------------------------------------------------------------


def test_panel_works_by_keyboard_alone(panel: Page) -> None:
    def press(key: str, until: Locator) -> None:
        for _ in range(40):
            if until.evaluate("element => element === document.activeElement"):
                return
            panel.keyboard.press(key)
        raise AssertionError(f"{until} was not reached")

    press("Tab", panel.locator("#turn-on"))
    panel.keyboard.press("Enter")
    expect(panel.get_by_label("Reason")).to_be_focused()
    panel.keyboard.type("by keyboard")
    panel.keyboard.press("Enter")
    expect(heading(panel)).to_have_text("Closed for maintenance")
    press("Tab", panel.locator("#turn-off"))
    panel.keyboard.press("Space")
    expect(panel.locator("#off-go")).to_be_focused()
    panel.keyboard.press("Enter")
    expect(heading(panel)).to_have_text("Open")


def test_screen_reader_is_told_once_per_change(panel: Page, site: Site) -> None:
    status = panel.locator("#said")
    expect(status).to_have_attribute("role", "status")
    expect(status).to_have_text("Open. All 4 workers are up to date")
    panel.evaluate(
        "window.said = []; new MutationObserver(() => "
        "said.push(document.getElementById('said').textContent)).observe("
        "document.getElementById('said'), {childList: true})"
    )
    site.redis.cli("SET", "maintenance", "1")
    expect(status).to_have_text(
        "Closed for maintenance. All 4 workers are up to date · no request in flight"
    )
    expect_rows(panel, "drained")
    heard = panel.evaluate("said")
    panel.wait_for_timeout(3000)  # over a heartbeat
    assert panel.evaluate("said") == heard
    assert len(heard) == len(set(heard))


@pytest.mark.parametrize(
    "visitor",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"color_scheme": "light", **PHONE}],
    ids=["light", "dark", "phone"],
)
def test_panel_is_accessible(visit: Visit, site: Site, visitor: dict[str, Any]) -> None:
    page = opened(visit, site, reduced_motion="reduce", **visitor)
    page.get_by_text("What these words mean").click()
    expect(page.get_by_text("it refuses requests and none is running")).to_be_visible()
    check(page)
    page.get_by_role("button", name="Turn on…").first.click()
    check(page)
    page.keyboard.press("Escape")
    site.redis.cli(
        "SET", "maintenance", '{"enabled": true, "message": "Back soon", "reason": "OPS-417"}'
    )
    with site.held("alembic upgrade"):
        expect(page.get_by_role("table", name="Holds").locator("tbody tr")).to_have_count(1)
        expect_rows(page, "drained")
        check(page)
        page.get_by_role("button", name="Turn off…").click()
        check(page)
        page.keyboard.press("Escape")
    site.redis.cli("SET", "maintenance", '{"enabled": true, "mode": "read-only"}')
    expect(heading(page)).to_have_text("Read-only")
    check(page)


def check(page: Page) -> None:
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
    assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}


def test_smallest_screen_shows_everything(visit: Visit, site: Site) -> None:
    page = opened(visit, site, **PHONE)
    page.get_by_role("button", name="Turn on…").first.click()
    assert page.locator("#set").evaluate("element => element.scrollWidth <= element.clientWidth")
    page.keyboard.press("Escape")
    turn_on(page, LONG)
    with site.held(LONG):
        expect(page.get_by_role("table", name="Holds").locator("tbody tr")).to_have_count(1)
        expect_rows(page, "drained")
        page.get_by_text("What these words mean").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.get_by_role("button", name="Turn off…").click()
        assert page.locator("#off").evaluate(
            "element => element.scrollWidth <= element.clientWidth"
        )


def test_operator_texts_are_never_markup(panel: Page, site: Site) -> None:
    evil = "<img src=/x onerror=document.title='owned'><script>document.title='owned'</script>"
    site.redis.cli(
        "SET",
        "maintenance",
        f'{{"enabled": true, "reason": "{evil}", "message": "{evil}", "by": "{evil}"}}',
    )
    expect(panel.locator("#facts dd").first).to_have_text(evil)
    assert panel.locator("img").count() == 0
    assert panel.title() == "Closed for maintenance – Maintenance"


def test_panel_requests_nothing_but_its_router(visit: Visit, site: Site) -> None:
    page = opened(visit, site)
    turn_on(page)
    expect_rows(page, "drained")
    assert {request.url.removeprefix(site.panel) for request in visit.requests} == {
        "",
        "events",
        "switch",
    }


def test_form_of_another_site_is_refused(visit: Visit, site: Site) -> None:
    """A form in a page of another origin, sent by a browser that is logged in."""
    form = EVIL.format(action=f"{site.panel}barrier")
    other = FastAPI()
    other.get("/", response_class=HTMLResponse)(lambda: form)
    with serving(other) as server:
        page = visit.to(site.panel, **ANA)
        expect(heading(page)).to_have_text("Open")
        page.goto(f"http://{server.replace('127.0.0.1', 'localhost')}/")
        with page.expect_response(lambda answer: answer.url.endswith("/barrier")) as refused:
            page.get_by_role("button").click()
        assert refused.value.status == 403
