"""Three figures of an experiment: error against kappa, error against n, accuracy against speed."""

from __future__ import annotations

import importlib
import io
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastnorm.lab.labels import label_points, spread
from fastnorm.lab.results import Curve, Results
from fastnorm.lab.scores import all_digits

# Okabe and Ito's colours, told apart also by readers who do not see red or green; legible on white and on black.
DTYPE_COLOURS = {"float16": "#cc79a7", "float32": "#d55e00", "float64": "#0072b2"}
ALGORITHM_COLOURS = {
    "auto": "#d55e00",
    "welford": "#0072b2",
    "two_pass": "#56b4e9",
    "corrected_two_pass": "#009e73",
    "naive": "#8c8c8c",
    "shifted": "#b07c00",
    "pairwise": "#cc79a7",
    "compensated": "#7a5195",
}
PEER_COLOUR = "#8c8c8c"
# In a page both are replaced: by the colour of its text, which follows the reader's light or dark theme.
INK, FAINT = "#1b1e23", "#7f868f"
# What all figures of the library look like, and the grid of these.
LOOK = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
}
GRID = {"axes.grid": True, "grid.color": FAINT, "grid.alpha": 0.22, "grid.linewidth": 0.7}
# Errors below have no place on the axis and are drawn at its end, as are those above: no digit is right there.
SMALLEST_ERROR, LARGEST_ERROR = 1e-18, 10.0


def require_matplotlib() -> None:
    """Raise an ImportError that says what to install if matplotlib is missing."""
    import_matplotlib("matplotlib")


