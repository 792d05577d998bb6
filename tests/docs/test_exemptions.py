"""docs/exemptions.md: it names every rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from fastapi_maintenance import exemptions

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "exemptions.md").read_text()


def test_every_rule_is_in_the_table() -> None:
    named = set(re.findall(r"`exempt\.([A-Z]\w+)", DOCUMENT))
    assert set(exemptions.__all__) - {"Rule", "ScopeRule"} <= named
