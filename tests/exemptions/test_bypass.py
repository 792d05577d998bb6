"""Bypasses: who has a good token passes while the switch is on, by a header or by the cookie that
one visit sets.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any, Final

import httpx2
import pytest
from fastapi import FastAPI, WebSocket
from itsdangerous import URLSafeSerializer
from redis import Redis

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_on,
    maintenance_component,
)
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.exemptions.bypass import (
    HEADER,
    PARAMETER,
    SECRET_VARIABLE,
    Bypass,
    link_to,
)
from fastapi_maintenance.model.state import BypassRecord

from ..support.asgi import UNUSED, http_scope, websocket_scope
from ..support.commands import Ran, run
from ..support.servers import RedisServer
from ..support.serving import handshakes, serving, serving_by_hypercorn
from ..support.waiting import eventually_sync
from ..support.workers import Workers

SECRET: Final = "0123456789abcdef0123456789abcdef"
NEXT: Final = SECRET[::-1]
NOW: Final = datetime(2026, 11, 22, 3, tzinfo=UTC)
END: Final = NOW + timedelta(hours=2)


@pytest.fixture
def bypass() -> Bypass:
    return Bypass(SECRET)


def bearing(token: str) -> dict[str, Any]:
    return http_scope(headers={HEADER: token})


# -- tokens ----------------------------------------------------------------------------------------


def test_token_listed_and_unexpired_is_valid(
    bypass: Bypass,
) -> None:
    token, record = bypass.issue(END, "ana")
    other = bypass.issue(END)[1]
    assert (record.until, record.note) == (END, "ana")
    assert bypass.admits(bearing(token), [other, record], NOW)
    assert bypass.admits(bearing(token), [record], END - timedelta(seconds=1))
    assert not bypass.admits(bearing(token), [record], END)
    assert not bypass.admits(bearing(token), [other], NOW)
    assert not bypass.admits(bearing(token), [], NOW)
    assert not bypass.admits(http_scope(), [record], NOW)


def test_token_record_cannot_lengthen_it(bypass: Bypass) -> None:
    token, record = bypass.issue(END)
    later = record.model_copy(update={"until": END + timedelta(days=9)})
    assert not bypass.admits(bearing(token), [later], END)


def test_token_of_another_secret_is_invalid(bypass: Bypass) -> None:
    token, record = Bypass(NEXT).issue(END)
    assert not bypass.admits(bearing(token), [record], NOW)


@pytest.mark.parametrize("given", [True, False])
def test_token_of_any_configured_secret_is_valid(
    given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, f" {NEXT}\n{SECRET} ")
    both = Bypass([NEXT, SECRET]) if given else Bypass()
    before, after, during = Bypass(SECRET), Bypass(NEXT), both.issue(END)
    for token, record in (before.issue(END), after.issue(END), during):
        assert both.admits(bearing(token), [record], NOW)
    token, record = during
    assert after.admits(bearing(token), [record], NOW)
    assert not before.admits(bearing(token), [record], NOW)


@pytest.mark.parametrize(
    "forge",
    [
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: "A" + t[1:],
        lambda t: t.upper(),
        lambda t: f" {t}",
    ],
    ids=range(5),
)
def test_token_changed_is_invalid(bypass: Bypass, forge: Callable[[str], str]) -> None:
    token, record = bypass.issue(END)
    assert not bypass.admits(bearing(forge(token)), [record], NOW)


def test_token_signature_is_compared_in_constant_time(
    bypass: Bypass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the standard library's function for it, which is what the signing library calls."""
    import hmac

    compared: list[tuple[object, object]] = []

    def compare(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return digest(a, b)

    digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    token, record = bypass.issue(END)
    assert bypass.admits(bearing(token), [record], NOW)
    assert not bypass.admits(bearing(token[:-2] + "AA"), [record], NOW)
    assert len(compared) == 2


def test_token_signed_for_another_purpose_is_invalid(bypass: Bypass) -> None:
    expiry = int(END.timestamp())
    # The first with the signing library's own defaults.
    for salt in ("fastapi_maintenance.exemptions.bypass", "other"):
        forged = URLSafeSerializer(SECRET, salt=salt).dumps([expiry, "x"])
        assert isinstance(forged, str)
        assert not bypass.admits(bearing(forged), [BypassRecord(id="x", until=END)], NOW)


def test_token_too_long_is_not_verified(bypass: Bypass, monkeypatch: pytest.MonkeyPatch) -> None:
    token, record = bypass.issue(END)
    assert len(token) < 200
    monkeypatch.setattr(bypass, "_signer", None)
    assert not bypass.admits(bearing("x" * 513), [record], NOW)


def test_token_in_websocket_header_is_valid(bypass: Bypass) -> None:
    token, record = bypass.issue(END)
    assert bypass.admits(websocket_scope(headers={HEADER: token}), [record], NOW)
    assert bypass.admits(
        websocket_scope(headers={"Cookie": f"a=b; {PARAMETER}={token}"}), [record], NOW
    )


def test_bypass_repr_shows_no_secret(bypass: Bypass) -> None:
    token, record = bypass.issue(END, "ana")
    assert SECRET not in repr(bypass)
    assert SECRET not in str(vars(bypass))
    assert token not in repr(record)


# -- the visit -------------------------------------------------------------------------------------


def visit(bypass: Bypass, token: str, record: BypassRecord, **scope: Any) -> dict[str, str]:
    """The headers of the answer; none where it is no visit."""
    given = (
        http_scope(scope.pop("method", "GET"), query_string=f"{PARAMETER}={token}".encode()) | scope
    )
    response = bypass.welcome(given, [record], NOW)
    if response is None:
        return {}
    assert response.status_code == 303
    return dict(response.headers)


def test_cookie_is_http_only_and_ends_with_token(bypass: Bypass) -> None:
    token, record = bypass.issue(END)
    headers = visit(bypass, token, record)
    cookie = SimpleCookie(headers["set-cookie"])[PARAMETER]
    assert cookie.value == token
    assert {name: value for name, value in cookie.items() if value} == {
        "httponly": True,
        "secure": True,
        "samesite": "lax",
        "path": "/",
        "max-age": "7200",
    }
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")


def test_cookie_domain_and_secure_are_configurable() -> None:
    bypass = Bypass(SECRET, domain="example.com", path="/api", secure=False)
    cookie = visit(bypass, *bypass.issue(END))["set-cookie"]
    assert "Domain=example.com" in cookie
    assert "Path=/api" in cookie
    assert "Secure" not in cookie
    assert "HttpOnly" in cookie


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        (b"/", b"{}", "./"),
        (b"/items", b"{}", "./items"),
        (b"/a/b/", b"{}", "./"),
        (b"/a/b%20c", b"x=1&{}&y=%26+", "./b%20c?x=1&y=%26+"),
        (b"//evil.example", b"{}", "./evil.example"),
        (b"/\\evil.example", b"{}&r=http://x\r\n", "./%5Cevil.example?r=http://x%0D%0A"),
        (b"/a:b", b"{}", "./a:b"),
        (b"/\xff\r\n", b"{}", "./%FF%0D%0A"),
    ],
)
def test_visit_redirects_to_url_without_token(
    bypass: Bypass, path: bytes, query: bytes, expected: str
) -> None:
    token, record = bypass.issue(END)
    field = f"{PARAMETER}={token}".encode()
    assert (
        visit(bypass, token, record, raw_path=path, query_string=query.replace(b"{}", field))[
            "location"
        ]
        == expected
    )


