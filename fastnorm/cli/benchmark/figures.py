"""One figure of a run: a roofline, speed-ups by operation, and what the dispatcher chooses."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Sequence
from statistics import geometric_mean
from typing import Any

from fastnorm.cli.benchmark.choices import draw_choices
from fastnorm.cli.benchmark.libraries import FASTNORM
from fastnorm.cli.benchmark.results import CellResult, Results, ratios_of
from fastnorm.cli.plot import FASTNORM_COLOUR, PEER_COLOUR
from fastnorm.cli.printing import plural
from fastnorm.lab.plots import FAINT, INK, LOOK, empty_figure, import_matplotlib

# Where the numbers beside the bars stand, and how they are aligned.
COLUMNS = ((0.855, "right"), (1.0, "right"))
STYLE = LOOK | {"font.size": 9.5, "grid.color": "0.92", "axes.titleweight": "bold"}


def draw(results: Results, path: str | pathlib.Path) -> None:
    """
    Draw a run into a file.

    Parameters
    ----------
    results : Results
        What was measured.
    path : str or path-like
        The file to write; its suffix chooses the format, ``.png`` and ``.svg`` for two.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written.
    ValueError
        If fastnorm has no times, or matplotlib does not know the format.
    """
    if all(one.fastnorm is None for one in results.cells):
        raise ValueError("draw: expected a cell with a time of fastnorm, got none")
    with import_matplotlib("matplotlib").rc_context(STYLE):
        figure = empty_figure(14, 8.6)
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
        grid = figure.add_gridspec(2, 2, width_ratios=(1.18, 1))
        _draw_roofline(figure.add_subplot(grid[:, 0]), results)
        if results.compared:
            _draw_speedups(figure.add_subplot(grid[0, 1]), results)
        draw_choices(grid[1, 1] if results.compared else grid[:, 1], results)
        figure.suptitle(_title(results), x=0.012, ha="left", fontsize=12)
        figure.savefig(path, dpi=120, facecolor="white")


def _title(results: Results) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in results.versions.items() if name != "python")
    where = results.machine.get("processor", "this machine")
    return f"fastnorm bench: {where}, {plural(results.threads, 'thread')}\n{packages}"


def _draw_roofline(axes: Any, results: Results) -> None:
    """Bytes a second against bytes: the limit as lines, fastnorm and the best peer of a cell joined by a thin one."""
    axes.set(xscale="log", yscale="log")
    timed = [one for one in results.cells if one.fastnorm is not None]
    for written, text, dashes in ((True, "copy", "solid"), (False, "read", (0, (4, 2)))):
        limits = _limits(one for one in timed if one.cell.written is written)
        if limits:
            axes.plot(*zip(*limits, strict=True), color=INK, linewidth=1.2, linestyle=dashes, alpha=0.75, zorder=2,
                      label=f"limit of memory: {text}")  # fmt: skip
    for one in timed:
        if one.fastnorm is not None and one.best_peer is not None:
            speeds = [one.bandwidth(one.fastnorm), one.bandwidth(one.seconds[one.best_peer])]
            axes.plot([one.cell.bytes] * 2, speeds, color=FAINT, linewidth=0.9, alpha=0.6, zorder=1)
    compared = [one for one in timed if one.best_peer is not None]
    axes.scatter(
        [one.cell.bytes for one in compared],
        [one.bandwidth(one.seconds[one.best_peer or ""]) for one in compared],
        marker="D", s=34, facecolor="white", edgecolor=PEER_COLOUR, linewidth=1.6, zorder=3, label="best peer",
    )  # fmt: skip
    axes.scatter(
        [one.cell.bytes for one in timed],
        [one.bandwidth(one.fastnorm or math.nan) for one in timed],
        s=42, color=FASTNORM_COLOUR, edgecolor="white", linewidth=0.6, zorder=4, label=FASTNORM,
    )  # fmt: skip
    axes.xaxis.set_major_formatter(lambda value, _: _size(value))
    axes.set_xticks([1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9])
    smallest, largest = min(one.cell.bytes for one in timed), max(one.cell.bytes for one in timed)
    axes.set_xlim(smallest / 2, largest * 2)
    low, high = axes.get_ylim()
    ticks = [step * 10.0**power for power in range(-5, 6) for step in (1, 2, 5)]
    axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.grid(True)
    axes.set(xlabel="bytes that a call must move", ylabel="GB/s")
    axes.set_title("How near to memory: GB/s against the bytes of a cell", pad=26)
    # In the order of importance, above the axes, where no point can be.
    handles, labels = axes.get_legend_handles_labels()
    shown = [FASTNORM, *(["best peer"] if compared else []), *(one for one in labels if one.startswith("limit"))]
    order = [labels.index(one) for one in shown]
    axes.legend(
        [handles[one] for one in order], shown, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=4,
        borderaxespad=0.2, handletextpad=0.5, columnspacing=1.5,
    )  # fmt: skip


def _limits(cells: Iterable[CellResult]) -> list[tuple[int, float]]:
    """Return bytes and GB/s of the limit, the best where several cells are about as large."""
    best: dict[int, tuple[float, int]] = {}
    for one in cells:
        if one.limit is not None:
            found = (one.bandwidth(one.limit), one.cell.bytes)
            size = round(math.log2(one.cell.bytes))
            best[size] = max(found, best.get(size, found))
    return sorted((size, bandwidth) for bandwidth, size in best.values())


def _size(value: float) -> str:
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g} B"


def _draw_speedups(axes: Any, results: Results) -> None:
    """Bars from 1, where the best peer is as fast, to the geometric mean; the cells as dots."""
    kinds = sorted(results.by_kind().items(), key=lambda item: geometric_mean(ratios_of(item[1])))
    for place, (_, cells) in enumerate(kinds):
        _draw_bar(axes, place, cells)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(kinds)), [kind for kind, _ in kinds])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(kinds) - 0.4)
    axes.set_xscale("log")
    found = ratios_of(results.compared)
    low, high = min(0.8, *found) / 1.15, max(1.25, *found) * 1.15
    # The numbers stand in a column at the right, clear of everything.
    axes.set_xlim(low, high * (high / low) ** 0.3)
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x")
    axes.set_title("Speed-up: best peer's time / fastnorm's", pad=26)
    axes.set_xlabel("bars: geometric means; dots: cells; orange: a peer is ahead")
    for (column, alignment), text in zip(COLUMNS, ("mean", "ahead in"), strict=True):
        axes.annotate(text, (column, 1), xytext=(0, 5), xycoords="axes fraction", textcoords="offset points",
                      ha=alignment, fontsize=9)  # fmt: skip


def _draw_bar(axes: Any, place: int, cells: Sequence[CellResult]) -> None:
    found = ratios_of(cells)
    mean = geometric_mean(found)
    axes.barh(
        place, mean - 1, left=1, height=0.62, color=FASTNORM_COLOUR if mean >= 1 else PEER_COLOUR, alpha=0.38, zorder=2
    )
    colours = [FASTNORM_COLOUR if ratio >= 1 else PEER_COLOUR for ratio in found]
    axes.scatter(found, [place] * len(found), s=22, color=colours, edgecolor="white", linewidth=0.6, zorder=3)
    ahead = sum(ratio >= 1 for ratio in found)
    texts = (f"{min(mean, 0.99) if mean < 1 else mean:.2f}x", f"{ahead} of {len(found)}")
    for (column, alignment), text in zip(COLUMNS, texts, strict=True):
        axes.text(column, place, text, transform=axes.get_yaxis_transform(), va="center", ha=alignment, fontsize=9)
