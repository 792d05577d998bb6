"""Plain SVG that is readable on a light page and on a dark one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_COLOURS: Final = ("#3b82f6", "#f59e0b", "#10b981", "#a855f7", "#ef4444", "#64748b")
_STYLE: Final = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1f2937}.grid{stroke:#9ca3af;stroke-opacity:.35}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}}</style>"
)
_LABELS: Final = 200  # pixels left of what is drawn
_WIDTH: Final = 760


def bars(title: str, values: Mapping[str, float], *, unit: str) -> str:
    """A bar for each name, in another colour for ours, on a logarithmic axis that begins at 1."""
    most = max(2.0, *values.values())
    top = math.log10(most * 1.15)

    def x(value: float) -> float:
        return _LABELS + (_WIDTH - _LABELS - 70) * max(0.0, math.log10(value)) / top

    height = 60 + 28 * len(values)
    drawn = [_text(12, 22, title, bold=True)]
    for tick in (tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= most):
        drawn += [
            _line(x(tick), 36, x(tick), height - 18),
            _text(x(tick), height - 4, f"{tick}{unit}", anchor="middle"),
        ]
    for row, (name, value) in enumerate(values.items()):
        y = 42 + 28 * row
        colour = _COLOURS[0] if name.startswith("ours") else _COLOURS[5]
        drawn += [
            _text(_LABELS - 8, y + 14, name, anchor="end"),
            f'<rect x="{_LABELS}" y="{y}" width="{max(2.0, x(value) - _LABELS):.1f}" height="20" rx="3" fill="{colour}"/>',
            _text(
                max(x(value), _LABELS + 2) + 6,
                y + 14,
                f"{value:.2f}{unit}" if value < 10 else f"{value:.0f}{unit}",
            ),
        ]
    return _svg(height, drawn)


def _svg(height: float, drawn: Sequence[str]) -> str:
    body = "\n".join(drawn)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}">\n{_STYLE}\n{body}\n</svg>\n'


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="grid"/>'
