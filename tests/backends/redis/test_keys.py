"""The names of keys and channel, and that Redis Cluster keeps them together."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.exceptions import ConfigurationError

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def slots(keys: Keys) -> set[int]:
    return {key_slot(name.encode()) for name in (*keys.all, keys.events)}


def test_a_plain_name_becomes_the_hash_tag_of_its_companions() -> None:
    keys = Keys.of("maintenance")

    companions = {
        name: f"{{maintenance}}:{name}"
        for name in (
            "holds",
            "workers",
            "epoch",
            "events",
            "told",
            "history",
            "recorded",
            "registry",
        )
    }
    assert keys == Keys("maintenance", **companions)
    assert keys.all == (
        "maintenance",
        *(
            companions[name]
            for name in ("holds", "registry", "epoch", "history", "recorded", "workers")
        ),
    )
    assert keys.report("a") == "{maintenance}:w:a"


def test_a_name_with_a_hash_tag_of_its_own_keeps_it() -> None:
    keys = Keys.of("shop:{eu}:maintenance")

    assert keys.holds == "shop:{eu}:maintenance:holds"
    assert slots(keys) == {key_slot(b"eu")}


@pytest.mark.parametrize(
    "name",
    [
        "maintenance",
        "shop:{eu}:maintenance",
        "{a}",
        "{a}{b}",
        "x{y}z{",
        "a:b c",
        "wartung-für-alle",
    ],
)
def test_everything_is_in_one_slot(name: str) -> None:
    assert len(slots(Keys.of(name))) == 1


@settings(deadline=None)
@given(NAMES | st.from_regex(r"[a{}:]{1,8}", fullmatch=True))
def test_keys_of_any_name_differ_and_share_a_slot(name: str) -> None:
    try:
        keys = Keys.of(name)
    except ConfigurationError:
        assume(False)

    assert len(slots(keys)) == 1
    assert len({*keys.all, keys.events}) == 8


@pytest.mark.parametrize("name", ["a{", "a{b", "a}b", "}", "{}", "a{}b", "{}{tag}", "a}{"])
def test_half_a_hash_tag_is_refused_with_an_example(name: str) -> None:
    """Redis hashes such a name as a whole, which no companion's name could follow."""
    with pytest.raises(
        ConfigurationError,
        match=re.escape(f"key={name!r} has a brace but no hash tag") + r".*shop:\{eu\}:maintenance",
    ):
        Keys.of(name)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must not be empty"):
        Keys.of("")