def test_visit_without_raw_path_uses_path(bypass: Bypass) -> None:
    token, record = bypass.issue(END)
    assert (
        visit(bypass, token, record, raw_path=None, path="/a/é\udcff")["location"] == "./%C3%A9%3F"
    )


def test_visit_needs_safe_method_and_one_valid_token(bypass: Bypass) -> None:
    token, record = bypass.issue(END)
    assert visit(bypass, token, record, method="HEAD")
    assert not visit(bypass, token, record, method="POST")
    assert (
        bypass.welcome(websocket_scope(query_string=f"{PARAMETER}={token}".encode()), [record], NOW)
        is None
    )
    assert not visit(bypass, token[:-1], record)
    assert not visit(bypass, token, bypass.issue(END)[1])
    assert not visit(bypass, f"{token}&{PARAMETER}={token}", record)
    assert not visit(bypass, token, record, query_string=f"x{PARAMETER}={token}".encode())


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", ["", "x"])
def test_visit_removes_token_from_logged_query(bypass: Bypass, method: str, end: str) -> None:
    token, record = bypass.issue(END)
    scope = http_scope(method, query_string=f"a=b&{PARAMETER}={token}{end}&c=d".encode())
    bypass.welcome(scope, [record], NOW)
    assert scope["query_string"] == b"a=b&c=d"


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://a/", "https://a/?maintenance_bypass=T"),
        ("https://a/x?y=1", "https://a/x?y=1&maintenance_bypass=T"),
        ("https://a/#top", "https://a/?maintenance_bypass=T#top"),
    ],
)
def test_link_is_url_with_token(url: str, link: str) -> None:
    assert link_to(url, "T") == link


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret", ["", "hunter2", "x" * 31, 7, [], [7], [""], [SECRET, "hunter2"], {SECRET}]
)
def test_secret_missing_or_short_is_refused_unseen(
    secret: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="secret") as given:
        Bypass(secret)
    monkeypatch.setenv(
        SECRET_VARIABLE,
        " ".join(map(str, secret)) if isinstance(secret, list) else str(secret)[:31],
    )
    with pytest.raises(ConfigurationError, match=SECRET_VARIABLE) as from_environment:
        Bypass()
    for error in (given, from_environment):
        assert "secrets.token_urlsafe(32)" in str(error.value)
        for each in secret if isinstance(secret, list | set) else [secret]:
            assert each in ("", 7) or each not in str(error.value)


