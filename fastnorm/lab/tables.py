"""Results as tables of text, for the terminal and for the report."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastnorm.lab.results import Results, Row, Score
from fastnorm.lab.scores import CORRECTLY_ROUNDED, best

# Layer norms tie within one unit roundoff: as much as the rounding of y alone makes.
LAYER_NORM_TOLERANCE = 1.0
# Times are told apart from 5% on.
TIME_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """The text of a cell, and whether it is the best of its row or ties with it."""

    text: str
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes
    ----------
    title, note : str
        What stands above it, and what its numbers mean.
    headers : list of str
        Of the columns.
    rows : list of list of Cell
        As many cells as headers.
    labels : int
        How many columns at the left describe the row.
    """

    title: str
    note: str
    headers: list[str]
    rows: list[list[Cell]]
    labels: int


def tables(results: Results) -> list[Table]:
    """Return all tables of an experiment.

    Parameters
    ----------
    results : Results
        What `run` returned.

    Returns
    -------
    list of Table
        For each dtype digits of sd and mean and units in the last place of sd; then layer norms and times.

    Examples
    --------
    >>> from fastnorm import lab
    >>> data = [lab.numacc("NumAcc4")]
    >>> results = lab.run(data, dtypes=["float64"], peers=False, speed=False, curves=False)
    >>> [table.title for table in lab.tables(results)][:2]
    ['Standard deviation, float64: digits that are right', 'Mean, float64: digits that are right']
    """
    found = []
    for dtype in results.dtypes:
        rows = [row for row in results.rows if row.dtype == dtype]
        if not rows:
            continue
        found += [
            _scores(
                results,
                rows,
                f"Standard deviation, {dtype}: digits that are right",
                "Log relative error, from 0 to all digits of the dtype; the more the better.",
                lambda score: score.sd_digits,
                lambda score: "nan" if math.isnan(score.sd) else f"{score.sd_digits:.2f}",
            ),
            _scores(
                results,
                rows,
                f"Mean, {dtype}: digits that are right",
                "Log relative error, from 0 to all digits of the dtype; the more the better.",
                lambda score: score.mean_digits,
                lambda score: "nan" if math.isnan(score.mean) else f"{score.mean_digits:.2f}",
            ),
            _scores(
                results,
                [row for row in rows if row.truth == "stored"],
                f"Standard deviation, {dtype}: error in units in the last place",
                f"Units of {dtype} at the exact value; all up to half a unit tie.",
                # What has no right digit wins nothing, though all may be equally wrong.
                lambda score: max(score.sd_ulps, CORRECTLY_ROUNDED) if score.sd_digits else math.inf,
                lambda score: _units(score.sd_ulps),
                larger=False,
            ),
        ]
    found += _layer_norms(results)
    found += _times(results)
    return found


def _scores(
    results: Results,
    rows: list[Row],
    title: str,
    note: str,
    value: Callable[[Score], float],
    text: Callable[[Score], str],
    larger: bool = True,
) -> Table:
    names = [*results.algorithms, *results.peers]
    cells = []
    for row in rows:
        scores = {name: value(score) for name, score in row.scores.items()}
        winners = best(scores, larger=larger)
        cells.append(
            [Cell(row.label), Cell(f"{row.count:,}"), Cell(_power(row.kappa))]
            + [Cell(text(row.scores[name]), name in winners) if name in row.scores else Cell("") for name in names]
        )
    return Table(title, note, ["data", "n", "kappa", *names], cells, 3)


def _layer_norms(results: Results) -> list[Table]:
    if not results.layer_norm:
        return []
    names = ["fastnorm", *results.layer_norm_peers]
    cells = []
    for row in results.layer_norm:
        winners = best(row.errors, larger=False, tolerance=LAYER_NORM_TOLERANCE)
        cells.append(
            [Cell(row.dataset), Cell(row.dtype)]
            + [Cell(_units(row.errors[name]), name in winners) if name in row.errors else Cell("") for name in names]
        )
    rows, width = results.layer_norm[0].shape
    note = f"Largest |y - exact| / (u max(1, |exact|)) of {rows} rows of {width}; less than one unit apart ties."
    return [Table("layer_norm: worst error in units of the roundoff u", note, ["data", "dtype", *names], cells, 2)]


def _times(results: Results) -> list[Table]:
    found = []
    for title, note, names, measured in (
        (
            "Mean and standard deviation: nanoseconds an element",
            f"A line of {results.timed_count:,} values; medians of interleaved rounds, a twentieth apart ties.",
            [*results.algorithms, *results.peers],
            results.nanoseconds,
        ),
        (
            "layer_norm: nanoseconds an element",
            f"{results.timed_shape[0]} rows of {results.timed_shape[1]}; medians of interleaved rounds.",
            ["fastnorm", *results.layer_norm_peers],
            results.layer_norm_nanoseconds,
        ),
    ):
        cells = []
        for dtype, times in measured.items():
            winners = best(times, larger=False, tolerance=TIME_TOLERANCE * min(times.values()))
            cells.append(
                [Cell(dtype)]
                + [Cell(_units(times[name], 2), name in winners) if name in times else Cell("") for name in names]
            )
        if cells:
            found.append(Table(title, note, ["dtype", *names], cells, 1))
    return found


def _power(kappa: float) -> str:
    return "inf" if math.isinf(kappa) else f"{kappa:.0e}" if kappa >= 100 else f"{kappa:.1f}"


def _units(value: float, decimals: int = 1) -> str:
    if math.isinf(value) or math.isnan(value):
        return "inf"
    return f"{value:.{decimals}f}" if value < 1000 else f"{value:.0e}"
