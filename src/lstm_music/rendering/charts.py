"""Curves as SVG for the page: they take its colours, in the light and in the dark."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lstm_music.rendering.html import Html, joined, tag

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 42, 60  # margins
COLOURS = 6  # in page.css
TICKS = 6  # about so many on an axis


class Curve(NamedTuple):
    """Points (x, y) of a line; dashed ones are of the training split."""

    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool


def curves(
    lines: Sequence[Curve], marks: Sequence[float], x_title: str, y_title: str, label: str
) -> Html:
    """Return a chart of curves, with a dotted upright at each of marks, and what it shows in words.

    There must be a point.
    """
    xs, ys = zip(*(point for line in lines for point in line.points), strict=True)
    x_axis, y_axis = ticks(0, max(xs)), ticks(min(ys), max(ys))
    x0, x1, y0, y1 = 0.0, max(*xs, 1e-9), y_axis[0], y_axis[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (WIDTH - LEFT - RIGHT) * (x - x0) / (x1 - x0)
        up = (HEIGHT - TOP - BOTTOM) * (y - y0) / (y1 - y0)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - up, 1)

    parts = [upright(at(x, y0), "axis") + number_below(at(x, y0), x) for x in x_axis if x <= x1]
    parts += [level(at(x0, y), y) for y in y_axis]
    parts += [upright(at(x, y0), "mark") for x in marks]
    for line in lines:
        points = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line.points))
        kind = f"colour-{line.colour % COLOURS}" + " train" * line.dashed
        parts.append(tag("polyline", points=points, class_=kind))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(text(x_title, middle, HEIGHT - 8, "middle"))
    parts.append(text(y_title, 8, 22, "start"))
    shape = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", *map(Html, parts), viewBox=shape, class_="plot", role="img", aria_label=label)


def upright(foot: tuple[float, float], kind: str) -> Html:
    """Return an upright line of the height of the chart."""
    return tag("line", x1=foot[0], x2=foot[0], y1=TOP, y2=foot[1], class_=kind)


def level(start: tuple[float, float], value: float) -> Html:
    """Return a level line of the width of the chart, with its number."""
    x, y = start
    line = tag("line", x1=x, x2=WIDTH - RIGHT, y1=y, y2=y, class_="axis")
    return joined(line, text(f"{value:.4g}", x - 8, y + 4, "end"))


def number_below(foot: tuple[float, float], value: float) -> Html:
    """Return a number below the axis."""
    return text(f"{value:,.6g}", foot[0], foot[1] + 22, "middle")


def text(words: str, x: float, y: float, anchor: str) -> Html:
    """Return text that begins, ends or has its middle at x."""
    return tag("text", words, x=x, y=y, text_anchor=anchor)


def ticks(low: float, high: float) -> list[float]:
    """Return some round numbers, at least two, that enclose a range."""
    span = max(high - low, 1e-6 * max(abs(high), 1e-9), 1e-9)
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if span / (power * m) <= TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, max(last, first + 1) + 1)]


def legend(entries: Sequence[tuple[str, int, bool]]) -> Html:
    """Return a list of what the curves are: name, colour, whether dashed."""
    items = []
    for name, colour, dashed in entries:
        kind = f"colour-{colour % COLOURS}" + " train" * dashed
        line = tag("polyline", points="0,6 28,6", class_=kind)
        sample = tag("svg", line, viewBox="0 0 28 12", class_="plot-key", aria_hidden="true")
        items.append(tag("li", sample, name))
    return tag("ul", *items, class_="legend")
