"""The page, as visitors see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Page, Response, expect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import MaintenanceModeMiddleware, ResponseOptions
from fastapi_maintenance.model.state import ON, MaintenanceState
from fastapi_maintenance.responses.response import MaintenanceResponse

from ..support.serving import serving
from ..support.waiting import eventually_sync
from .visit import PHONE, Visit

Switch = Callable[[str], None]

LATER: Final = datetime(2126, 11, 22, 4, 0, tzinfo=UTC)
WITHOUT_SCRIPT: Final[dict[str, Any]] = {"java_script_enabled": False}


def shop(**options: Any) -> FastAPI:
    """An application with a page for visitors and one that is sent by a form only."""
    app = FastAPI()

    @app.get("/", response_class=HTMLResponse)
    def home() -> str:
        forms = (
            f'<form method="post" action="/{name.lower()}"><button>{name}</button></form>'
            for name in ("Order", "Cart")
        )
        return _html("Open", *forms)

    @app.post("/order")
    def order() -> str:
        return "ordered"

    @app.post("/cart", response_class=HTMLResponse)
    @app.get("/cart", response_class=HTMLResponse)
    def cart() -> str:
        return _html("Cart")

    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


def _html(heading: str, *more: str) -> str:
    return (
        '<!doctype html><html lang="en"><title>Shop</title><link rel="icon" '
        f'href="data:,"><h1>{heading}</h1>{"".join(more)}'
    )


def showing(state: MaintenanceState, **options: Any) -> Any:
    """A server that has only this to say."""
    return serving(MaintenanceResponse(state, options=ResponseOptions(**options)))


def polls(visit: Visit) -> int:
    """How often pages have asked whether the service is back."""
    return sum(request.resource_type == "fetch" for request in visit.requests)


def _pumped(page: Page, value: bool) -> bool:
    """Playwright notes events only while it is asked for something."""
    page.wait_for_timeout(50)
    return value


@pytest.fixture
def address(switch: Switch) -> Iterator[str]:
    """Where the shop is served, closed."""
    switch("1")
    with serving(shop()) as server:
        yield f"http://{server}"


# -- what it says ----------------------------------------------------------------------------------


def test_page_shows_title_message_end_and_waiting(visit: Visit) -> None:
    with showing(
        MaintenanceState(
            enabled=True, message="We are moving house.\nNothing is lost.", ends_at=LATER
        )
    ) as server:
        page = visit.to(f"http://{server}/items")
        assert page.title() == "Down for maintenance"
        expect(page.get_by_role("main")).to_contain_text("Down for maintenance")
        expect(page.get_by_role("heading", level=1)).to_have_text("Down for maintenance")
        expect(page.get_by_text("We are moving house.")).to_have_text(
            "We are moving house.\nNothing is lost."
        )
        expect(page.get_by_role("status")).to_have_text(
            "This page comes back by itself as soon as the service does."
        )


@pytest.mark.parametrize(
    ("locale", "timezone", "shown"),
    [
        ("en-GB", "Europe/London", "Friday 22 November 2126 at 04:00 GMT"),
        ("en-US", "America/New_York", "Thursday, November 21, 2126 at 11:00 PM EST"),
        ("de-AT", "Europe/Vienna", "Freitag, 22. November 2126 um 05:00 MEZ"),
        # We have no Finnish texts; the browser has.
        ("fi-FI", "Europe/Helsinki", "perjantaina 22. marraskuuta 2126 klo 6.00"),
    ],
)
def test_page_shows_the_end_in_locale_and_time_zone(
    visit: Visit, locale: str, timezone: str, shown: str
) -> None:
    with showing(MaintenanceState(enabled=True, ends_at=LATER)) as server:
        page = visit.to(f"http://{server}/", locale=locale, timezone_id=timezone)
        words = page.locator("time").inner_text().replace(",", "").split()
        assert [word for word in shown.replace(",", "").split() if word not in words] == []


def test_page_leaves_the_day_out_for_today(visit: Visit) -> None:
    now = datetime.now(UTC)
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    with showing(
        MaintenanceState(enabled=True, ends_at=noon if noon > now else noon + timedelta(hours=11))
    ) as server:
        page = visit.to(f"http://{server}/", timezone_id="UTC")
        assert re.fullmatch(r"\d\d:00 (UTC|GMT)", page.locator("time").inner_text())


def test_page_without_script_shows_the_end_in_utc(visit: Visit) -> None:
    with showing(MaintenanceState(enabled=True, ends_at=LATER)) as server:
        page = visit.to(f"http://{server}/", **WITHOUT_SCRIPT)
        expect(page.locator("time")).to_have_text("2126-11-22 04:00 UTC")
        expect(page.locator(".waiting")).to_be_hidden()


@pytest.mark.parametrize(
    ("locale", "heading", "direction"),
    [
        ("de-DE", "Wartungsarbeiten", "ltr"),
        ("ar", "الخدمة قيد الصيانة", "rtl"),
        ("fi", "Down for maintenance", "ltr"),
    ],
)
def test_page_speaks_the_language_of_the_visitor(
    visit: Visit, locale: str, heading: str, direction: str
) -> None:
    with showing(ON) as server:
        page = visit.to(f"http://{server}/", locale=locale)
        expect(page.get_by_role("heading")).to_have_text(heading)
        assert page.evaluate("getComputedStyle(document.body).direction") == direction
        assert locale.startswith(
            page.locator("html").get_attribute("lang") or ""
        ) or heading.startswith("Down")


def test_message_is_never_markup(visit: Visit) -> None:
    message = (
        "<script>document.title='owned'</script><img src=/x "
        "onerror=\"document.title='owned'\"></p><h1>&amp;</h1>"
    )
    with showing(MaintenanceState(enabled=True, message=message)) as server:
        page = visit.to(f"http://{server}/")
        expect(page.locator(".message")).to_have_text(message)
        assert page.title() == "Down for maintenance"
        assert page.locator("h1").count() == 1


def test_right_to_left_message_has_its_own_direction(visit: Visit) -> None:
    with showing(MaintenanceState(enabled=True, message="נחזור בקרוב. (API v2)")) as server:
        page = visit.to(f"http://{server}/")
        assert (
            page.locator(".message").evaluate("element => getComputedStyle(element).direction")
            == "rtl"
        )


# -- alone, under any policy -----------------------------------------------------------------------


def test_page_requests_nothing_else(visit: Visit) -> None:
    with showing(MaintenanceState(enabled=True, ends_at=LATER)) as server:
        page = visit.to(f"http://{server}/items")
        page.wait_for_load_state("networkidle")
        assert [request.url for request in visit.requests] == [f"http://{server}/items"]


def test_page_policy_allows_its_style_and_script_alone(visit: Visit) -> None:
    with showing(MaintenanceState(enabled=True, ends_at=LATER)) as server:
        page = visit.to(f"http://{server}/")
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).fontWeight") == "650"
        expect(page.get_by_role("status")).to_be_visible()
        injected = (
            "document.body.append(Object.assign(document.createElement('script'), "
            "{textContent: 'document.title = 1'}))"
        )
        page.evaluate(injected)
        assert page.title() == "Down for maintenance"
        assert [
            complaint for complaint in visit.complaints if "Content Security Policy" in complaint
        ]
        visit.complaints.clear()


def test_page_under_a_stricter_policy_is_readable(visit: Visit) -> None:
    async def strict(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-security-policy", b"default-src 'none'"))
            await send(message)

        await MaintenanceResponse(
            MaintenanceState(enabled=True, message="Back soon", ends_at=LATER)
        )(scope, receive, with_policy)

    with serving(strict) as server:
        page = visit.to(f"http://{server}/")
        expect(page.get_by_role("heading")).to_be_visible()
        expect(page.get_by_text("Back soon")).to_be_visible()
        expect(page.locator("time")).to_have_text("2126-11-22 04:00 UTC")
        expect(page.locator(".waiting")).to_be_hidden()
        assert (
            page.locator("svg").evaluate("element => element.getBoundingClientRect().width") <= 48
        )
        visit.complaints.clear()  # that style and script are refused


# -- for everybody ---------------------------------------------------------------------------------

LONG: Final = (
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen " * 3
    + "https://example.com/"
    + "a" * 200
)


@pytest.mark.parametrize(
    "visitor",
    [{"color_scheme": "light", **PHONE}, {"color_scheme": "dark"}],
    ids=["light phone", "dark desk"],
)
@pytest.mark.parametrize(
    ("locale", "state"),
    [
        ("en-GB", MaintenanceState(enabled=True, ends_at=LATER)),
        ("de-DE", MaintenanceState(enabled=True, message=LONG, mode="read-only")),
        ("ar", MaintenanceState(enabled=True, message="Back at <b>four</b>", ends_at=LATER)),
    ],
)
def test_page_is_accessible(
    visit: Visit, visitor: dict[str, Any], locale: str, state: MaintenanceState
) -> None:
    with showing(state) as server:
        found = Axe().run(visit.to(f"http://{server}/", locale=locale, **visitor))
        assert found.response["violations"] == [], found.generate_report()
        assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}


def test_accessibility_check_can_fail(visit: Visit) -> None:
    with showing(ON) as server:
        page = visit.to(f"http://{server}/")
        page.evaluate("document.documentElement.removeAttribute('lang')")
        page.evaluate("document.querySelector('h1').style.color = '#eee'")
        assert {rule["id"] for rule in Axe().run(page).response["violations"]} == {
            "html-has-lang",
            "color-contrast",
        }


def test_light_and_dark_scheme_differ(visit: Visit) -> None:
    with showing(ON) as server:
        colours = [
            visit.to(f"http://{server}/", color_scheme=scheme).evaluate(
                "getComputedStyle(document.body).backgroundColor"
            )
            for scheme in ("light", "dark")
        ]
    light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert light > 700
    assert dark < 100


@pytest.mark.parametrize("locale", ["de", "ar", "ja"])
def test_smallest_screen_shows_everything(visit: Visit, locale: str) -> None:
    with showing(MaintenanceState(enabled=True, message=LONG, ends_at=LATER)) as server:
        page = visit.to(f"http://{server}/", locale=locale, **PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        for part in ("h1", ".message", ".until", ".waiting"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert (box["x"] >= 0, box["x"] + box["width"] <= 320, box["y"] >= 0) == (
                True,
                True,
                True,
            )


# -- coming back -----------------------------------------------------------------------------------


def test_page_returns_when_the_switch_is_off(visit: Visit, address: str, switch: Switch) -> None:
    page = visit.to(address)
    expect(page.get_by_role("heading")).to_have_text("Down for maintenance")
    with page.expect_response(lambda response: response.request.resource_type == "fetch"):
        pass
    expect(page.get_by_role("heading")).to_have_text("Down for maintenance")
    switch("0")
    expect(page.get_by_role("heading")).to_have_text("Open")


@pytest.mark.parametrize("path", ["/?of=today", "/#offers"])
def test_page_returns_to_the_same_address(
    visit: Visit, address: str, switch: Switch, path: str
) -> None:
    page = visit.to(f"{address}{path}", clock=True)
    expect(page.get_by_role("heading")).to_have_text("Down for maintenance")
    switch("0")
    page.clock.run_for(3_000)
    expect(page.get_by_role("heading")).to_have_text("Open")
    assert page.url == f"{address}{path}"


def test_page_without_script_reloads_by_header(visit: Visit, switch: Switch) -> None:
    switch("1")
    with serving(shop(response=ResponseOptions(refresh=1))) as server:
        page = visit.to(f"http://{server}/", **WITHOUT_SCRIPT)
        expect(page.get_by_role("heading")).to_have_text("Down for maintenance")
        switch("0")
        expect(page.get_by_role("heading")).to_have_text("Open")


def test_page_polls_ever_less_often(visit: Visit, address: str) -> None:
    page = visit.to(address, clock=True)
    answered: list[Response] = []
    page.on("response", lambda response: answered.append(response))
    pauses, seconds = list[int](), 0
    while len(pauses) < 12:
        page.clock.run_for(1_000)
        seconds += 1
        if polls(visit) > len(pauses):
            eventually_sync(lambda: _pumped(page, len(answered) == polls(visit)), within=30)
            pauses.append(seconds)
            seconds = 0
    assert pauses[0] <= 5
    assert all(50 <= pause <= 90 for pause in pauses[-3:])
    assert {response.headers["content-type"] for response in answered} == {"application/json"}


def polled_in(visit: Visit, page: Page, minutes: int) -> int:
    """Returns how often the page asks in the next minutes of its clock."""
    before = polls(visit)
    for _ in range(minutes):
        page.clock.run_for(60_000)
        page.wait_for_timeout(30)
    return polls(visit) - before


@pytest.mark.parametrize(("jitter", "late"), [(3600, 30), (0, 0)])
def test_page_returns_after_known_end_spread_by_jitter(
    visit: Visit, jitter: int, late: int
) -> None:
    ends_at = datetime.now(UTC) + timedelta(minutes=10)
    with showing(MaintenanceState(enabled=True, ends_at=ends_at), jitter=jitter) as server:
        page = visit.nowhere()
        page.clock.install()
        page.add_init_script("Math.random = () => 0.5")
        page.goto(f"http://{server}/")
        assert polled_in(visit, page, 8) >= 4, "it may be over early"
        polled_in(visit, page, 3)
        if late:
            assert polled_in(visit, page, late - 3) == 0
        assert polled_in(visit, page, 5) >= 1


def test_form_is_not_sent_twice(visit: Visit, address: str, switch: Switch) -> None:
    switch("0")
    page = visit.to(address)
    switch("1")
    page.get_by_role("button", name="Cart").click()
    expect(page.get_by_role("heading")).to_have_text("Down for maintenance")
    switch("0")
    expect(page.get_by_role("heading")).to_have_text("Cart")
    assert [request.method for request in visit.requests if request.is_navigation_request()] == [
        "GET",
        "POST",
        "GET",
    ]


def test_post_only_address_is_not_reloaded(visit: Visit, address: str, switch: Switch) -> None:
    """The application answers 405 to the question, open or closed."""
    switch("0")
    page = visit.to(address, clock=True)
    switch("1")
    page.get_by_role("button", name="Order").click()
    expect(page.get_by_role("heading")).to_have_text("Down for maintenance")
    switch("0")
    with page.expect_response(lambda response: response.status == 405):
        page.clock.run_for(3_000)
    page.wait_for_timeout(300)
    expect(page.get_by_role("heading")).to_have_text("Down for maintenance")


def test_form_in_read_only_mode_stays(visit: Visit, address: str, switch: Switch) -> None:
    switch('{"enabled": true, "mode": "read-only"}')
    page = visit.to(address, clock=True)
    page.get_by_role("button", name="Cart").click()
    expect(page.get_by_role("heading")).to_have_text("Read-only for maintenance")
    page.clock.run_for(300_000)
    page.wait_for_timeout(300)
    expect(page.get_by_role("heading")).to_have_text("Read-only for maintenance")
    assert polls(visit) == 0


def test_closed_service_with_status_200_is_not_open(visit: Visit) -> None:
    """As load balancers may want it: the mark tells, not the status."""
    with showing(ON, status_code=200) as server:
        page = visit.to(f"http://{server}/", clock=True)
        with page.expect_response(lambda response: response.request.resource_type == "fetch"):
            page.clock.run_for(3_000)
        page.wait_for_timeout(300)
        assert len([request for request in visit.requests if request.is_navigation_request()]) == 1


@pytest.mark.parametrize("status", [502, 503])
def test_error_of_a_proxy_is_not_open(visit: Visit, status: int) -> None:
    """Of a proxy in front, say, while the application is being restarted."""
    answers: list[ASGIApp] = [MaintenanceResponse(ON)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answers[-1](scope, receive, send)

    with serving(app) as server:
        page = visit.to(f"http://{server}/", clock=True)
        answers.append(HTMLResponse(_html("Bad gateway"), status))
        with page.expect_response(lambda response: response.request.resource_type == "fetch"):
            page.clock.run_for(3_000)
        page.wait_for_timeout(300)
        expect(page.get_by_role("heading")).to_have_text("Down for maintenance")
        answers.append(HTMLResponse(_html("Not here"), 404))
        page.clock.run_for(10_000)
        expect(page.get_by_role("heading")).to_have_text("Not here")


def test_redirect_is_open(visit: Visit, address: str, switch: Switch) -> None:
    answers: list[ASGIApp] = [MaintenanceResponse(ON)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answers[-1](scope, receive, send)

    switch("0")
    with serving(app) as server:
        page = visit.to(f"http://{server}/", clock=True)
        answers.append(HTMLResponse("", 302, {"location": address}))
        page.clock.run_for(3_000)
        expect(page.get_by_role("heading")).to_have_text("Open")