def test_secret_missing_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=f"The environment variable {SECRET_VARIABLE}"):
        Bypass()
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    token, record = Bypass().issue(END)
    assert Bypass(SECRET).admits(bearing(token), [record], NOW)


def test_bypass_without_itsdangerous_names_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ConfigurationError, match=r"fastapi-maintenance-cluster\[bypass\]"):
        Bypass(SECRET)


async def test_middleware_bypass_of_wrong_type_is_refused() -> None:
    app = MaintenanceModeMiddleware(FastAPI(), bypass=SECRET)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="bypass must be a Bypass"):
        await app(http_scope(), UNUSED, UNUSED)


# -- through real servers, Redis and the command line ----------------------------------------------


def make_app(url: str, *secrets: str) -> FastAPI:
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware, backend=RedisBackend(url), bypass=Bypass(secrets or SECRET)
    )

    @app.api_route("/items", methods=["GET", "POST"])
    async def items(more: str = "") -> str:
        return f"open {more}".strip()

    @app.api_route("/invoices", methods=["GET", "POST"])
    @maintenance_component("billing")
    async def invoices() -> str:
        return "open"

    @app.post("/never")
    @force_maintenance_mode_on
    async def never() -> None: ...

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return app


@pytest.fixture
def workers(redis_url: str) -> Iterator[list[httpx2.Client]]:
    """Clients of two workers by two servers, which share nothing but Redis and the secret."""
    with serving(make_app(redis_url)) as one, serving_by_hypercorn(make_app(redis_url)) as other:
        clients = [
            httpx2.Client(base_url=f"http://{address}", trust_env=False) for address in (one, other)
        ]
        yield clients
        for client in clients:
            client.close()


Command = Callable[..., Ran]


