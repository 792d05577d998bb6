"""The languages that come with the package, and what one's own must be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.responses.translations import TRANSLATIONS, Translation


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_translations_are_complete_and_distinct(language: str) -> None:
    texts = [text for text in asdict(TRANSLATIONS[language]).values() if isinstance(text, str)]
    english = set(asdict(TRANSLATIONS["en"]).values())
    assert all(text == text.strip() and text for text in texts)
    assert len(set(texts)) == len(texts)
    assert language == "en" or not english & set(texts)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"title": None}, "Translation.title must be text, got None"),
        ({"right_to_left": "yes"}, "Translation.right_to_left must be True or False, got 'yes'"),
        ({"until": "soon"}, "Translation.until must contain {time} once"),
        ({"until": "{time} {time}"}, "Translation.until must contain {time} once"),
    ],
)
def test_translation_invalid_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Translation(**(asdict(TRANSLATIONS["en"]) | change))
    assert complaint in str(refused.value)
