"""Nothing but a token that the secret signed, and that the switch names, bypasses anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.exemptions.bypass import PARAMETER, Bypass

from ..support.asgi import http_scope, websocket_scope
from .effort import effort
from .garbage import TEXT

NOW: Final = datetime(2026, 11, 22, 3, tzinfo=UTC)
SECRETS: Final = ("fedcba9876543210fedcba9876543210", "0123456789abcdef0123456789abcdef")
BYPASS: Final = Bypass(SECRETS)
TOKEN, RECORD = Bypass(SECRETS[1]).issue(NOW + timedelta(hours=2))
FIELD: Final = f"{PARAMETER}={TOKEN}".encode()


@st.composite
def nearly_tokens(draw: Any) -> bytes:
    """A token with some bytes changed, cut, doubled or moved; never the token itself."""
    token = TOKEN.encode()
    start, end = sorted((draw(st.integers(0, len(token))), draw(st.integers(0, len(token)))))
    changed = (
        token[:start]
        + draw(
            st.binary(max_size=4)
            | st.just(token)
            | st.sampled_from([b".", b"=", b"%2E", b"\0", b"A"])
        )
        + token[end:]
    )
    return b"" if changed == token else bytes(changed)


GARBAGE: Final = (
    nearly_tokens()
    | st.binary(max_size=600)
    | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))
)
NAMES: Final = st.sampled_from(
    [b"x-maintenance-bypass", b"cookie", b"x-maintenance-bypass-", b"authorization"]
)
HEADERS: Final = st.lists(
    st.tuples(NAMES, GARBAGE | GARBAGE.map(lambda value: f"{PARAMETER}=".encode() + value)),
    max_size=5,
)


@effort(500)
@given(HEADERS, GARBAGE, st.booleans())
def test_no_garbage_is_a_token(headers: Any, query: bytes, websocket: bool) -> None:
    scope = websocket_scope() if websocket else http_scope()
    scope |= {"headers": headers, "query_string": f"{PARAMETER}=".encode() + query}
    if any(
        value.rpartition(b"=")[2].strip(b' "') == TOKEN.encode() for _, value in headers
    ) or FIELD in scope["query_string"].split(b"&"):
        return  # garbage around a good one, as a cookie may have
    assert not BYPASS.admits(scope, [RECORD], NOW)
    assert BYPASS.welcome(scope, [RECORD], NOW) is None
    assert not any(
        field.startswith(f"{PARAMETER}=".encode()) for field in scope["query_string"].split(b"&")
    )


@effort(500)
@given(st.binary(max_size=60), st.lists(st.binary(max_size=20), max_size=4), st.integers(0, 4))
def test_any_visit_goes_on_to_the_same_place_without_the_token(
    path: bytes, others: list[bytes], position: int
) -> None:
    fields = [*others[:position], FIELD, *others[position:]]
    scope = http_scope(raw_path=b"/" + path, query_string=b"&".join(fields))
    response = BYPASS.welcome(scope, [RECORD], NOW)
    if response is None:
        assert (
            sum(
                field.startswith(f"{PARAMETER}=".encode())
                for field in b"&".join(fields).split(b"&")
            )
            > 1
        )
        return
    location = response.headers["location"]
    assert location.isascii()
    assert location.isprintable()
    assert TOKEN not in location
    went = urlsplit(urljoin("https://shop.example/a/b", location))
    assert (went.scheme, went.netloc) == ("https", "shop.example")
