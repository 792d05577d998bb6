"""RESP as no server speaks it: cut off, of the wrong type, endless, nested without end, or not RESP
at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hypothesis import strategies as st


def bulk(text: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


def array(items: Iterable[bytes], kind: bytes = b"*") -> bytes:
    """An array, or what else has elements."""
    parts = list(items)
    return b"%s%d\r\n%s" % (kind, len(parts), b"".join(parts))


CLAIMS: Final = (
    b"$10737418240\r\n",
    b"$99999999999999999999\r\n",
    b"*2147483647\r\n",
    b"*99999999999999999999\r\n",
    b"%1073741823\r\n",
    b">1000000000\r\n",
    b"*1\r\n" * 5000,
    b"*1000\r\n" * 5000,
)
"""Replies that claim to be longer, or deeper, than any memory."""

_ODD: Final = (
    *(
        b"$-2\r\n",
        b"$x\r\n",
        b"$5\r\nab",
        b"$3\r\nabcd\r\n",
        b"*-5\r\n",
        b"*2\r\n:1\r\n",
        b"%1\r\n*0\r\n+a\r\n",
        b"~2\r\n*0\r\n*0\r\n",
    ),
    *(
        b"%2\r\n+a\r\n",
        b"|1\r\n+a\r\n+b\r\n",
        b"=3\r\nxx\r\n",
        b"!3\r\nabc\r\n",
        b",nan\r\n",
        b",x\r\n",
        b"#t\r\n",
        b"#x\r\n",
        b":1e5\r\n",
    ),
    *(
        b":\r\n",
        b"+",
        b"+OK\r\n",
        b"+PONG\r\n",
        b"\r\n",
        b"\n",
        b"(9" + b"9" * 5000 + b"\r\n",
        b"(x\r\n",
        b":9" + b"9" * 5000 + b"\r\n",
    ),
    *(
        b">0\r\n",
        b">1\r\n:1\r\n",
        b">2\r\n$10\r\ninvalidate\r\n_\r\n",
        b">2\r\n$10\r\ninvalidate\r\n:7\r\n",
        b">1\r\n$7\r\nmessage\r\n",
    ),
    *(
        b">1\r\n*0\r\n",
        b">1\r\n$9\r\nsubscribe\r\n",
        b">2\r\n$6\r\nMOVING\r\n:1\r\n",
        b">2\r\n$9\r\nMIGRATING\r\n+x\r\n",
        b">1\r\n_\r\n",
    ),
    *(
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"x" * 200_000,
        b"\0" * 1000,
    ),
)
_NOTHING: Final = (b"$-1\r\n", b"*-1\r\n", b"_\r\n", bulk(b""), bulk(b"off"))
_WORDS: Final = (
    "ERR unknown command",
    "NOPERM no",
    "READONLY no",
    "LOADING Redis",
    "MISCONF x",
    "OOM x",
    "NOSCRIPT x",
    "MOVED 1 h:1",
    "",
)
_ERRORS: Final = (
    *(f"-{words}\r\n".encode() for words in _WORDS),
    b"-\xff\r\n",
    b"-WRONGTYPE " + b"x" * 5000 + b"\r\n",
    b"!3\r\nERR\r\n",
)

_LEAVES: Final = st.one_of(
    st.integers(-(2**70), 2**70).map(lambda number: b":%d\r\n" % number),
    st.binary(max_size=30).map(lambda text: bulk(b"?" + text)),
    st.text("abc?%$", max_size=9).map(lambda text: f"+{text}\r\n".encode()),
    st.sampled_from(_ODD),
)
_TREES: Final = st.recursive(
    _LEAVES,
    lambda inner: st.builds(
        array, st.lists(inner, max_size=10), st.sampled_from([b"*", b"*", b">", b"~", b"%"])
    ),
    max_leaves=12,
)


@st.composite
def _frames(draw: st.DrawFn) -> bytes:
    frame = draw(st.one_of(_TREES, _TREES, st.binary(max_size=60), st.sampled_from(CLAIMS)))
    return frame[: draw(st.integers(0, len(frame)))] if draw(st.booleans()) else frame


CONVERSATIONS: Final = st.lists(
    _frames() | st.sampled_from(_NOTHING), min_size=1, max_size=6
) | st.lists(_frames() | st.sampled_from(_ERRORS), min_size=1, max_size=6)
"""What a server says to one thing after the other.

Never refusals *and* nothing: a server that refuses scripts and has no switch is sane, and the
service open.
"""
