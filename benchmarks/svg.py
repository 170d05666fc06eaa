"""A plot as SVG, written by hand: lines over two logarithmic axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 40, 50, 60
COLOURS = ("#1b6ca8", "#c25b12", "#3a7d44", "#7b3fa0")

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from the first to the last of its labelled ticks, over pixels."""

    title: str
    ticks: Mapping[float, str]
    begin: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of *value*."""
        low, high = math.log(min(self.ticks)), math.log(max(self.ticks))
        return self.begin + (math.log(value) - low) / (high - low) * (self.end - self.begin)


def plot(
    title: str,
    across: tuple[str, Mapping[float, str]],
    upwards: tuple[str, Mapping[float, str]],
    lines: Mapping[str, Sequence[Point]],
    mark: tuple[float, str],
) -> str:
    """The SVG; an axis is its title and its labelled ticks, and the outermost ticks bound it.

    *mark* is a value across that deserves a name.
    """
    x = Axis(*across, LEFT, WIDTH - RIGHT)
    y = Axis(*upwards, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{title}</text>',
        *_across(x, y),
        *_upwards(x, y),
        *_mark(x, y, *mark),
        *_lines(x, y, lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _across(x: Axis, y: Axis) -> list[str]:
    parts = [
        f'<text x="{(x.begin + x.end) / 2:.0f}" y="{HEIGHT - 14}" text-anchor="middle">{x.title}</text>',
    ]
    for value, label in x.ticks.items():
        at = x.at(value)
        parts += [
            f'<line x1="{at:.1f}" y1="{y.begin}" x2="{at:.1f}" y2="{y.end}" stroke="#ddd"/>',
            f'<text x="{at:.1f}" y="{y.begin + 18}" text-anchor="middle">{label}</text>',
        ]
    return parts


def _upwards(x: Axis, y: Axis) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{TOP - 8}">{y.title}</text>']
    for value, label in y.ticks.items():
        at = y.at(value)
        parts += [
            f'<line x1="{x.begin}" y1="{at:.1f}" x2="{x.end}" y2="{at:.1f}" stroke="#ddd"/>',
            f'<text x="{x.begin - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>',
        ]
    return parts


def _mark(x: Axis, y: Axis, value: float, name: str) -> list[str]:
    at = x.at(value)
    dashed = 'stroke="#888" stroke-dasharray="4 4"'
    return [
        f'<line x1="{at:.1f}" y1="{y.begin}" x2="{at:.1f}" y2="{y.end}" {dashed}/>',
        f'<text x="{at + 8:.1f}" y="{y.end + 18}" fill="#555">{name}</text>',
    ]


def _lines(x: Axis, y: Axis, lines: Mapping[str, Sequence[Point]]) -> list[str]:
    parts = []
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        pixels = [(x.at(across), y.at(up)) for across, up in points]
        path = " ".join(f"{across:.1f},{up:.1f}" for across, up in pixels)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>'
            for across, up in pixels
        ]
        (left, begin), (_, end) = pixels[0], pixels[-1]
        level = abs(begin - end) < 1
        at = begin + (20 if level else -8)  # below a level line: others come down on it
        parts.append(f'<text x="{left + 8:.1f}" y="{at:.1f}" fill="{colour}">{name}</text>')
    return parts
