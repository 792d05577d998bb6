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

from fastapi_maintenance._allow import AllowList
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.exemptions import Bearer, Cookie, Header, Host, Method, Network, Path, Query, Rule

from ..asgi import http_scope, websocket_scope
from .attempt import attempt
from .effort import effort
from .garbage import TEXT

NAMES: Final = st.sampled_from([b"x-key", b"cookie", b"host", b"authorization", b"x-forwarded-for", b"forwarded"]) | st.binary(max_size=9)
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
    st.sampled_from([b"," * 100_000, b"192.0.2.1," * 10_000, b";" * 100_000, b"[" * 100_000, b"k=v;" * 10_000]),
)
HEADERS: Final = st.lists(st.tuples(NAMES, VALUES), max_size=5)
CLIENTS: Final = st.sampled_from([None, ("10.1.2.3", 1), ("192.0.2.1", 1), ("", 0), ("\udcff", 0)]) | st.tuples(TEXT, st.integers())
PATHS: Final = TEXT | st.lists(st.sampled_from(["/", "a", "7", "\n", "{", "}", ":int", "\0", "é"]), max_size=8).map("".join)

SECRETS: Final = Header("X-Key", "5ecret") | Cookie("key", "5ecret") | Query("key", "5ecret") | Bearer(lambda token: token == "5ecret")


def passes(rule: Rule, scope: dict[str, Any]) -> bool:
    async def ask() -> bool:
        return await rule(HTTPConnection(scope))

    return asyncio.run(ask())


@effort(300)
@given(HEADERS, CLIENTS, PATHS, st.binary(max_size=50), st.booleans())
def test_no_garbage_finds_a_secret_or_breaks_a_rule(headers: Any, client: Any, path: str, query: bytes, websocket: bool) -> None:
    scope = (websocket_scope() if websocket else http_scope()) | {"headers": headers, "client": client, "path": path, "query_string": query}
    assert not passes(SECRETS, scope)
    assert not passes(Host("x.example", "*.x.example") | Path("/x", "/x/{a}/{b:path}", methods=["DELETE"]), scope)


@effort(300)
@given(HEADERS, CLIENTS)
def test_no_header_makes_a_client_of_a_network_whose_connection_is_not(headers: Any, client: Any) -> None:
    scope = http_scope() | {"headers": headers, "client": client}
    direct, _ = attempt(lambda: ip_address(client[0]) if client else None, ValueError)
    expected = direct is not None and direct in ip_network("10.0.0.0/8")
    if direct is None or direct.version == 4:
        assert passes(Network("10.0.0.0/8"), scope) is expected


@effort(300)
@given(st.lists(VALUES, max_size=3))
def test_behind_a_proxy_what_it_did_not_append_itself_counts_for_nothing(values: list[bytes]) -> None:
    """The proxy appends the address of the client, which is in no network."""
    headers = [(b"x-forwarded-for", value) for value in [*values, b"203.0.113.9"]]
    rule = Network("10.0.0.0/8", "::/0", trusted_proxies=["192.0.2.0/24"])
    assert not passes(rule, http_scope() | {"headers": headers, "client": ("192.0.2.1", 1)})


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
    st.sampled_from(["GET", " ", ",", "/", "{a}", "{b:int}", "{r:path}", "10.1.2.3", "10.0.0.0", "/8", "::", "/129", "x", "\n", "(", "{"]),
    max_size=9,
).map("".join)


@effort(300)
@given(st.lists(ENTRIES, max_size=4), PATHS, HEADERS, CLIENTS)
def test_any_list_of_a_state_is_read_as_far_as_it_can_be(entries: list[str], path: str, headers: Any, client: Any) -> None:
    allow_list = AllowList([*entries, "/allowed"], ["192.0.2.0/24"])
    allow_list.matches(http_scope() | {"headers": headers, "client": client, "path": path})
    assert allow_list.matches(http_scope(path="/allowed"))
    assert len(allow_list.problems) <= len(entries)
    assert all(len(problem) < 500 and problem.isprintable() for problem in allow_list.problems)


@effort(30)
@given(st.lists(st.sampled_from(["/{a}", "/{b:int}", "/x", "/{c:float}", "/"]), max_size=20).map("".join), st.sampled_from("/a1.x"))
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
