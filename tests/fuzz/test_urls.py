"""Any text is a backend's URL or a `ConfigurationError`, and none of them tells a password."""

from __future__ import annotations

import contextlib
from typing import Final
from urllib.parse import quote

from hypothesis import assume, given
from hypothesis import strategies as st

from fastapi_maintenance import configure_backend
from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.exceptions import ConfigurationError

from .attempt import attempt
from .effort import effort
from .garbage import TEXT

SECRET: Final = "s3kr1t"
SCHEMES: Final = [
    "redis://",
    "rediss://",
    "unix://",
    "Redis://",
    "redis:",
    "redis:/",
    "redis//",
    "",
    "http://",
    "redis+sentinel://",
    "redis+cluster://",
    "rediss+sentinel://",
    "redis+x://",
    "unix:",
]
PLACES: Final = [
    "h",
    "",
    "h:6379",
    "h:x",
    "h:-1",
    "h:99999",
    "[::1]",
    "[::1",
    "ℂ",
    "h/0",
    "h/x",
    "h?ttl=x",
    "h?nope=1",
    "h,k:6380/m/0",
    "h:1,k/m?sentinel_password=other",
    "h,/m",
    "h,k:x",
    "h?db=x",
    "h#x",
    "/run/x",
]
PIECES: Final = st.lists(
    st.sampled_from(
        [
            "[",
            "]",
            "[::1]",
            "[v1.x]",
            "%",
            "%40",
            "%zz",
            "#",
            "?",
            "/",
            "/0",
            ":",
            "1",
            "12",
            "&",
            "=",
            "\n",
            " ",
            "ℂ",
            "é",
            "\ud800",
        ]
    )
    | st.sampled_from(["\0", "@", ";", "\\", "{", "}"]),
    max_size=3,
).map("".join)
ANY: Final = st.one_of(
    TEXT, st.tuples(st.sampled_from([*SCHEMES, "file:", "file://", "env:"]), TEXT).map("".join)
)


@effort(400)
@given(ANY)
def test_any_text_is_a_backend_or_refused(url: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert backend_from_url(url).describe()
    with contextlib.suppress(ConfigurationError):
        configure_backend(url)


@effort(600)
@given(st.sampled_from(SCHEMES), PIECES, PIECES, PIECES, st.sampled_from(PLACES))
def test_a_password_is_never_told_wherever_it_was_not_encoded(
    scheme: str, user: str, before: str, after: str, place: str
) -> None:
    url = f"{scheme}{user}:{before}{SECRET}{after}@{place}"
    shown, problem = attempt(lambda: backend_from_url(url).describe(), ConfigurationError)
    assert SECRET not in (shown or problem)


@effort(300)
@given(
    st.sampled_from(["redis://h", "rediss://h/0", "unix:///run/x"]),
    PIECES,
    PIECES,
    st.sampled_from(["", "&ttl=x", "&nope=1", "#"]),
)
def test_a_password_in_the_query_is_never_told_either(
    start: str, before: str, after: str, more: str
) -> None:
    assume("\ud800" not in before + after)
    url = f"{start}?password={quote(before, safe='@:[]')}{SECRET}{quote(after, safe='@:[]')}{more}"
    shown, problem = attempt(lambda: backend_from_url(url).describe(), ConfigurationError)
    assert SECRET not in (shown or problem)
