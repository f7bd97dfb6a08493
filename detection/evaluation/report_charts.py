"""The geometry of a report's charts: positions in percent of the plot, which the page stretches.

Labels are text of the page beside the plot, so they keep their size on every screen.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Axis(NamedTuple):
    """An axis.

    Attributes:
        title: what it measures, and the unit.
        ticks: position in percent of the plot, and text.
    """

    title: str
    ticks: tuple[tuple[float, str], ...]


class Line(NamedTuple):
    """A curve.

    Attributes:
        name: what it is of.
        path: SVG path data in a plot of 100 × 100.
        style: names of the page's styles, such as ``mean`` or ``series-2``.
        label: the class, 1…K; 0 for all classes.
    """

    name: str
    path: str
    style: str
    label: int = 0


class Bar(NamedTuple):
    """An upright bar, in percent of the plot.

    Attributes:
        name: what it says.
        left: from the left.
        width: its width.
        height: from the bottom.
    """

    name: str
    left: float
    width: float
    height: float


class Chart(NamedTuple):
    """A chart.

    Attributes:
        title: its heading.
        text: what it shows, in words and figures, for readers who do not see it.
        x: the horizontal axis.
        y: the vertical axis.
        lines: its curves, the last on top.
        bars: its bars, below the curves.
        legend: whether the curves' names are listed.
    """

    title: str
    text: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    legend: bool = False


def line_path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Writes a curve as SVG path data, interrupted at nan.

    Args:
        x: (P,) float64, shares of the width, in [0, 1].
        y: (P,) float64, shares of the height from the bottom, in [0, 1].

    Returns:
        Path data in a plot of 100 × 100; empty without points.
    """
    parts = []
    command = "M"
    for across, up in zip((100 * x).tolist(), (100 * (1 - y)).tolist(), strict=True):
        if math.isnan(up):
            command = "M"
        else:
            parts.append(f"{command}{_number(across)} {_number(up)}")
            command = "L"
    return "".join(parts)


def percent_axis(title: str) -> Axis:
    """An axis of shares, labelled in percent."""
    return Axis(f"{title}, %", tuple((20.0 * i, str(20 * i)) for i in range(6)))


def linear_axis(title: str, values: Sequence[float], ends: tuple[float, float]) -> Axis:
    """An axis between two ends with ticks at some values."""
    low, high = ends
    return Axis(title, tuple((100 * (v - low) / (high - low), f"{v:g}") for v in values))


def log_axis(title: str, top: int) -> Axis:
    """A logarithmic axis from 1 to ``top``, at least 10; ticks at powers of ten and its end."""
    values = {10**power for power in range(int(math.log10(top)) + 1)} | {top}
    places = ((100 * math.log10(value) / math.log10(top), value) for value in sorted(values))
    return Axis(title, tuple((place, f"{value:,}") for place, value in places))


def bars_of(
    edges: NDArray[np.float64], heights: NDArray[np.float64], names: Sequence[str]
) -> tuple[Bar, ...]:
    """A bar per bin, none where the height is nan.

    Args:
        edges: (B + 1,) float64, shares of the width.
        heights: (B,) float64, shares of the height.
        names: what each bar says.
    """
    left, width = 100 * edges[:-1], 100 * np.diff(edges)
    columns = zip(names, left.tolist(), width.tolist(), (100 * heights).tolist(), strict=True)
    return tuple(Bar(*column) for column in columns if not math.isnan(column[-1]))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
