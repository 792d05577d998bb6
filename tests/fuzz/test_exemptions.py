"""Whatever a client sends, a rule says yes or no, and yes only to what it names."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.exemptions import (
    Bearer,
    Cookie,
    Header,
    Host,
    Method,
    Network,
    Path,
    Query,
    Rule,
)
from fastapi_maintenance.exemptions.allow_list import AllowList
from fastapi_maintenance.exemptions.proxies import ForwardedHeader, Proxies

from ..support.asgi import http_scope, websocket_scope
from .attempt import attempt
from .effort import effort
from .garbage import TEXT

NAMES: Final = st.sampled_from(
    [b"x-key", b"cookie", b"host", b"authorization", b"x-forwarded-for", b"forwarded"]
) | st.binary(max_size=9)
PIECES: Final = st.sampled_from(
    [
        "10.1.2.3",
        "192.0.2.1",
        "::ffff:10.1.2.3",
        "[",
        "]",
        ":",
        "::1",
        ",",
        " ",
        ";",
        "=",
        '"',
        "\\",
        "key",
        "Bearer ",
        "\xff",
        "%",
        "é",
        "0",
    ]
)
VALUES: Final = st.one_of(
    st.binary(max_size=100),
    st.lists(PIECES, max_size=12).map(lambda pieces: "".join(pieces).encode("latin-1")),
    st.sampled_from(
        [b"," * 100_000, b"192.0.2.1," * 10_000, b";" * 100_000, b"[" * 100_000, b"k=v;" * 10_000]
    ),
)
HEADERS: Final = st.lists(st.tuples(NAMES, VALUES), max_size=5)
CLIENTS: Final = st.sampled_from(
    [None, ("10.1.2.3", 1), ("192.0.2.1", 1), ("", 0), ("\udcff", 0)]
) | st.tuples(TEXT, st.integers())
FORWARDED: Final[st.SearchStrategy[ForwardedHeader]] = st.sampled_from(
    ["x-forwarded-for", "forwarded"]
)
PATHS: Final = TEXT | st.lists(
    st.sampled_from(["/", "a", "7", "\n", "{", "}", ":int", "\0", "é"]), max_size=8
).map("".join)

SECRETS: Final = (
    Header("X-Key", "5ecret")
    | Cookie("key", "5ecret")
    | Query("key", "5ecret")
    | Bearer(lambda token: token == "5ecret")
)


def passes(rule: Rule, scope: dict[str, Any]) -> bool:
    async def ask() -> bool:
        return await rule(HTTPConnection(scope))

    return asyncio.run(ask())


@effort(300)
@given(HEADERS, CLIENTS, PATHS, st.binary(max_size=50), st.booleans())
def test_no_garbage_finds_a_secret_or_breaks_a_rule(
    headers: Any, client: Any, path: str, query: bytes, websocket: bool
) -> None:
    scope = (websocket_scope() if websocket else http_scope()) | {
        "headers": headers,
        "client": client,
        "path": path,
        "query_string": query,
    }
    assert not passes(SECRETS, scope)
    assert not passes(
        Host("x.example", "*.x.example") | Path("/x", "/x/{a}/{b:path}", methods=["DELETE"]), scope
    )


@effort(300)
@given(HEADERS, CLIENTS)
def test_header_alone_never_places_a_client_in_a_network(headers: Any, client: Any) -> None:
    scope = http_scope() | {"headers": headers, "client": client}
    direct, _ = attempt(lambda: ip_address(client[0]) if client else None, ValueError)
    expected = direct is not None and direct in ip_network("10.0.0.0/8")
    if direct is None or direct.version == 4:
        assert passes(Network("10.0.0.0/8"), scope) is expected


@effort(300)
@given(st.lists(VALUES, max_size=3))
def test_proxy_counts_only_what_it_appended(
    values: list[bytes],
) -> None:
    """The proxy appends the address of the client, which is in no network."""
    headers = [(b"x-forwarded-for", value) for value in [*values, b"203.0.113.9"]]
    rule = Network("10.0.0.0/8", "::/0", trusted_proxies=["192.0.2.0/24"])
    assert not passes(rule, http_scope() | {"headers": headers, "client": ("192.0.2.1", 1)})


# What a client may send as Forwarded, and as Host, which a proxy may put into Forwarded, in quotes
# if it must.
FORWARDED_PIECES: Final = st.lists(
    st.sampled_from(
        [
            "for",
            "by",
            "host",
            "=",
            ";",
            ",",
            '"',
            "\\",
            " ",
            "10.1.2.3",
            "192.0.2.1",
            '"[2001:db8::1]:1"',
            "for=10.1.2.3",
            "x",
        ]
    ),
    max_size=14,
).map("".join)
APPENDED: Final = st.sampled_from(
    [
        "for=203.0.113.9",
        "FOR=203.0.113.9;host={}",
        'for="203.0.113.9:4711";host={};proto=https',
        'by="[2001:db8::7]";host={};for=203.0.113.9',
        "host={};for=203.0.113.9",
    ]
)


def quoted(text: str) -> str:
    """As RFC 9110, 5.6.4 has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@effort(800)