def import_matplotlib(module: str) -> Any:
    """Return matplotlib or a module of it; the ImportError where it is missing says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"figures are drawn by matplotlib, which could not be imported ({error}): pip install 'fastnorm[demo]'"
        ) from error


@contextmanager
def _style() -> Iterator[None]:
    matplotlib = import_matplotlib("matplotlib")
    with matplotlib.rc_context(LOOK | GRID):
        yield


def empty_figure(width: float, height: float) -> Any:
    """Return a figure of so many inches with nothing in it."""
    figure = import_matplotlib("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    # Drawn on Agg's canvas: needs no display, and leaves the process's choice of backend alone.
    import_matplotlib("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def _clipped(errors: Sequence[float]) -> list[float]:
    return [LARGEST_ERROR if math.isnan(error) else min(max(error, SMALLEST_ERROR), LARGEST_ERROR) for error in errors]


def _mark_lost_digits(axes: Any) -> None:
    """Shade where the error is as large as the variance."""
    axes.axhspan(1, LARGEST_ERROR * 10, color=FAINT, alpha=0.13, linewidth=0)


def _against_kappa(results: Results) -> Any:
    names = [name for name in results.algorithms if any(curve.algorithm == name for curve in results.against_kappa)]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = empty_figure(3.1 * columns + 0.6, 2.75 * rows + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _mark_lost_digits(axes)
        for curve in results.against_kappa:
            if curve.algorithm == name:
                _draw_with_bound(axes, curve)
        axes.set_title(name, fontweight="bold" if name == "auto" else "normal")
        axes.set(xscale="log", yscale="log", ylim=(SMALLEST_ERROR, LARGEST_ERROR * 10))
        axes.set_xlim(0.7, 1.5 * max(max(curve.at) for curve in results.against_kappa))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    dtypes = [dtype for dtype in results.dtypes if any(curve.dtype == dtype for curve in results.against_kappa)]
    lines = import_matplotlib("matplotlib.lines").Line2D
    handles = [
        lines([], [], color=DTYPE_COLOURS[one], marker="o", markersize=4.5, linestyle="", label=one) for one in dtypes
    ]
    handles.append(lines([], [], color=FAINT, linewidth=1.6, label="its theoretical bound"))
    patch = import_matplotlib("matplotlib.patches").Patch
    handles.append(patch(color=FAINT, alpha=0.2, linewidth=0, label="no digit is right"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handletextpad=0.5, columnspacing=1.6)
    figure.supxlabel(f"condition number kappa of a line of {results.kappa_count:,} values", fontsize=10, color=INK)
    figure.supylabel("relative error of the variance", fontsize=10, color=INK)
    return figure


def _draw_with_bound(axes: Any, curve: Curve) -> None:
    colour = DTYPE_COLOURS[curve.dtype]
    axes.plot(curve.at, curve.bound, color=colour, linewidth=1.6, alpha=0.75, solid_capstyle="butt")
    axes.plot(
        curve.at, _clipped(curve.error), color=colour, marker="o", markersize=3.6, linestyle="", markeredgewidth=0,
        clip_on=False,
    )  # fmt: skip


def _against_n(results: Results) -> Any:
    dtypes = [dtype for dtype in results.dtypes if any(curve.dtype == dtype for curve in results.against_n)]
    figure = empty_figure(5.2 * len(dtypes) + 0.4, 4.6)
    for axes, dtype in zip(figure.subplots(1, len(dtypes), squeeze=False).ravel(), dtypes, strict=True):
        curves = [curve for curve in results.against_n if curve.dtype == dtype]
        for curve in curves:
            axes.plot(
                curve.at,
                [
                    math.nan if error == 0 else shown
                    for error, shown in zip(curve.error, _clipped(curve.error), strict=True)
                ],
                color=ALGORITHM_COLOURS[curve.algorithm],
                linewidth=2.6 if curve.algorithm == "auto" else 1.4,
                zorder=3 if curve.algorithm == "auto" else 2,
            )
        errors = [error for curve in curves for error in _clipped(curve.error) if error > SMALLEST_ERROR]
        if max(errors) > 1:
            _mark_lost_digits(axes)
        axes.set(xscale="log", yscale="log", ylim=(min(errors) / 4, max(errors) * 4))
        axes.set_xlabel("number of values n")
        axes.set_title(dtype)
        low, high = axes.get_ylim()
        right = curves[0].at[-1]
        for name, height in spread(
            {curve.algorithm: min(max(_clipped(curve.error)[-1], low), high) for curve in curves}, low, high, 0.05
        ).items():
            axes.annotate(
                name, (right, height), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9,
                color=ALGORITHM_COLOURS[name], fontweight="bold" if name == "auto" else "normal", annotation_clip=False,
            )  # fmt: skip
    figure.axes[0].set_ylabel(f"relative error of the variance at kappa = {results.n_kappa:g}")
    return figure


def _against_speed(results: Results) -> Any:
    dtypes = [
        dtype
        for dtype in results.dtypes
        if results.nanoseconds.get(dtype) and any(row.dtype == dtype for row in results.rows)
    ]
    figure = empty_figure(5.2 * len(dtypes) + 0.4, 5.0)
    panels = figure.subplots(1, len(dtypes), squeeze=False).ravel()
    for axes, dtype in zip(panels, dtypes, strict=True):
        times, digits, top = results.nanoseconds[dtype], results.mean_digits(dtype), all_digits(dtype)
        axes.axhline(top, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for name, score in digits.items():
            axes.scatter(
                times[name],
                score,
                s=80 if name == "auto" else 46,
                marker="s" if name in results.peers else "o",
                color=_colour(name),
                linewidth=0,
                zorder=3,
            )
        low, fastest, slowest = min(digits.values()), min(times.values()), max(times.values())
        axes.set(xscale="log", xlim=(fastest / 1.6, slowest * 1.6))
        axes.set_ylim(low - 0.1 * (top - low) - 0.02 * top, top + 0.1 * (top - low) + 0.02 * top)
        axes.set_xlabel("nanoseconds an element (left is faster)")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_title(dtype)
    figure.axes[0].set_ylabel("right digits of the sd, mean of all data sets")
    lines = import_matplotlib("matplotlib.lines").Line2D
    styles: list[dict[str, Any]] = [
        {"marker": "o", "linestyle": "", "color": ALGORITHM_COLOURS["auto"], "label": "algorithm of fastnorm.moments"},
        {"marker": "s", "linestyle": "", "color": PEER_COLOUR, "label": "peer"},
        {"linestyle": (0, (4, 3)), "linewidth": 1, "color": FAINT, "label": "all digits of the dtype"},
    ]
    figure.legend(handles=[lines([], [], **style) for style in styles], loc="outside upper left", ncols=len(styles))
    figure.draw_without_rendering()  # now the axes have their size
    for axes, dtype in zip(panels, dtypes, strict=True):
        label_points(
            axes,
            results.nanoseconds[dtype],
            results.mean_digits(dtype),
            ALGORITHM_COLOURS,
            otherwise=FAINT,
            bold="auto",
        )
    return figure


def _colour(name: str) -> str:
    return ALGORITHM_COLOURS.get(name, PEER_COLOUR)


FIGURES: dict[str, Callable[[Results], Any]] = {
    "kappa": _against_kappa,
    "n": _against_n,
    "speed": _against_speed,
}


def draw(results: Results) -> dict[str, Any]:
    """Draw all figures that the results have numbers for.

    Parameters
    ----------
    results : Results
        What `run` returned.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        "kappa", "n" and "speed".

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    wanted = {"kappa": results.against_kappa, "n": results.against_n, "speed": results.nanoseconds and results.rows}
    with _style():
        return {name: FIGURES[name](results) for name, numbers in wanted.items() if numbers}


def save(results: Results, path: str | pathlib.Path) -> list[pathlib.Path]:
    """Write all figures to files.

    Parameters
    ----------
    results : Results
        What `run` returned.
    path : str or path-like
        Its suffix chooses the format, ``.png`` and ``.svg`` for two; before it comes "-kappa", "-n" or "-speed".

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    OSError
        A file cannot be written.
    ValueError
        matplotlib does not know the format.
    """
    path = pathlib.Path(path)
    written = []
    for name, figure in draw(results).items():
        target = path.with_name(f"{path.stem}-{name}{path.suffix}")
        with _style():
            figure.savefig(target, dpi=140, facecolor="white")
        written.append(target)
    return written


def inline_svg(figure: Any, prefix: str) -> str:
    """Return a figure as an SVG element to stand inside a page, in the colours of the page's text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        One of `draw`.
    prefix : str
        Put before every id, so that several figures can share a page.

    Returns
    -------
    str
        From ``<svg`` on.
    """
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for before in ('id="', "url(#", 'xlink:href="#'):
        text = text.replace(before, before + prefix)
    return text.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
