"""What no honest client would write, and what is nearly right."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import strategies as st

# With lone surrogates, as os.environ and file names have them.
TEXT: Final = st.text(st.characters(codec=None), max_size=200)

JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.integers(10**300, 10**301),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)

_KEYS: Final = (
    "enabled",
    "message",
    "reason",
    "retry_after",
    "starts_at",
    "ends_at",
    "mode",
    "by",
    "since",
    "allow",
    "bypass",
    "",
    "Enabled",
)
_MOMENTS: Final = st.sampled_from(
    [
        "2026-11-22T03:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-11-22",
        "1e400",
        "NaN",
        "-9" * 60,
        "24:00",
    ]
)


@st.composite
def nearly_states(draw: Any) -> bytes:
    """JSON with our keys and anybody's values, sometimes cut, sometimes with a byte changed."""
    values = st.one_of(
        JSON, _MOMENTS, st.booleans(), st.sampled_from(["full", "read-only", "FULL"])
    )
    document = draw(st.dictionaries(st.sampled_from(_KEYS), values, max_size=9))
    raw = json.dumps(
        document | draw(st.sampled_from([{}, {"enabled": True}, {"enabled": False}]))
    ).encode()
    cut: int = draw(st.integers(0, len(raw)))
    match draw(st.sampled_from(["whole", "whole", "cut", "changed", "repeated"])):
        case "cut":
            return raw[:cut]
        case "changed":
            other: bytes = draw(st.binary(max_size=3))
            return raw[:cut] + other + raw[cut + 1 :]
        case "repeated":
            return raw * 2
        case _:
            return raw


SWITCHES: Final[st.SearchStrategy[bytes]] = st.one_of(
    st.binary(max_size=300),
    TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON.map(lambda value: json.dumps(value).encode()),
    nearly_states(),
    st.sampled_from(
        [
            b"",
            b" ",
            b"\0",
            b"1\0",
            b"\xef\xbb\xbf1",
            b"ON\n",
            b"1" * 65537,
            b"[" * 30_000,
            b'{"a":' * 12_000,
            b"{" + b" " * 65536,
        ]
    ),
)
"""Bytes that may be found where the switch is kept."""
