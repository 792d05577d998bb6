"""The ready-made rules: what each lets through, how they combine, and what they make of options
that cannot be meant.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from operator import and_, or_
from pathlib import Path as FilePath
from typing import Any, Final

import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.exemptions import (
    HEALTH,
    Bearer,
    Cookie,
    Header,
    Host,
    Method,
    Network,
    Path,
    Query,
    Role,
    Rule,
    When,
)

from ..support.asgi import at, by, exchange, http_scope, websocket_scope
from ..support.serving import BELIEVING_NO_HEADERS, serving

ME: Final = Path("/me")
YOU: Final = Path("/you")


def passes(rule: Rule, scope: dict[str, Any]) -> bool:
    return asyncio.run(_ask(rule, scope))


async def _ask(rule: Rule, scope: dict[str, Any]) -> bool:
    return await rule(HTTPConnection(scope))


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/docs", True),
        ("/docs-export", False),
        ("/docs/", False),
        ("/docs/secret", False),
        ("//docs", False),
        ("/Docs", False),
        ("/docs\n", False),
        ("docs", False),
        ("", False),
        ("/x/docs", False),
    ],
)
def test_path_matches_exactly(path: str, expected: bool) -> None:
    assert passes(Path("/docs"), at(path)) is expected


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("/users/{id}", "/users/7", True),
        ("/users/{id}", "/users/", False),
        ("/users/{id}", "/users/7/orders", False),
        ("/users/{id:int}", "/users/7", True),
        ("/users/{id:int}", "/users/7\n", False),
        ("/users/{id:int}", "/users/me", False),
        ("/static/{rest:path}", "/static/a/b.css", True),
        ("/static/{rest:path}", "/staticky", False),
        ("/v{n}.json", "/v1.json", True),
        ("/v{n}.json", "/v1xjson", False),
    ],
)
def test_path_template_matches_like_routes(template: str, path: str, expected: bool) -> None:
    assert passes(Path("/other", template), at(path)) is expected


@pytest.mark.parametrize(
    ("root_path", "path", "expected"),
    [
        ("/api", "/api/health", True),
        ("/api/", "/api/health", False),  # nor do routes take this root path away
        ("/api/", "/api//health", True),
        ("/api", "/health", True),  # a proxy took the prefix away
        ("/api", "/apihealth", False),
        ("/api", "/api/api/health", False),
        ("/health", "/health", False),
    ],
)
def test_path_is_relative_to_root_path(root_path: str, path: str, expected: bool) -> None:
    assert passes(Path("/health"), at(path, root_path=root_path)) is expected


def test_path_with_methods_matches_those_only() -> None:
    rule = Path("/login", methods=["post"])
    assert passes(rule, at("/login", "POST"))
    assert not passes(rule, at("/login"))
    assert passes(Path("/login", methods="POST"), at("/login", "POST"))


def test_path_matches_websocket_without_methods() -> None:
    scope = websocket_scope(path="/items")
    assert passes(Path("/items"), scope)
    assert not passes(Path("/items", methods=["GET"]), scope)
    assert not passes(Method("GET"), scope)


@pytest.mark.parametrize(
    ("method", "expected"), [("GET", True), ("HEAD", True), ("POST", False), ("get", False)]
)
def test_method_matches_named_ones(method: str, expected: bool) -> None:
    assert passes(Method("GET", "head"), at("/", method)) is expected


def test_health_matches_probe_paths_only() -> None:
    assert [passes(HEALTH, at(path)) for path in ("/health", "/healthz", "/livez", "/readyz")] == [
        True
    ] * 4
    assert [passes(HEALTH, at(path)) for path in ("/health/", "/healthcare", "/healthz/x")] == [
        False
    ] * 3
    assert not passes(HEALTH, at("/health", "POST"))


# -- hosts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("staging.example.com", True),
        ("STAGING.example.com:8000", True),
        ("example.com", False),
        ("a.internal", True),
        ("a.b.internal", True),
        (".internal", False),
        ("internal", False),
        ("evilinternal", False),
        ("staging.example.com.evil.org", False),
        ("[::1]:80", True),
        ("", False),
    ],
)
def test_host_matches_exactly_or_subdomain(host: str, expected: bool) -> None:
    assert (
        passes(
            Host("staging.example.com", "*.internal", "[::1]"), http_scope(headers={"Host": host})
        )
        is expected
    )


def test_host_missing_or_repeated_does_not_match() -> None:
    assert not passes(Host("a"), http_scope())
    assert not passes(Host("a"), http_scope(headers=[("host", "a"), ("host", "a")]))


# -- networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("10.1.2.3", 1), True),
        (("::ffff:10.1.2.3", 1), True),
        (("11.1.2.3", 1), False),
        (("2001:db8::7", 1), True),
        (("2001:db9::7", 1), False),
        (("fe80::1%eth0", 1), True),
        (("192.0.2.7", 1), True),
        (("192.0.2.8", 1), False),
        (None, False),
        (("", 0), False),
        (("/run/client.sock", None), False),
        (("testclient", 50000), False),
        ((None, None), False),
    ],
)
def test_network_matches_peer_address(client: object, expected: bool) -> None:
    rule = Network("10.0.0.0/8", "2001:db8::/32", "fe80::/10", "192.0.2.7")
    assert passes(rule, by(client)) is expected


def test_network_mapped_ipv6_is_ipv4() -> None:
    assert passes(Network("::ffff:10.0.0.0/104"), by(("10.1.2.3", 1)))
    assert not passes(Network("::ffff:10.0.0.0/104"), by(("11.1.2.3", 1)))
    assert passes(Network("::ff00:0:0/96"), by(("::ff00:1:1", 1)))


@pytest.mark.parametrize("client", [("203.0.113.9", 1), None])
def test_network_without_trusted_proxies_ignores_headers(client: object) -> None:
    assert not passes(Network("10.0.0.0/8"), by(client, "10.1.2.3"))
    assert not passes(Network("10.0.0.0/8", trusted_proxies=["192.0.2.7"]), by(client, "10.1.2.3"))


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["10.1.2.3"], True),
        (["203.0.113.9"], False),
        (["10.1.2.3, 203.0.113.9"], False),  # the left one is what the client claims
        (["10.1.2.3", "203.0.113.9"], False),
        (["203.0.113.9, 10.1.2.3, 192.0.2.7"], True),
        (["203.0.113.9", "10.1.2.3", "192.0.2.7,192.0.2.8"], True),
        (["10.1.2.3:4711"], True),
        (["[2001:db8::1]:4711"], True),
        (["[2001:db8::1]"], True),
        (["2001:db8::1"], True),
        ([" 10.1.2.3\t"], True),
        (["192.0.2.7"], False),
        (["10.1.2.3, unknown"], False),
        (["10.1.2.3,"], False),
        (["10.1.2.3, "], False),
        (["[10.1.2.3"], False),
        (["[10.1.2.3]x"], False),
        (["10.1.2.3 192.0.2.7"], False),
        (["10.1.2.3:x"], False),
        (["_hidden"], False),
        ([""], False),
        ([","], False),
        ([], False),
    ],
)
def test_network_behind_proxy_uses_last_untrusted_hop(forwarded: list[str], expected: bool) -> None:
    rule = Network("10.0.0.0/8", "2001:db8::/32", trusted_proxies=["192.0.2.0/24"])
    assert passes(rule, by(("192.0.2.1", 1), *forwarded)) is expected


def test_network_of_trusted_chain_is_its_first_hop() -> None:
    rule = Network("192.0.2.7", trusted_proxies="192.0.2.0/24")
    assert passes(rule, by(("192.0.2.1", 1), "192.0.2.7, 192.0.2.8"))
    assert not passes(rule, by(("192.0.2.1", 1), "192.0.2.8, 192.0.2.7"))


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["for=10.1.2.3"], True),
        (["For=10.1.2.3;proto=https;by=203.0.113.43"], True),
        (["proto=https; for=10.1.2.3 ;by=_gateway"], True),
        (['for="10.1.2.3:4711"'], True),
        (['for="10.1.2.3:_http"'], True),
        (['for="[2001:db8::1]"'], True),
        (['for="[2001:db8::1]:4711"'], True),
        (['for="[2001:db8::1]:_a.b"'], True),
        (["for=203.0.113.9"], False),
        (["for=10.1.2.3, for=203.0.113.9"], False),  # the left one is what the client claims
        (["for=10.1.2.3", "for=203.0.113.9"], False),
        (["for=203.0.113.9, for=10.1.2.3, for=192.0.2.7"], True),
        (["for=203.0.113.9", "for=10.1.2.3", 'for="192.0.2.7:80",for=192.0.2.8'], True),
        (['for=203.0.113.9;host="a,for=10.1.2.3"'], False),
        (['host="a,b;c";for=10.1.2.3'], True),
        (['by=", for=203.0.113.9;host=", for=10.1.2.3;b="'], False),
        (['junk, for="10.1.2.3"'], True),
        (['for="203.0.113.9", for=10.1.2.3'], True),
        (["for=10.1.2.3;for=10.1.2.3"], False),
        (["for=10.1.2.3;for=203.0.113.9"], False),
        (["for=10.1.2.3;"], True),
        (["for=10.1.2.3,"], False),
        (["for=10.1.2.3, proto=https"], False),
        (["for=10.1.2.3:4711"], False),  # that, and the next, must be quoted
        (["for=[2001:db8::1]"], False),
        (['for="10.1.2.3'], False),
        (['for=10.1.2.3"'], False),
        (['for="10.1.2.3";host="\\""'], False),
        (["for =10.1.2.3"], False),
        (["for"], False),
        (["10.1.2.3"], False),
        (["for=unknown"], False),
        (["for=_hidden"], False),
        (['for=""'], False),
        ([""], False),
        ([","], False),
        ([], False),
    ],
)
def test_network_by_forwarded_uses_last_untrusted_hop(forwarded: list[str], expected: bool) -> None:
    """RFC 7239, section 4."""
    rule = Network(
        "10.0.0.0/8", "2001:db8::/32", trusted_proxies=["192.0.2.0/24"], forwarded="forwarded"
    )
    headers = [("forwarded", value) for value in forwarded]
    assert passes(rule, http_scope(client=("192.0.2.1", 1), headers=headers)) is expected
    assert not passes(rule, http_scope(client=("203.0.113.9", 1), headers=headers)), (
        "nobody else's word counts"
    )


def test_network_reads_configured_header_only() -> None:
    inside, outside = ("x-forwarded-for", "10.1.2.3"), ("forwarded", "for=203.0.113.9")
    for headers, by_default, by_the_standard in (
        ([inside, outside], True, False),
        ([("forwarded", "for=10.1.2.3"), ("x-forwarded-for", "203.0.113.9")], False, True),
        ([inside], True, False),
        ([("forwarded", "for=10.1.2.3")], False, True),
    ):
        scope = http_scope(client=("192.0.2.1", 1), headers=headers)
        assert passes(Network("10.0.0.0/8", trusted_proxies="192.0.2.1"), scope) is by_default
        assert (
            passes(Network("10.0.0.0/8", trusted_proxies="192.0.2.1", forwarded="forwarded"), scope)
            is by_the_standard
        )


# -- headers, cookies, queries ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("x-key", "letmein")], True),
        ([("x-key", "LETMEIN")], False),
        ([("x-key", "letmein ")], False),
        ([("x-key", "")], False),
        ([("x-key", "é")], False),
        ([], False),
        ([("x-key", "letmein"), ("x-key", "letmein")], False),
        ([("x-key", "letmein"), ("x-key", "other")], False),
    ],
)
def test_header_matches_single_value(headers: list[tuple[str, str]], expected: bool) -> None:
    assert passes(Header("X-Key", "letmein"), http_scope(headers=headers)) is expected


def test_header_without_value_matches_any() -> None:
    assert passes(Header("X-Key"), http_scope(headers={"x-key": "anything"}))
    assert passes(Cookie("beta"), http_scope(headers={"cookie": "a=b; beta"})) is False
    assert passes(Cookie("beta"), http_scope(headers={"cookie": "a=b; beta="}))
    assert passes(Query("preview"), http_scope(query_string=b"a=b&preview="))


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        (["a=b; beta=yes"], True),
        (['beta="yes"'], True),
        (["beta=no"], False),
        (["alphabeta=yes"], False),
        (["beta=yes", "beta=no"], False),
        (["a=b", "beta=yes"], True),  # as HTTP/2 splits them
        ([], False),
    ],
)
def test_cookie_matches_value(cookies: list[str], expected: bool) -> None:
    assert (
        passes(
            Cookie("beta", "yes"), http_scope(headers=[("cookie", cookie) for cookie in cookies])
        )
        is expected
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"preview=let+me", True),
        (b"a=b&preview=let%20me", True),
        (b"preview=let", False),
        (b"preview=let+me&preview=let+me", False),
        (b"preview=\xff", False),
        (b"", False),
    ],
)
def test_query_matches_single_value(query: bytes, expected: bool) -> None:
    assert passes(Query("preview", "let me"), http_scope(query_string=query)) is expected


# -- functions of the user's own -------------------------------------------------------------------


def is_good(token: str) -> bool:
    return token == "good-token"


async def is_good_later(token: str) -> bool:
    await asyncio.sleep(0)
    return is_good(token)


@pytest.mark.parametrize("check", [is_good, is_good_later])
@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (["Bearer good-token"], True),
        (["bearer  good-token"], True),
        (["Bearer bad-token"], False),
        (["Bearer good-token "], False),
        (["Bearer"], False),
        (["Basic good-token"], False),
        (["Bearer good-token", "Bearer good-token"], False),
        ([], False),
    ],
)
def test_bearer_matches_accepted_token(
    check: Callable[[str], bool | Awaitable[bool]], authorization: list[str], expected: bool
) -> None:
    headers = [("authorization", value) for value in authorization]
    assert passes(Bearer(check), http_scope(headers=headers)) is expected


def roles_of(connection: HTTPConnection) -> list[str]:
    roles: list[str] = connection.scope["roles"]
    return roles


async def roles_later(connection: HTTPConnection) -> list[str]:
    return roles_of(connection)


def no_roles(connection: HTTPConnection) -> Any:
    return None


def test_role_matches_returned_roles() -> None:
    for of in (roles_of, roles_later):
        assert passes(Role("admin", "staff", of=of), http_scope(roles=["user", "staff"]))
        assert not passes(Role("admin", of=of), http_scope(roles=["administrator"]))
    assert not passes(Role("admin", of=no_roles), http_scope())


def test_when_wraps_a_handler() -> None:
    threads: list[int] = []

    def slow(connection: HTTPConnection) -> bool:
        threads.append(threading.get_ident())
        return connection.url.path == "/me"

    assert passes(When(slow), at("/me"))
    assert not passes(YOU | slow, at("/other"))
    assert threading.get_ident() not in threads, "what may block runs in the thread pool"


# -- combining -------------------------------------------------------------------------------------


def true(connection: HTTPConnection) -> bool:
    return True


async def false(connection: HTTPConnection) -> bool:
    return False


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ME | YOU, True),
        (YOU | ME, True),
        (ME & YOU, False),
        (ME & Method("GET"), True),
        (~ME, False),
        (~YOU, True),
        (~(ME | YOU), False),
        (ME & ~Method("POST"), True),
        (YOU | ME & ~Method("GET"), False),
        (YOU | true, True),
        (true | YOU, True),
        (ME & false, False),
        (false & ME, False),
        (true & ME, True),
    ],
)
def test_rules_combine(rule: Rule, expected: bool) -> None:
    assert passes(rule, at("/me")) is expected


def test_rules_stop_at_the_deciding_one() -> None:
    def fail(connection: HTTPConnection) -> bool:
        raise AssertionError

    assert passes(ME | fail, at("/me"))
    assert not passes(YOU & fail, at("/me"))


def forwarded(*values: str) -> dict[str, Any]:
    return by(("192.0.2.7", 1), *values)


TWICE: Final = [("x-key", "a"), ("x-key", "b")]

UNKNOWN: Final = {
    "newline": (ME, at("/me\n")),
    "newline-template": (Path("/users/{id:int}"), at("/users/7\n")),
    "newline-path-template": (Path("/a/{rest:path}"), at("/a/b\n")),
    "newline-other-method": (Path("/me", methods=["GET"]), at("/me\n", "GET")),
    "path-method-case": (Path("/me", methods=["POST"]), at("/me", "post")),
    "method-case": (Method("POST"), at("/", "post")),
    "method-head": (Method("GET"), at("/", "HEAD")),
    "host-missing": (Host("a.example"), http_scope()),
    "host-twice": (
        Host("a.example"),
        http_scope(headers=[("host", "a.example"), ("host", "b.example")]),
    ),
    "host-port": (Host("a.example"), http_scope(headers={"Host": "a.example:80x"})),
    "host-dot": (Host("a.example"), http_scope(headers={"Host": "a.example."})),
    "host-user": (Host("a.example"), http_scope(headers={"Host": "u@a.example"})),
    "header-twice": (Header("X-Key", "a"), http_scope(headers=TWICE)),
    "header-twice-any": (Header("X-Key"), http_scope(headers=TWICE)),
    "cookie-twice": (Cookie("k", "a"), http_scope(headers=[("cookie", "k=a"), ("cookie", "k=b")])),
    "query-twice": (Query("k", "a"), http_scope(query_string=b"k=a&k=b")),
    "bearer-twice": (
        Bearer(is_good),
        http_scope(headers=[("authorization", "Bearer good-token")] * 2),
    ),
    "role-none": (Role("banned", of=no_roles), http_scope()),
    "no-address": (Network("10.0.0.0/8"), by(None)),
    "forwarded-garbage": (
        Network("10.0.0.0/8", trusted_proxies=["192.0.2.7"]),
        forwarded("10.1.2.3, garbage"),
    ),
    "forwarded-long": (
        Network("10.0.0.0/8", trusted_proxies=["192.0.2.7"]),
        forwarded("10.1.2.3," * 500 + "10.1.2.3"),
    ),
    "forwarded-hops": (
        Network("10.0.0.0/8", trusted_proxies=["192.0.2.7"]),
        forwarded("192.0.2.7," * 40 + "192.0.2.7"),
    ),
}


@pytest.mark.parametrize(
    "wrap",
    [
        When,
        lambda rule: ~~rule,
        lambda rule: rule | YOU,
        lambda rule: rule & Method("GET", "post", "HEAD"),
    ],
    ids=["when", "not-not", "or", "and"],
)
@pytest.mark.parametrize(("rule", "scope"), UNKNOWN.values(), ids=UNKNOWN)
def test_rule_unknown_answer_exempts_nothing(
    rule: Rule, scope: dict[str, Any], wrap: Callable[[Rule], Rule]
) -> None:
    for each in (rule, wrap(rule)):
        assert passes(each, scope) is False
        assert passes(~each, scope) is False


@pytest.mark.parametrize(
    ("rule", "scope"),
    [
        (ME, at("/you\n")),
        (ME | YOU, at("/other")),
        (Path("/me", methods=["POST"]), at("/you\n", "post")),
        (Path("/me", methods=["POST"]), at("/me\n", "DELETE")),
        (YOU & Host("a.example"), at("/me")),
        (Host("a.example") & YOU, at("/me")),
        (Method("POST"), at("/", "HEAD")),
        (Method("GET"), websocket_scope()),
    ],
)
def test_rule_negated_exempts_what_it_cannot_name(rule: Rule, scope: dict[str, Any]) -> None:
    assert passes(~rule, scope) is True


CHECKOUT: Final = ("/checkout", "/checkout\n", "/users/7\n", "/b/checkout\n")


@pytest.mark.parametrize("path", CHECKOUT)
@pytest.mark.parametrize("method", ["GET", "POST", "post", "HEAD"])
def test_negated_path_reached_by_router_stays_closed(path: str, method: str) -> None:
    ran: list[str] = []

    class Checkout(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            ran.append(request.method)
            return Response()

        post = get

    routes = [
        Route("/checkout", Checkout),
        Route("/users/{id:int}", Checkout),
        Mount("/b", routes=[Route("/{x:path}", Checkout)]),
    ]
    open_to = ~Path("/checkout", "/users/{id:int}", "/b/{x:path}")
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=open_to)
        ],
    )
    started, _ = asyncio.run(exchange(app, at(path, method, raw_path=path.encode())))
    assert ran == []
    # As Starlette itself refuses it.
    assert started["status"] == 503 or (started["status"], method) == (405, "post")


@pytest.mark.parametrize("combine", [or_, and_])
@pytest.mark.parametrize(("left", "right"), [(ME, 1), (1, ME)])
def test_rules_combine_with_callables_only(
    combine: Callable[[object, object], object], left: object, right: object
) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        combine(left, right)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            Path("/health")
            | Network("10.0.0.0/8", trusted_proxies=["192.0.2.7"]) & ~Method("post"),
            (
                "Path('/health') | Network('10.0.0.0/8', trusted_proxies=['192.0.2.7/32']) & "
                "~Method('POST')"
            ),
        ),
        ((ME | YOU) & Host("A.example"), "(Path('/me') | Path('/you')) & Host('a.example')"),
        (
            ~(ME & YOU) | ~(ME | YOU),
            "~(Path('/me') & Path('/you')) | ~(Path('/me') | Path('/you'))",
        ),
        (Path("/login", methods=["POST"]), "Path('/login', methods=['POST'])"),
        (
            Header("X-Key", "secret") | Cookie("beta") | Query("q", "secret"),
            "Header('X-Key', …) | Cookie('beta') | Query('q', …)",
        ),
        (
            Bearer(is_good) | Role("b", "a", of=roles_of) | true,
            "Bearer(is_good) | Role('a', 'b', of=roles_of) | When(true)",
        ),
        (Network("2001:db8::/32"), "Network('2001:db8::/32')"),
        (
            Network("10.0.0.0/8", trusted_proxies="192.0.2.7", forwarded="forwarded"),
            "Network('10.0.0.0/8', trusted_proxies=['192.0.2.7/32'], forwarded='forwarded')",
        ),
        (When(partial(true)), "When(partial)"),
    ],
)
def test_rule_repr_shows_no_secret(rule: Rule, expected: str) -> None:
    assert repr(rule) == expected


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Path(), r"Path must have at least one argument"),
        (lambda: Path("docs"), "must begin with a slash"),
        (lambda: Path("https://x/"), "must begin with a slash"),
        (lambda: Path(7), "must begin with a slash"),  # type: ignore[arg-type]
        (
            lambda: Path("/{a}/{a}"),
            "A path template must be valid for Starlette, got .*: Duplicated param name",
        ),
        (
            lambda: Path("/{a:colour}"),
            "A path template must be valid for Starlette, got .*: Unknown path convertor",
        ),
        (lambda: Path("/a", methods=[]), r"Method must have at least one argument"),
        (lambda: Path("/a", methods=["GET /"]), "A method must be like"),
        (lambda: Method(""), "A method must be like"),
        (lambda: Method(None), "A method must be like"),  # type: ignore[arg-type]
        (lambda: Network(), r"Network must have at least one argument"),
        (lambda: Network("10.0.0.1/8"), "has host bits set"),
        (lambda: Network("office"), "A network must be like 10.0.0.0/8"),
        (lambda: Network(167772160), "write it as text"),  # type: ignore[arg-type]
        (lambda: Network("10.0.0.0/8", trusted_proxies=["*"]), "A network must be like 10.0.0.0/8"),
        (
            lambda: Network("10.0.0.0/8", forwarded="forwarded"),
            "trusted_proxies must name the proxies that write",
        ),
        (
            lambda: Network("10.0.0.0/8", forwarded="Via"),  # type: ignore[arg-type]
            "forwarded must be one of x-forwarded-for, forwarded, got 'Via'",
        ),
        (lambda: Network("10.0.0.0/8", trusted_proxies=7), "a list of networks"),  # type: ignore[arg-type]
        (lambda: Host("http://a"), "A host must be like"),
        (lambda: Host("a:80"), "without a port"),
        (lambda: Host("*"), "A host must be like"),
        (lambda: Header("X Key"), "The name of a Header must"),
        (lambda: Header("X-Key", ""), "non-empty text"),
        (lambda: Cookie("a=b"), "The name of a Cookie must"),
        (lambda: Cookie("a", 7), "non-empty text"),  # type: ignore[arg-type]
        (lambda: Query(""), "The name of a Query must"),
        (lambda: Bearer("token"), "must be a function of the token"),  # type: ignore[arg-type]
        (lambda: Role("a", of="b"), "returns roles"),  # type: ignore[arg-type]
        (lambda: Role(of=roles_of), r"Role must have at least one argument"),
        (lambda: When("me"), "must be callable"),  # type: ignore[arg-type]
    ],
    ids=map(str, range(30)),
)
def test_rule_invalid_option_is_refused(make: Callable[[], Rule], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        make()


# -- through a real server -------------------------------------------------------------------------


RULES: Final = (
    HEALTH
    | Path("/login", "/users/{id:int}", methods=["POST"])
    | Network("10.0.0.0/8", trusted_proxies=["127.0.0.1"])
    | Header("X-Office-Key", "letmein")
    | Cookie("beta", "yes")
    | Host("staging.example.com")
    | Query("preview", "yes")
    | Bearer(is_good_later)
    | Role("admin", of=lambda connection: connection.headers.getlist("x-role"))
)


@pytest.fixture(scope="module", params=BELIEVING_NO_HEADERS)
def closed(request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """A client of a closed application with all of these rules, and with documentation at an
    address of its own.
    """
    app = FastAPI(docs_url="/manual")
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=RULES)

    @app.api_route("/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
    async def answer() -> str:
        return "open"

    with (
        BELIEVING_NO_HEADERS[request.param](app) as address,
        httpx2.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("method", "url", "headers", "expected"),
    [
        ("GET", "/health", {}, 200),
        ("GET", "/health/", {}, 503),
        ("GET", "/health%0A", {}, 503),
        ("POST", "/health", {}, 503),
        ("GET", "/manual", {}, 200),
        ("GET", "/manual-export", {}, 503),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/openapi.json/x", {}, 503),
        ("GET", "/docs", {}, 503),
        ("POST", "/login", {}, 200),
        ("GET", "/login", {}, 503),
        ("POST", "/users/7", {}, 200),
        ("POST", "/users/me", {}, 503),
        ("GET", "/", {"X-Forwarded-For": "10.1.2.3"}, 200),
        ("GET", "/", {"X-Forwarded-For": "10.1.2.3, 203.0.113.9"}, 503),
        ("GET", "/", {"X-Forwarded-For": "10.1.2.3, 127.0.0.1"}, 200),
        ("GET", "/", {"X-Forwarded-For": "10.1.2.3, garbage"}, 503),
        ("GET", "/", {"X-Office-Key": "letmein"}, 200),
        ("GET", "/", {"X-Office-Key": "no"}, 503),
        ("GET", "/", {"Cookie": "beta=yes"}, 200),
        ("GET", "/", {"Cookie": "beta=no"}, 503),
        ("GET", "/", {"Host": "staging.example.com:8000"}, 200),
        ("GET", "/", {"Host": "example.com"}, 503),
        ("GET", "/?preview=yes", {}, 200),
        ("GET", "/?preview=no", {}, 503),
        ("GET", "/", {"Authorization": "Bearer good-token"}, 200),
        ("GET", "/", {"Authorization": "Bearer other"}, 503),
        ("GET", "/", {"X-Role": "admin"}, 200),
        ("GET", "/", {"X-Role": "user"}, 503),
        ("GET", "/", {}, 503),
    ],
)
def test_server_passes_requests_that_a_rule_names(
    closed: httpx2.Client, method: str, url: str, headers: dict[str, str], expected: int
) -> None:
    assert closed.request(method, url, headers=headers).status_code == expected


@pytest.mark.parametrize("server", BELIEVING_NO_HEADERS)
def test_server_reached_directly_ignores_client_headers(server: str) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_api_route("/own", lambda: "open")
    rule = Network("10.0.0.0/8") | Network("127.0.0.1") & Path("/own")
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=rule)
    with (
        BELIEVING_NO_HEADERS[server](app) as address,
        httpx2.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):
        assert (
            client.get(
                "/", headers={"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3"}
            ).status_code
            == 503
        )
        assert client.get("/own", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 200


def test_server_on_unix_socket_knows_no_address(tmp_path: FilePath) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_middleware(
        MaintenanceModeMiddleware,
        enable_maintenance=True,
        exempt_handler=Network("0.0.0.0/0", "::/0"),
    )
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    with (
        serving(app, at=listener) as path,
        httpx2.Client(transport=httpx2.HTTPTransport(uds=path), base_url="http://a") as client,
    ):
        response = client.get("/", headers={"X-Forwarded-For": "10.1.2.3"})
    assert (response.status_code, json.loads(response.content)["detail"][:7]) == (503, "Service")
