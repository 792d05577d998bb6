"""Options that are in seconds."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_maintenance._internal.validation import non_negative, positive
from fastapi_maintenance.exceptions import ConfigurationError


@pytest.mark.parametrize("value", [0, -1, True, float("inf"), float("nan"), "1", None, 1j])
def test_positive_invalid_value_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"ttl must be a positive number of seconds"):
        positive("ttl", value)
    assert positive("ttl", 0.5) == 0.5


def test_non_negative_accepts_zero() -> None:
    assert non_negative("settle", 0) == 0
    assert non_negative("settle", 2.5) == 2.5
    for value in (-1, False):
        with pytest.raises(ConfigurationError, match=r"settle must be a positive number"):
            non_negative("settle", value)
