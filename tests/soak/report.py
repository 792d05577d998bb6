"""What a soak found, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .faults import FAULTS
from .run import Outcome
from .truth import Verdict

COLUMNS: Final = ("Fault", "Times injected", "Bound", "Worst observed staleness", "Wrong answers")


def table(outcome: Outcome) -> str:
    """A Markdown table with a row for each fault."""
    rows = [list(COLUMNS)]
    for fault in FAULTS:
        verdict = outcome.verdicts.get(fault.name, Verdict())
        wrong = verdict.wrong + verdict.odd
        rows.append(
            [
                fault.name,
                str(outcome.times.get(fault.name, 0)),
                fault.bound,
                f"{verdict.worst * 1000:.0f} ms",
                str(wrong),
            ]
        )
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Everything that was counted."""
    total, plan = outcome.total, outcome.plan
    return {
        "seed": plan.seed,
        "seconds": round(outcome.seconds, 1),
        "workers": plan.workers,
        "ttl": plan.ttl,
        "slack": plan.slack,
        "answers": total.answers,
        "answers_per_second": round(total.answers / max(outcome.seconds, 1.0)),
        "wrong": total.wrong,
        "odd": total.odd,
        "gone": total.gone,
        "faults": {
            name: {
                "times": times,
                "worst": round(outcome.verdicts[name].worst, 4),
                "wrong": outcome.verdicts[name].wrong,
            }
            for name, times in outcome.times.items()
        },
        "memory_mib": [
            [round(sample.memory, 1) for sample in pair]
            for pair in zip(outcome.before, outcome.after, strict=False)
        ],
        "files": [
            [sample.files for sample in pair]
            for pair in zip(outcome.before, outcome.after, strict=False)
        ],
        "violations": outcome.violations,
    }