@pytest.fixture
def command(redis_url: str) -> Command:
    """The program, as an operator has it."""

    def command(*arguments: str, secret: str = SECRET) -> Ran:
        return run("--backend", redis_url, *arguments, env={SECRET_VARIABLE: secret})

    return command


def statuses(
    workers: list[httpx2.Client], token: str = "", method: str = "POST", url: str = "/items"
) -> list[int]:
    headers = {HEADER: token} if token else {}
    return [worker.request(method, url, headers=headers).status_code for worker in workers]


def everything_in(server: RedisServer) -> bytes:
    """Each key and each value that Redis has."""
    with Redis.from_url(server.url) as redis:
        found = []
        for key in redis.scan_iter():
            found += [key, redis.dump(key)]
            kind = redis.type(key)
            if kind == b"string":
                found.append(redis.get(key))
            elif kind == b"hash":
                found += [part for pair in redis.hgetall(key).items() for part in pair]
        return b" ".join(part or b"" for part in found)


@pytest.mark.timeout(180)
def test_token_passes_on_every_worker_until_revoked(
    workers: list[httpx2.Client],
    command: Command,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "websockets.client")  # the client may say what it sends
    assert command("on", "--for", "1h").code == 0
    eventually_sync(lambda: statuses(workers) == [503, 503], within=30)
    ana = command("bypass", "create", "--for", "2h", "--note", "ana", "--json").json
    eva = command("bypass", "create", "--for", "2h", "--json").json
    eventually_sync(lambda: statuses(workers, eva["token"]) == [200, 200], within=30)
    assert statuses(workers, ana["token"]) == [200, 200]
    assert statuses(workers) == [503, 503]
    assert statuses(workers, ana["token"], url="/never") == [503, 503]
    assert (handshakes(workers), handshakes(workers, {HEADER: ana["token"]})) == (
        [503, 503],
        [101, 101],
    )

    _, signature = ana["token"].rsplit(".", 1)
    stored = everything_in(redis_server)
    assert ana["id"].encode() in stored
    assert signature.encode() not in stored
    assert SECRET.encode() not in stored

    assert [record["note"] for record in command("bypass", "list", "--json").json] == ["ana", None]
    assert command("bypass", "revoke", ana["id"]).code == 0
    eventually_sync(lambda: statuses(workers, ana["token"]) == [503, 503], within=30)
    assert statuses(workers, eva["token"]) == [200, 200]
    assert command("bypass", "revoke", "--all").code == 0
    eventually_sync(lambda: statuses(workers, eva["token"]) == [503, 503], within=30)
    assert command("status", "--json").json["switch"]["ends_at"] is not None, (
        "everything else about the switch stays"
    )

    for secret in (ana["token"], signature, SECRET):
        assert secret not in caplog.text


@pytest.mark.timeout(180)
def test_cookie_of_one_process_is_valid_in_another(command: Command, redis_url: str) -> None:
    """Processes that uvicorn starts, which share no memory; also one that was started after the
    visit.
    """
    env = {"FASTAPI_MAINTENANCE_BACKEND": redis_url, SECRET_VARIABLE: SECRET}
    with Workers("tests.apps.tested:app", count=3, env=env, options=("--access-log",)) as processes:

        def seen(headers: dict[str, str]) -> set[int]:
            return {answer.status for answer in processes.get_all("/", headers=headers).values()}

        command("on")
        made = command("bypass", "create", "--url", "http://127.0.0.1/", "--json").json
        eventually_sync(
            lambda: seen({}) == {503} and seen({HEADER: made["token"]}) == {200}, within=30
        )
        visited = processes.get(processes.pids[0], made["link"].removeprefix("http://127.0.0.1"))
        assert visited.status == 303
        cookie = {"Cookie": visited.headers["set-cookie"].partition(";")[0]}
        assert seen(cookie) == {200}
        processes.kill(processes.pids[0])
        processes.connect(within=60)
        eventually_sync(lambda: seen(cookie) == {200}, within=30)
        assert seen({}) == {503}
        command("bypass", "revoke", made["id"])
        eventually_sync(lambda: seen(cookie) == {503}, within=30)
        assert '"GET / HTTP/1.1" 303' in processes.log
        assert made["token"] not in processes.log


@pytest.mark.timeout(180)
def test_process_without_secret_refuses_to_start(redis_url: str) -> None:
    env = {"FASTAPI_MAINTENANCE_BACKEND": redis_url, SECRET_VARIABLE: "short"}
    with (
        pytest.raises(RuntimeError, match="must have at least 32 characters"),
        Workers("tests.apps.tested:app", count=1, env=env, patience=20),
    ):
        raise AssertionError


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("visited_first", "log"),
    [(0, '"GET /items?more=1 HTTP/1.1" 303'), (1, '"GET /items?more=1" 303')],
)
def test_visit_sets_cookie_that_passes(
    workers: list[httpx2.Client],
    command: Command,
    caplog: pytest.LogCaptureFixture,
    visited_first: int,
    log: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "websockets.client")  # the client may say what it sends
    command("on")
    worker, other = workers[visited_first], workers[1 - visited_first]
    made = command(
        "bypass", "create", "--url", str(worker.base_url.join("/items?more=1")), "--json"
    ).json
    eventually_sync(lambda: statuses(workers, made["token"]) == [200, 200], within=30)

    visited = worker.get(made["link"])
    assert visited.status_code == 303
    assert visited.headers["location"] == "./items?more=1"
    assert made["token"] not in visited.headers["location"]
    assert visited.headers["cache-control"] == "no-store"
    cookie = visited.headers["set-cookie"]
    assert all(
        word in cookie.lower()
        for word in ("httponly", "secure", "samesite=lax", "max-age=", "path=/")
    )

    with_cookie = {"Cookie": cookie.partition(";")[0]}
    clean = visited.url.join(visited.headers["location"])
    assert (clean.path, clean.query) == ("/items", b"more=1")
    assert worker.get(clean, headers=with_cookie).json() == "open 1"
    assert other.post("/items", headers=with_cookie).status_code == 200
    assert handshakes(workers, with_cookie) == [101, 101]
    assert worker.get(clean).status_code == 503, "the visit itself opened nothing for others"
    assert worker.post(made["link"]).status_code == 503

    logged = [
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore"))
    ]
    assert any(log in line for line in logged), (
        "the server's access log, which is written from the scope"
    )
    assert not any(made["token"] in line for line in logged)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("again", ["on", "SET"])
def test_token_ends_with_the_switch_value(
    workers: list[httpx2.Client], command: Command, redis_server: RedisServer, again: str
) -> None:
    redis_server.cli("SET", "maintenance", "1", "EX", "600")
    token = command("bypass", "create", "--json").json["token"]
    eventually_sync(
        lambda: statuses(workers, token) == [200, 200] and statuses(workers) == [503, 503],
        within=30,
    )
    assert 0 < int(redis_server.cli("TTL", "maintenance")) <= 600, "the time to live stays"
    if again == "on":
        command("off")
        command("on")
    else:
        redis_server.cli("SET", "maintenance", "1")
    eventually_sync(lambda: statuses(workers, token) == [503, 503], within=30)


@pytest.mark.timeout(180)
def test_secret_rotation_keeps_tokens_valid(command: Command, redis_url: str) -> None:
    """First every worker believes both, then the command line signs with the new one, at last the
    old one goes.
    """
    command("on")
    old = command("bypass", "create", "--json").json["token"]
    with (
        serving(make_app(redis_url, SECRET, NEXT)) as one,
        serving_by_hypercorn(make_app(redis_url, NEXT, SECRET)) as two,
        serving(make_app(redis_url, NEXT)) as last,
    ):
        clients = [
            httpx2.Client(base_url=f"http://{address}", trust_env=False)
            for address in (one, two, last)
        ]
        eventually_sync(lambda: statuses(clients, old) == [200, 200, 503], within=30)
        new = command("bypass", "create", "--json", secret=f"{NEXT} {SECRET}").json["token"]
        eventually_sync(lambda: statuses(clients, new) == [200, 200, 200], within=30)
        assert statuses(clients, old) == [200, 200, 503]
        for client in clients:
            client.close()


