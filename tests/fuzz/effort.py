"""How much garbage: little and always the same in the suite, much and always new under
scripts/fuzz.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

VARIABLE: Final = "FUZZ_EXAMPLES"


def effort(examples: int) -> settings:
    """So many examples of one property, or as many times more as the environment variable
    FUZZ_EXAMPLES says.
    """
    times = int(os.environ.get(VARIABLE, "0"))
    return settings(
        max_examples=examples * max(times, 1),
        derandomize=not times,
        deadline=None,
        print_blob=True,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )
