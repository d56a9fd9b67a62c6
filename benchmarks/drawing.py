"""Curves as SVG: small panels of cost against size, both logarithmic. Readable on a light and on a dark page."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, COLUMNS = 300, 210, 3
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 44, 40
COLOURS = ("#3b82d6", "#d9772b", "#3a9d5d")
STYLE = """text { font: 11px system-ui, sans-serif; fill: #57606a } .title { font-weight: 600; fill: #24292f }
.grid { stroke: #8c959f; stroke-opacity: .3 } polyline { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #9198a1 } .title { fill: #e6edf3 } }"""


class Panel(NamedTuple):
    """Curves by name: what a unit of work costs, by how much there is."""

    title: str
    across: str
    up: str
    curves: Mapping[str, Mapping[int, float]]


class _Scale(NamedTuple):
    """Logarithms to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def svg(panels: Sequence[Panel]) -> str:
    rows = math.ceil(len(panels) / COLUMNS)
    size = f'width="{WIDTH * COLUMNS}" height="{HEIGHT * rows}" viewBox="0 0 {WIDTH * COLUMNS} {HEIGHT * rows}"'
    drawn = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{STYLE}</style>"]
    for number, panel in enumerate(panels):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        drawn += [f'<g transform="translate({x},{y})">', *_panel(panel), "</g>"]
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    sizes = sorted({size for curve in panel.curves.values() for size in curve})
    costs = [cost for curve in panel.curves.values() for cost in curve.values()]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    high = max(high, low + 2)  # so that noise does not look like growth
    right = _Scale(math.log10(sizes[0]), math.log10(sizes[-1]), LEFT, WIDTH - RIGHT)
    up = _Scale(low, high, HEIGHT - BOTTOM, TOP)
    drawn = [f'<text class="title" x="{LEFT}" y="16">{escape(panel.title)}</text>']
    drawn.append(f'<text x="{LEFT}" y="31">{escape(panel.up)}</text>')
    for power in range(low, high + 1):
        y = up(10**power)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        drawn.append(f'<text text-anchor="end" x="{LEFT - 5}" y="{y + 4}">{10.0**power:g}</text>')
    drawn += [
        f'<text text-anchor="middle" x="{right(size)}" y="{HEIGHT - BOTTOM + 15}">{_short(size)}</text>'
        for size in sizes
    ]
    drawn.append(
        f'<text text-anchor="middle" x="{WIDTH // 2}" y="{HEIGHT - BOTTOM + 30}">{escape(panel.across)}</text>'
    )
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{right(size)},{up(cost)}" for size, cost in sorted(curve.items()))
        drawn.append(f'<polyline stroke="{colour}" points="{points}"/>')
        if len(panel.curves) > 1:
            x, y = WIDTH - RIGHT, TOP + 8 + 14 * number
            drawn.append(f'<text text-anchor="end" x="{x}" y="{y}" style="fill:{colour}">{escape(name)}</text>')
    return drawn


def _short(size: int) -> str:
    return f"{size // 1000}k" if size >= 1000 and size % 1000 == 0 else str(size)