@given(FORWARDED_PIECES, FORWARDED_PIECES, APPENDED, st.booleans())
def test_forwarded_counts_only_what_the_proxy_appended(
    claimed: str, host: str, appended: str, new_line: bool
) -> None:
    """What stands before it may open a quote, and the Host may close one: neither makes the client
    another.
    """
    own = appended.format(quoted(host))
    values = [claimed, own] if new_line else [f"{claimed}, {own}"]
    headers = [(b"forwarded", value.encode()) for value in values]
    rule = Network(
        "10.0.0.0/8",
        "2001:db8::/32",
        "192.0.2.1",
        trusted_proxies=["192.0.2.0/24"],
        forwarded="forwarded",
    )
    scope = http_scope() | {"headers": headers, "client": ("192.0.2.1", 1)}
    assert not passes(rule, scope)
    client = Network("203.0.113.9", trusted_proxies=["192.0.2.0/24"], forwarded="forwarded")
    assert passes(client, scope) or "\\" in own


CLAIMS: Final = st.tuples(
    st.sampled_from([b"x-forwarded-for", b"forwarded"]),
    st.sampled_from(
        [
            b"10.1.2.3",
            b"for=10.1.2.3",
            b"for=203.0.113.9",
            b"203.0.113.9",
            b"192.0.2.1",
            b"for=192.0.2.1",
            b"",
        ]
    )
    | VALUES,
)


@effort(300)
@given(st.lists(CLAIMS, max_size=5), CLIENTS)
def test_unselected_client_header_is_ignored(headers: Any, client: Any) -> None:
    scope = http_scope() | {"headers": headers, "client": client}
    for believed, other in ((b"x-forwarded-for", b"forwarded"), (b"forwarded", b"x-forwarded-for")):
        rule = Network(
            "10.0.0.0/8",
            "::/0",
            trusted_proxies=["192.0.2.0/24"],
            forwarded=believed.decode(),  # type: ignore[arg-type]
        )
        assert passes(rule, scope) is passes(
            rule, scope | {"headers": [header for header in headers if header[0] != other]}
        )


@effort(300)
@given(PATHS, PATHS)
def test_a_path_without_braces_is_exempt_alone(path: str, asked: str) -> None:
    rule, problem = attempt(lambda: Path(path), ConfigurationError)
    if rule is None:
        assert problem
        return
    assert passes(rule, http_scope(path=path)) or "{" in path
    if "{" not in path:
        assert passes(rule, http_scope(path=asked)) is (asked == path)


ENTRIES: Final = TEXT | st.lists(
    st.sampled_from(
        [
            "GET",
            " ",
            ",",
            "/",
            "{a}",
            "{b:int}",
            "{r:path}",
            "10.1.2.3",
            "10.0.0.0",
            "/8",
            "::",
            "/129",
            "x",
            "\n",
            "(",
            "{",
        ]
    ),
    max_size=9,
).map("".join)


@effort(300)
@given(st.lists(ENTRIES, max_size=4), PATHS, HEADERS, CLIENTS, FORWARDED)
def test_any_list_of_a_state_is_read_as_far_as_it_can_be(
    entries: list[str], path: str, headers: Any, client: Any, forwarded: ForwardedHeader
) -> None:
    allow_list = AllowList([*entries, "/allowed"], Proxies("192.0.2.0/24", forwarded))
    allow_list.matches(http_scope() | {"headers": headers, "client": client, "path": path})
    assert allow_list.matches(http_scope(path="/allowed"))
    assert len(allow_list.errors) <= len(entries)
    assert all(len(problem) < 500 and problem.isprintable() for problem in allow_list.errors)


@effort(30)
@given(
    st.lists(st.sampled_from(["/{a}", "/{b:int}", "/x", "/{c:float}", "/"]), max_size=20).map(
        "".join
    ),
    st.sampled_from("/a1.x"),
)
def test_no_template_of_a_state_takes_long_to_compare(template: str, character: str) -> None:
    allow_list = AllowList([template + "/{r:path}"])
    began = time.process_time()
    allow_list.matches(http_scope(path="/" + f"{character}/" * 5_000 + character * 50_000))
    assert time.process_time() - began < 2


@effort(200)
@given(TEXT)
def test_any_text_is_an_option_or_a_configuration_error(text: str) -> None:
    for make in (Path, Method, Host, Network, Header, Cookie, Query):
        rule, problem = attempt(partial(make, text), ConfigurationError)
        assert (rule is None) == bool(problem)
        assert rule is None or repr(rule)
