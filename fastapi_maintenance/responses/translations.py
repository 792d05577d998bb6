"""Translations of the page and of plain text."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Final

from .._internal.validation import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """The sentences of the page and of plain text in one language, without HTML.

    `message` is the default message. `until` contains `{time}`. `waiting` is shown while the page
    polls for the return. `right_to_left` is for scripts that are written from right to left.
    """

    title: str
    message: str
    read_only_title: str
    read_only_message: str
    until: str
    waiting: str
    right_to_left: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind, name = (bool, "True or False") if field.name == "right_to_left" else (str, "text")
            require(isinstance(value, kind), f"Translation.{field.name} must be {name}", value)
        valid = self.until.count("{time}") == 1
        require(valid, "Translation.until must contain {time} once", self.until)


_TEXTS: Final = files(__package__).joinpath("translations.json").read_text("utf-8")
TRANSLATIONS: Final = {tag: Translation(**texts) for tag, texts in json.loads(_TEXTS).items()}
"""The translations, by language tag (BCP 47)."""