@pytest.mark.timeout(180)
def test_token_does_not_bypass_a_hold(
    workers: list[httpx2.Client], command: Command, redis_url: str
) -> None:
    command("on")
    token = command("bypass", "create", "--json").json["token"]
    eventually_sync(lambda: statuses(workers, token) == [200, 200], within=30)
    script = f"""
from fastapi_maintenance import maintenance_mode_on
with maintenance_mode_on({redis_url!r}):
    print("held", flush=True)
    input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        eventually_sync(lambda: statuses(workers, token) == [503, 503], within=30)
        made = command("bypass", "create")
        assert "A hold is active" in made.err
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(20)
    eventually_sync(lambda: statuses(workers, token) == [200, 200], within=30)


@pytest.mark.timeout(180)
def test_token_expires(workers: list[httpx2.Client], command: Command) -> None:
    command("on")
    made = command("bypass", "create", "--for", "5s", "--json").json
    eventually_sync(lambda: statuses(workers, made["token"]) == [503, 503], within=30)
    assert datetime.now(UTC) >= datetime.fromisoformat(made["until"])
    assert command("bypass", "list").out == ""


@pytest.mark.timeout(180)
def test_token_of_component_bypasses_its_switch_only(
    workers: list[httpx2.Client], command: Command, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance:billing", "1", "EX", "600")
    none = command("bypass", "create")
    assert (none.code, "The switch is off" in none.err) == (1, True)
    made = command(
        "bypass",
        "create",
        "--component",
        "billing",
        "--url",
        str(workers[1].base_url.join("/invoices")),
        "--json",
    ).json
    token = made["token"]
    eventually_sync(lambda: statuses(workers, token, url="/invoices") == [200, 200], within=30)
    assert statuses(workers, url="/invoices") == [503, 503]
    assert 0 < int(redis_server.cli("TTL", "maintenance:billing")) <= 600
    assert not redis_server.cli("GET", "maintenance")
    assert [
        record["id"]
        for record in command("bypass", "list", "--component", "billing", "--json").json
    ] == [made["id"]]
    assert command("bypass", "list").out == ""

    visited = workers[1].get(made["link"])
    assert (visited.status_code, visited.headers["location"]) == (303, "./invoices")
    cookie = {"Cookie": visited.headers["set-cookie"].partition(";")[0]}
    assert [worker.get("/invoices", headers=cookie).status_code for worker in workers] == [200, 200]

    command("on")
    general = command("bypass", "create", "--json").json["token"]
    eventually_sync(lambda: statuses(workers, general) == [200, 200], within=30)
    assert statuses(workers, token) == [503, 503]
    assert statuses(workers, general, url="/invoices") == [503, 503]
    assert statuses(workers, token, url="/invoices") == [200, 200]

    assert command("bypass", "revoke", made["id"], "--component", "billing").code == 0
    eventually_sync(lambda: statuses(workers, token, url="/invoices") == [503, 503], within=30)
    command("off", "--component", "billing")
    eventually_sync(lambda: statuses(workers, general, url="/invoices") == [200, 200], within=30)


def test_bypass_command_names_what_is_missing(command: Command) -> None:
    assert SECRET_VARIABLE in command("bypass", "create", secret="").err
    assert "must have at least 32 characters" in command("bypass", "create", secret="short").err
    off = command("bypass", "create")
    assert (off.code, "The switch is off" in off.err) == (1, True)
    assert command("bypass", "create", "--for", "soon").code == 2
