"""What the numbers say, in plain sentences; each is computed from the results."""

import math
from collections.abc import Sequence

from fastnorm.lab.results import Results, Row
from fastnorm.lab.scores import best
from fastnorm.lab.tables import LAYER_NORM_TOLERANCE

FAILED = 1.0  # digits: below one, not even the first is right
NAMED = 5  # of many data sets, those that a sentence lists


def findings(results: Results) -> list[str]:
    """Return all that is worth saying: `auto` beside its peers, bounds, failures, and what is missing.

    Parameters
    ----------
    results : Results
        What `run` returned.

    Returns
    -------
    list of str
        Sentences.

    Examples
    --------
    >>> from fastnorm import lab
    >>> data = [lab.numacc("NumAcc4")]
    >>> results = lab.run(data, dtypes=["float64"], peers=False, speed=False, curves=False)
    >>> from fastnorm.lab.findings import findings
    >>> findings(results) == lab.failures(results)  # alone, without sweeps
    True
    """
    said = [*comparisons(results), *bounds(results), *failures(results)]
    said += [f"Not measured: {reason}." for reason in results.skipped]
    if results.missing:
        said.append(f"Not installed, so not compared: {', '.join(results.missing)}.")
    return said


def failures(results: Results) -> list[str]:
    """Say which algorithm or peer gets less than one digit of the standard deviation right, and where.

    Examples
    --------
    >>> from fastnorm import lab
    >>> data = [lab.numacc("NumAcc4")]
    >>> results = lab.run(data, dtypes=["float64"], peers=False, speed=False, curves=False)
    >>> lab.failures(results)
    ['naive fails on NumAcc4 (float64): 0 digits of the sd are right; it came out as no finite number.']
    """
    said: list[str] = []
    nobody: dict[str, dict[str, None]] = {}
    failed: dict[str, dict[tuple[str, str], Row]] = {}
    for row in results.rows:
        losers = [name for name, score in row.scores.items() if score.sd_digits < FAILED <= row.sd_ceiling]
        if len(losers) == len(row.scores) > 1:
            nobody.setdefault(row.dtype, {})[row.dataset] = None
            continue
        for name in losers:
            failed.setdefault(name, {}).setdefault((row.dataset, row.dtype), row)
    total = len({(row.dataset, row.dtype) for row in results.rows})
    for name in [*results.algorithms, *results.peers]:
        places = failed.get(name, {})
        if len(places) == 1:
            ((dataset, dtype), row), *_ = places.items()
            score = row.scores[name]
            why = (
                "; it came out as no finite number"
                if not math.isfinite(score.sd)
                else f"; it came out as {score.sd:.3g}"
            )
            said.append(f"{name} fails on {dataset} ({dtype}): 0 digits of the sd are right{why}.")
        elif places:
            by_dtype = [
                f"{dtype}: {_shortened([dataset for dataset, kind in places if kind == dtype])}"
                for dtype in results.dtypes
                if any(kind == dtype for _, kind in places)
            ]
            said.append(
                f"{name} fails on {len(places)} of {total} lines, 0 digits of the sd are right ({'; '.join(by_dtype)})."
            )
    for dtype, names in nobody.items():
        said.append(f"{dtype}: nobody gets a digit of the sd right on {_shortened(list(names))}.")
    return said


def _shortened(names: Sequence[str]) -> str:
    if len(names) <= NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def lost_rows(results: Results, dtype: str) -> list[str]:
    """Return where a peer beats `auto` in one dtype: empty if `auto` wins or ties every row, mean and sd.

    Examples
    --------
    >>> from fastnorm import lab
    >>> data = [lab.numacc("NumAcc4")]
    >>> results = lab.run(data, dtypes=["float64"], peers=False, speed=False, curves=False)
    >>> lab.lost_rows(results, "float64")
    []
    """
    lost = []
    for row in results.rows:
        rivals = [name for name in results.peers if name in row.scores]
        if row.dtype != dtype or "auto" not in row.scores or not rivals:
            continue
        for what in ("mean", "sd"):
            digits = {name: getattr(row.scores[name], f"{what}_digits") for name in ("auto", *rivals)}
            winners = best(digits, larger=True)
            if winners and "auto" not in winners:
                first = max(rivals, key=lambda name: digits[name])
                lost.append(f"{what} of {row.label}: auto {digits['auto']:.1f}, {first} {digits[first]:.1f} digits")
    return lost


def comparisons(results: Results) -> list[str]:
    """Say for each dtype whether `auto` wins or ties every row against the peers, and the same of layer_norm.

    Examples
    --------
    >>> from fastnorm import lab
    >>> data = [lab.numacc("NumAcc4")]
    >>> results = lab.run(data, dtypes=["float64"], peers=False, speed=False, curves=False)
    >>> lab.comparisons(results)  # with nobody
    []
    """
    said = []
    for dtype in results.dtypes:
        rows = [row for row in results.rows if row.dtype == dtype]
        if rows and results.peers and "auto" in results.algorithms:
            lost = lost_rows(results, dtype)
            said.append(
                f"{dtype}: auto wins or ties {_share(2 * len(rows), len(lost), 'score')} of mean and sd against "
                f"{_list(results.peers)}{_but(lost)}."
            )
        norms = [row for row in results.layer_norm if row.dtype == dtype and len(row.errors) > 1]
        if norms:
            lost = []
            for one in norms:
                if "fastnorm" not in best(one.errors, larger=False, tolerance=LAYER_NORM_TOLERANCE):
                    first = min(one.errors, key=lambda name: one.errors[name])
                    lost.append(
                        f"{one.dataset}: fastnorm {one.errors['fastnorm']:.1f}, {first} {one.errors[first]:.1f}"
                    )
            said.append(
                f"{dtype}: fastnorm.layer_norm wins or ties {_share(len(norms), len(lost), 'row')} against "
                f"{_list(results.layer_norm_peers)}{_but(lost)}."
            )
    return said


def _share(total: int, lost: int, noun: str) -> str:
    if not lost:
        return f"every one of {total} {noun}s" if total > 1 else f"the only {noun}"
    return f"{total - lost} of {total} {noun}s"


def _but(lost: Sequence[str]) -> str:
    return f"; not {'; '.join(lost)}" if lost else ""


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def bounds(results: Results) -> list[str]:
    """Say whether every measured error lies below its theoretical bound.

    Examples
    --------
    >>> from fastnorm import lab
    >>> data = [lab.numacc("NumAcc4")]
    >>> results = lab.run(data, dtypes=["float32"], algorithms=["auto"], peers=False, speed=False, quick=True)
    >>> lab.bounds(results)
    ['All ... errors of the sweeps lie below their theoretical bounds (Chan, Golub and LeVeque 1983).']
    """
    above, points = [], 0
    for curve in [*results.against_kappa, *results.against_n]:
        # From 1 on a bound promises nothing, so nothing can break it.
        promised = [(error, bound) for error, bound in zip(curve.error, curve.bound, strict=True) if bound < 1]
        points += len(promised)
        if any(not error <= bound for error, bound in promised):
            above.append(f"{curve.algorithm} ({curve.dtype})")
    if not points:
        return []
    if above:
        return [f"Errors above their theoretical bound: {', '.join(dict.fromkeys(above))}."]
    return [f"All {points} errors of the sweeps lie below their theoretical bounds (Chan, Golub and LeVeque 1983)."]
