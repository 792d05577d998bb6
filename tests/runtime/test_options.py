"""One declaration of the options that the middleware, its mode and a thread's mode have."""

from __future__ import annotations

import re
from dataclasses import fields
from inspect import Parameter, cleandoc, signature
from typing import Any

import pytest

from fastapi_maintenance import (
    BackgroundMode,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    MaintenanceOptions,
)
from fastapi_maintenance.backends import EnvVarBackend

HAVE_THEM = [MaintenanceModeMiddleware, MaintenanceMode, BackgroundMode]


@pytest.mark.parametrize("cls", HAVE_THEM, ids=lambda cls: cls.__name__)
def test_options_are_keywords_with_the_declared_defaults(cls: type) -> None:
    given = signature(cls).parameters

    assert [
        field.name
        for field in fields(MaintenanceOptions)
        if given[field.name].kind is not Parameter.KEYWORD_ONLY
        or given[field.name].default != field.default
    ] == []


@pytest.mark.parametrize("cls", HAVE_THEM, ids=lambda cls: cls.__name__)
def test_unknown_option_is_refused(cls: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'fallbacks'"):
        cls(None, fallbacks="env:")


def test_every_option_is_documented() -> None:
    documented = re.findall(
        r"^    (\w+):", cleandoc(MaintenanceOptions.__doc__ or ""), re.MULTILINE
    )

    assert documented == [field.name for field in fields(MaintenanceOptions)]


def test_middleware_keeps_five_positional_options() -> None:
    parameters = signature(MaintenanceModeMiddleware).parameters.values()

    assert [each.name for each in parameters if each.kind is not Parameter.KEYWORD_ONLY] == [
        "app",
        "enable_maintenance",
        "backend",
        "exempt_handler",
        "response_handler",
    ]


@pytest.mark.parametrize("cls", [MaintenanceModeMiddleware, MaintenanceMode])
def test_attributes_are_few_enough_to_be_read_fast(cls: Any) -> None:
    """Python 3.11 keeps up to 29 attributes in the object, and else makes a dictionary for them.
    Each request reads some.
    """
    assert len(vars(cls(EnvVarBackend()))) < 30
