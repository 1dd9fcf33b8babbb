"""Where to write names in a figure so that they cover nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

FONT_SIZE = 9
# Of a character of that size, in points; about, which is enough to keep labels apart.
CHARACTER_WIDTH, LINE_HEIGHT, POINT_RADIUS = 5.6, 10.0, 5.0
# Where a label may stand, in points from its point: beside, above, below, then further off.
BESIDE, ABOVE = 8, 11
PLACES = [
    (across, up)
    for distance in (0, 7, 15, 24, 34)
    for across, up in (
        (BESIDE, distance),
        (-BESIDE, distance),
        (BESIDE, -distance),
        (-BESIDE, -distance),
        (0, ABOVE + distance),
        (0, -ABOVE - distance),
    )
]
ALIGNMENTS = {BESIDE: "left", -BESIDE: "right", 0: "center"}
FAR = 14  # from here on a thin line joins label and point


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def inside(self, other: _Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )


def spread(wanted: Mapping[str, float], low: float, high: float, gap: float) -> dict[str, float]:
    """Move heights on a logarithmic axis apart, as little as that takes.

    Parameters
    ----------
    wanted : mapping of str to float
        Heights between low and high.
    low, high : float
        The ends of the axis.
    gap : float
        The share of the axis that is to lie between neighbours.

    Returns
    -------
    dict of str to float
        Heights, the lowest first.
    """
    span = math.log10(high / low)
    names = sorted(wanted, key=lambda name: wanted[name])
    heights = [math.log10(wanted[name] / low) / span for name in names]
    for _ in range(200):
        for lower in range(len(heights) - 1):
            overlap = gap - (heights[lower + 1] - heights[lower])
            if overlap > 0:
                heights[lower] -= overlap / 2
                heights[lower + 1] += overlap / 2
    # Back into the axis where they were pushed out of it.
    heights = [min(height, 1 - gap * (len(heights) - 1 - place)) for place, height in enumerate(heights)]
    heights = [max(height, gap * place) for place, height in enumerate(heights)]
    return {name: low * 10 ** (height * span) for name, height in zip(names, heights, strict=True)}


def label_points(
    axes: Any,
    across: Mapping[str, float],
    up: Mapping[str, float],
    colours: Mapping[str, str],
    *,
    otherwise: str,
    bold: str,
) -> None:
    """Write each name beside its point, where it covers no point, no other name and no end of the axes.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Already laid out; its first line, a horizontal one, is not written over either.
    across, up : mapping of str to float
        The points; those in `up` are labelled.
    colours : mapping of str to str
        Of the names.
    otherwise : str
        The colour of all other names and of the lines that join far labels to their points.
    bold : str
        The name that is placed first and stands out.
    """
    unit = 72 / axes.figure.dpi
    spots = {name: axes.transData.transform((across[name], up[name])) * unit for name in up}
    area = _Box(*(edge * unit for edge in (axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1)))
    line = axes.transData.transform((1, axes.lines[0].get_ydata()[0]))[1] * unit
    taken = [_Box(area.left, line - 1, area.right, line + 1)]
    taken += [_Box(x - POINT_RADIUS, y - POINT_RADIUS, x + POINT_RADIUS, y + POINT_RADIUS) for x, y in spots.values()]
    for name in sorted(spots, key=lambda one: (one != bold, spots[one][0])):
        candidates = {place: _box(spots[name], place, name) for place in PLACES}
        crowding = {
            place: (not box.inside(area), sum(box.overlap(other) for other in taken))
            for place, box in candidates.items()
        }
        place = min(PLACES, key=crowding.__getitem__)
        taken.append(candidates[place])
        joined = {"arrowstyle": "-", "color": otherwise, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            name,
            (across[name], up[name]),
            xytext=place,
            textcoords="offset points",
            ha=ALIGNMENTS[place[0]],
            va="center",
            fontsize=FONT_SIZE,
            color=colours.get(name, otherwise),
            fontweight="bold" if name == bold else "normal",
            in_layout=False,
            arrowprops=joined if abs(place[1]) > FAR else None,
        )


def _box(spot: Any, place: tuple[int, int], name: str) -> _Box:
    """Return what a name covers at a place beside its point."""
    width = CHARACTER_WIDTH * len(name) + 3
    left = float(spot[0]) + place[0] - {BESIDE: 0.0, -BESIDE: width, 0: width / 2}[place[0]]
    bottom = float(spot[1]) + place[1] - LINE_HEIGHT / 2
    return _Box(left, bottom, left + width, bottom + LINE_HEIGHT)
