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


def lines(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, across: str, up: str
) -> str:
    """A line for each name through (x, y), both axes logarithmic."""
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = [y for points in series.values() for _, y in points]
    lowest, highest = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    left, right, upper, lower = 80, _WIDTH - 20, 44, 300

    def place(x: float, y: float) -> tuple[float, float]:
        over = (math.log10(x) - math.log10(xs[0])) / ((math.log10(xs[-1]) - math.log10(xs[0])) or 1)
        return left + (right - left) * over, lower - (lower - upper) * (math.log10(y) - lowest) / (
            (highest - lowest) or 1
        )

    drawn = [
        _text(12, 22, f"{title}, {up}", bold=True),
        _text(right, lower + 40, across, anchor="end"),
    ]
    for power in range(lowest, highest + 1):
        _, y = place(xs[0], 10**power)
        drawn += [_line(left, y, right, y), _text(left - 8, y + 4, f"{10**power:g}", anchor="end")]
    drawn += [_text(place(x, 10**lowest)[0], lower + 20, f"{x:g}", anchor="middle") for x in xs]
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [place(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        drawn.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        )
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in placed]
        legend = lower + 66 + 22 * number
        drawn += [
            f'<rect x="{left}" y="{legend - 11}" width="14" height="14" rx="3" fill="{colour}"/>',
            _text(left + 22, legend, name),
        ]
    return _svg(lower + 62 + 22 * len(series), drawn)


def _svg(height: float, drawn: Sequence[str]) -> str:
    body = "\n".join(drawn)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}">\n{_STYLE}\n{body}\n</svg>\n'


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="grid"/>'
