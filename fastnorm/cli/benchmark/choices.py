"""A heat map of what the dispatcher chooses, over rows and their length."""

from __future__ import annotations

from typing import Any

import fastnorm
from fastnorm.cli.benchmark.results import Results
from fastnorm.cli.printing import plural
from fastnorm.lab.plots import import_matplotlib

Choice = tuple[str, int]  # the backend, and the threads it gives the call

OPS = ("layer_norm", "batch_norm", "moments")
ROW_POWERS, LENGTH_POWERS = range(21), range(3, 21)
LARGEST_POWER = 30  # elements; what is larger is left blank
# From light to dark in the order of appearance: few choices there are, and grey tells them apart as well.
COLOURS = ("#d6e6f2", "#1f5f8b", "#f3d9ae", "#d08b2e", "#cfd2d6", "#6b7178", "#eac9dc", "#a4547f")


def choices(op: str, threads: int) -> dict[tuple[int, int], Choice]:
    """Return what the dispatcher chooses for float32.

    Parameters
    ----------
    op : str
        A function of fastnorm.
    threads : int
        As many as a call may use.

    Returns
    -------
    dict of (int, int) to (str, int)
        Backend and threads, by the powers of two of rows and of length.
    """
    found = {}
    with fastnorm.config(num_threads=threads):
        for rows in ROW_POWERS:
            for length in LENGTH_POWERS:
                if rows + length <= LARGEST_POWER:
                    one = fastnorm.explain(op, (2**rows, 2**length))
                    found[rows, length] = (one.backend, one.threads)
    return found


def grouped(threads: int) -> dict[str, dict[tuple[int, int], Choice]]:
    """Return the distinct maps; functions for which the choice is the same share one."""
    maps: dict[str, dict[tuple[int, int], Choice]] = {}
    for op in OPS:
        one = choices(op, threads)
        same = next((names for names, other in maps.items() if other == one), None)
        if same is not None:
            maps[f"{same}, {op}"] = maps.pop(same)
        else:
            maps[op] = one
    return maps


def _name(choice: Choice) -> str:
    backend, threads = choice
    return f"{backend}, {plural(threads, 'thread')}"


def draw_choices(place: Any, results: Results) -> None:
    """Draw the maps side by side.

    Parameters
    ----------
    place : matplotlib.gridspec.SubplotSpec
        Where.
    results : Results
        The run.
    """
    colours = import_matplotlib("matplotlib.colors")
    patches = import_matplotlib("matplotlib.patches")
    maps = grouped(results.threads)
    kinds = sorted({choice for one in maps.values() for choice in one.values()})
    shades = [COLOURS[number % len(COLOURS)] for number in range(len(kinds))]
    panels = place.subgridspec(1, len(maps)).subplots(sharey=True, squeeze=False)[0]
    for axes, (names, found) in zip(panels, maps.items(), strict=True):
        blank = float("nan")
        values = [
            [kinds.index(found[rows, length]) if (rows, length) in found else blank for length in LENGTH_POWERS]
            for rows in ROW_POWERS
        ]
        extent = (LENGTH_POWERS[0] - 0.5, LENGTH_POWERS[-1] + 0.5, ROW_POWERS[0] - 0.5, ROW_POWERS[-1] + 0.5)
        axes.imshow(values, origin="lower", extent=extent, aspect="auto", interpolation="nearest", vmin=-0.5,
                    vmax=len(kinds) - 0.5, cmap=colours.ListedColormap(shades))  # fmt: skip
        axes.set_xticks(range(4, 21, 4), [_power(power) for power in range(4, 21, 4)])
        axes.set_yticks(range(0, 21, 4), [_power(power) for power in range(0, 21, 4)])
        axes.tick_params(length=2)
        axes.set_xlabel("length of a row")
        # In the corner that is blank.
        listed = names.replace(", ", "\n")
        axes.text(0.98, 0.96, listed, transform=axes.transAxes, ha="right", va="top", fontsize=9, linespacing=1.3)
    panels[0].set_ylabel("rows")
    panels[0].set_title("What the dispatcher chooses for float32", pad=24)
    handles = [patches.Patch(color=shade, label=_name(kind)) for shade, kind in zip(shades, kinds, strict=True)]
    panels[0].legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=min(4, len(handles)),
                     borderaxespad=0.2, handlelength=1.1, handleheight=1.1, columnspacing=1.5)  # fmt: skip


def _power(power: int) -> str:
    """Write a power of two as people do: 16, 4k, 1M."""
    if power >= 20:
        return f"{2 ** (power - 20)}M"
    return f"{2 ** (power - 10)}k" if power >= 10 else str(2**power)
