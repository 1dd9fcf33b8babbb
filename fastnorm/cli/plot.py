"""Draw what the demo measured."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from fastnorm.cli.measure import DemoResult, NormResult, PipelineResult
from fastnorm.lab.plots import empty_figure

# Told apart also by readers who do not see red or green, and in grey; NumPy is the peer here.
FASTNORM_COLOUR, PEER_COLOUR = "#1f5f8b", "#d08b2e"
# Errors of exactly zero have no place on a log axis; they are drawn at its left end.
SMALLEST_ERROR = 1e-10
INCHES_PER_BAR = 0.27


def draw(result: DemoResult, path: str | pathlib.Path) -> None:
    """
    Draw the demo's result: speed-up and error of each norm, and the pipelines.

    Parameters
    ----------
    result : DemoResult
        What was measured, at least one norm.
    path : str or path-like
        The file to write; its suffix chooses the format, ``.png`` for one.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written.
    ValueError
        If the result has no norms, or matplotlib does not know the format.
    """
    if not result.norms:
        raise ValueError("draw: expected a result with at least one norm, got none")
    heights = [INCHES_PER_BAR * max(len(result.norms), 4)]
    if result.pipelines:
        heights.append(0.55 * len(result.pipelines))
    figure = empty_figure(14, sum(heights) + 0.6 + len(heights))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=(3, 2))
    # Fastest at the top: the axis counts upwards.
    norms = sorted(result.norms, key=lambda one: one.speedup)
    speeds = figure.add_subplot(grid[0, 0])
    _draw_speedups(speeds, norms)
    _draw_errors(figure.add_subplot(grid[0, 1], sharey=speeds), norms)
    if result.pipelines:
        _draw_pipelines(figure.add_subplot(grid[1, :]), result.pipelines)
    figure.suptitle(f"fastnorm against NumPy: {_where(result)}", fontsize=12)
    figure.savefig(path, dpi=110)


def _where(result: DemoResult) -> str:
    parts = [str(result.machine.get("processor", ""))]
    if "cpus" in result.machine:
        parts.append(f"{result.machine['cpus']} CPUs")
    parts += [
        f"{package} {result.versions[package]}" for package in ("fastnorm", "numpy") if package in result.versions
    ]
    return ", ".join(part for part in parts if part) or "this machine"


def _times(speedup: float) -> str:
    decimals = 2 if speedup < 1.995 else 1 if speedup < 9.95 else 0
    return f"{speedup:.{decimals}f}x"


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-5 else f"{seconds * 1e6:.1f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def _draw_bars(axes: Any, results: Sequence[NormResult | PipelineResult], time_text: Callable[[float], str]) -> None:
    """Draw bars that start at 1, NumPy's own speed, each with its speed-up and both times at its right."""
    positions = range(len(results))
    axes.barh(
        positions,
        [one.speedup - 1 for one in results],
        left=1,
        color=[FASTNORM_COLOUR if one.speedup >= 1 else PEER_COLOUR for one in results],
        height=0.7,
    )
    for position, one in zip(positions, results, strict=True):
        axes.annotate(
            _times(one.speedup),
            (max(one.speedup, 1), position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            fontweight="bold",
        )
        axes.annotate(
            f"{time_text(one.numpy_seconds)} → {time_text(one.fastnorm_seconds)}",
            (1, position),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 0),
            textcoords="offset points",
            va="center",
            ha="right",
            fontsize=8.5,
            color="0.3",
        )
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_ylim(-0.6, max(len(results), 1) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_speedups(axes: Any, norms: Sequence[NormResult]) -> None:
    _draw_bars(axes, norms, _microseconds)
    axes.set_yticks(range(len(norms)), [one.name for one in norms], fontsize=8.5)
    axes.set_xscale("log")
    speedups = [one.speedup for one in norms]
    low, high = min(0.8, *speedups) * 0.95, max(2.0, *speedups)
    # The times stand in a column at the right, clear of the longest bar.
    axes.set_xlim(low, high * (high / low) ** 0.35)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= tick <= high * 1.1]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_title("Speed-up; at the right NumPy → fastnorm in microseconds", fontsize=10, loc="left")


def _draw_errors(axes: Any, norms: Sequence[NormResult]) -> None:
    positions = range(len(norms))
    numpy_errors = [max(one.numpy_error, SMALLEST_ERROR) for one in norms]
    fastnorm_errors = [max(one.fastnorm_error, SMALLEST_ERROR) for one in norms]
    axes.hlines(positions, numpy_errors, fastnorm_errors, color="0.8", linewidth=1.5, zorder=1)
    # Larger below, so that it stays visible where both are equally far from float64.
    axes.scatter(numpy_errors, positions, color=PEER_COLOUR, s=46, label="NumPy", zorder=2)
    axes.scatter(fastnorm_errors, positions, color=FASTNORM_COLOUR, s=16, label="fastnorm", zorder=3)
    axes.set_xscale("log")
    axes.tick_params(axis="y", labelleft=False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Worst error against float64", fontsize=10, loc="left")
    axes.legend(
        fontsize=8.5,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        borderaxespad=0.1,
        handletextpad=0.1,
    )


def _draw_pipelines(axes: Any, pipelines: Sequence[PipelineResult]) -> None:
    # As in the table, the first at the top.
    shown = list(reversed(pipelines))
    _draw_bars(axes, shown, _milliseconds)
    labels = []
    for one in shown:
        label = f"{one.name}\n{one.norm_share:.0%} of NumPy's time in norms"
        if one.fastnorm_accuracy is not None:
            label += f"; {one.fastnorm_accuracy:.1%} right"
        labels.append(label)
    axes.set_yticks(range(len(shown)), labels, fontsize=8.5)
    speedups = [one.speedup for one in shown] or [1.0]
    low, high = min(0.95, *speedups), max(1.5, *speedups)
    axes.set_xlim(low - 0.02, high + (high - low) * 0.35)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_title(
        "Pipelines end to end, matrix products included; at the right NumPy → fastnorm in milliseconds",
        fontsize=10,
        loc="left",
    )
