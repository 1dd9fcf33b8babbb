"""Every algorithm of `fastnorm.moments` and every installed peer, on every data set, in every dtype."""

import datetime
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

import fastnorm
from fastnorm.inspection import configuration
from fastnorm.lab import datasets, layer_norms, sweeps
from fastnorm.lab.datasets import Dataset
from fastnorm.lab.exact import ExactMoments, as_float, exact_moments
from fastnorm.lab.peers import LAYER_NORM_PEERS, VARIANCE_PEERS, Peer, installed, versions
from fastnorm.lab.results import Results, Row, Score
from fastnorm.lab.scores import all_digits, log_relative_error, units_in_last_place
from fastnorm.lab.timing import interleaved
from fastnorm.stats.moments import Algorithm

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]

ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
DTYPES = ("float16", "float32", "float64")
# Where a family is measured: no loss, half of the digits at stake, nearly all of them.
KAPPAS: dict[str, tuple[float, ...]] = {
    "float16": (1.0, 1e1, 1e2),
    "float32": (1.0, 1e3, 1e6),
    "float64": (1.0, 1e7, 1e14),
}
FAMILY_COUNT, TIMED_COUNT, TIMED_SHAPE = 1000, 20_000, (64, 768)


def default_datasets(dtype: str, *, quick: bool = False, seed: int = 0) -> list[Dataset]:
    """Return what is measured where no data are given: NumAcc1 to 4 and the families.

    Parameters
    ----------
    dtype : str
        What the families are stored in.
    quick : bool, default False
        Only the offset at three condition numbers, the other families at one.
    seed : int, default 0
        Of the random numbers.

    Returns
    -------
    list of Dataset
        NumAcc1 to 4 first.

    Examples
    --------
    >>> from fastnorm.lab import default_datasets
    >>> [one.name for one in default_datasets("float32", quick=True)][3:6]
    ['NumAcc4', 'offset 10^0', 'offset 10^3']
    """
    found = [datasets.numacc(name) for name in datasets.NUMACC]
    for name in datasets.FAMILIES:
        kappas = KAPPAS[dtype]
        if name == "constant" or (quick and name != "offset"):
            kappas = (KAPPAS[dtype][1],)
        found += [datasets.family(name, FAMILY_COUNT, kappa, dtype, seed) for kappa in kappas]
    return found


def run(
    data: Sequence[Dataset] | None = None,
    *,
    dtypes: Sequence[str] | None = None,
    algorithms: Sequence[str] = ALGORITHMS,
    peers: bool = True,
    quick: bool = False,
    speed: bool = True,
    curves: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Measure how right and how fast mean and standard deviation come out.

    Parameters
    ----------
    data : sequence of Dataset, optional
        What to measure instead of NIST's NumAcc1 to 4, the families and layer norms. Certified values count as true
        in float64; the exact moments of the stored values count in every dtype.
    dtypes : sequence of str, optional
        "float16", "float32", "float64". Default: all of them; of float16 and float32 data their own alone; quick:
        float32 and float64.
    algorithms : sequence of str
        As in `fastnorm.moments`.
    peers : bool, default True
        Whether the other libraries that are installed join.
    quick : bool, default False
        Fewer data sets, shorter sweeps and timings.
    speed, curves : bool, default True
        Whether to take times, and the errors against kappa and n.
    seed : int, default 0
        Of the random numbers.
    progress : callable, optional
        Called before each step with the number of steps done, the number of all and what comes next.

    Returns
    -------
    Results
        What was measured.

    Raises
    ------
    ValueError
        An unknown dtype or algorithm.

    Examples
    --------
    >>> from fastnorm.lab import numacc, run
    >>> results = run([numacc("NumAcc4")], dtypes=["float64"], peers=False, speed=False, curves=False)
    >>> {name: round(score.sd_digits, 1) for name, score in results.rows[0].scores.items() if name in ("auto", "naive")}
    {'auto': 15.7, 'naive': 0.0}
    """
    _check("algorithms", algorithms, ALGORITHMS)
    _check("dtypes", dtypes or (), DTYPES)
    chosen = list(dict.fromkeys(dtypes or (DTYPES[1:] if quick else DTYPES)))
    if data is not None and dtypes is None:  # in its own, at the least
        own = {dataset.values.dtype.name for dataset in data}
        chosen = [dtype for dtype in DTYPES if dtype in chosen or dtype in own]
    report = progress or _silent
    report(0, 1, "importing peers")
    candidates = {peer.name: peer for peer in (*VARIANCE_PEERS, *LAYER_NORM_PEERS)} if peers else {}
    present = {name for name, peer in candidates.items() if installed(peer)}
    variance = [peer for peer in VARIANCE_PEERS if peer.name in present]
    normalizing = [peer for peer in LAYER_NORM_PEERS if peer.name in present]
    results = Results(
        algorithms=list(algorithms),
        peers=[peer.name for peer in variance],
        layer_norm_peers=[peer.name for peer in normalizing],
        missing=[name for name in candidates if name not in present],
        dtypes=chosen,
        timed_count=TIMED_COUNT,
        timed_shape=TIMED_SHAPE,
        kappa_count=FAMILY_COUNT,
        n_kappa=sweeps.N_KAPPA,
        machine=_machine(),
        versions=versions(("fastnorm", "python", "numpy", "numba", *sorted(present - {"numpy"}))),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    )
    steps = _steps(results, data, dtypes, variance, normalizing, quick=quick, speed=speed, curves=curves, seed=seed)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Overflow and the like are what is measured here; the scores tell of them.
        warnings.simplefilter("ignore")
        for number, (name, step) in enumerate(steps):
            report(number, len(steps), name)
            step()
    report(len(steps), len(steps), "")
    return results


def _silent(done: int, total: int, name: str) -> None:
    """Report nothing."""


def _check(argument: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"run: {argument} must be of {', '.join(known)}, got {name!r}")


def _steps(
    results: Results,
    data: Sequence[Dataset] | None,
    dtypes: Sequence[str] | None,
    variance: list[Peer],
    normalizing: list[Peer],
    *,
    quick: bool,
    speed: bool,
    curves: bool,
    seed: int,
) -> list[tuple[str, Callable[[], None]]]:
    """List what is to be done: a name, and a function that adds to the results."""
    steps: list[tuple[str, Callable[[], None]]] = []
    for dtype in results.dtypes:
        for dataset in default_datasets(dtype, quick=quick, seed=seed) if data is None else data:
            own = dataset.values.dtype.name
            if data is not None and dtypes is None and own != "float64" and own != dtype:
                continue
            steps.append((f"{dataset.name}, {dtype}", partial(_measure, results, dataset, dtype, variance)))
        if speed:
            steps.append((f"speed, {dtype}", partial(_time, results, dtype, variance, quick=quick)))
        if data is None:
            steps.append(
                (
                    f"layer_norm, {dtype}",
                    partial(layer_norms.measure, results, dtype, normalizing, speed=speed, quick=quick),
                )
            )
        if curves:
            steps.append((f"error against kappa, {dtype}", partial(sweeps.kappa, results, dtype, quick, seed)))
            steps.append((f"error against n, {dtype}", partial(sweeps.count, results, dtype, quick, seed)))
    return steps


def _calls(results: Results, x: Array, peers: list[Peer]) -> dict[str, Callable[[], tuple[float, float]]]:
    """Return what computes mean and standard deviation of a line, by name."""

    def algorithm(name: Any) -> Callable[[], tuple[float, float]]:
        def compute() -> tuple[float, float]:
            found = fastnorm.moments(x, algorithm=name, ddof=1)
            return found.mean, found.std

        return compute

    calls: dict[str, Callable[[], tuple[float, float]]] = {name: algorithm(name) for name in results.algorithms}
    calls |= {peer.name: peer.prepare(x) for peer in peers if x.dtype.name in peer.dtypes}
    return calls


def _measure(results: Results, dataset: Dataset, dtype: str, peers: list[Peer]) -> None:
    x = np.ascontiguousarray(dataset.values, dtype)
    if not np.isfinite(x).all():
        reason = "values beyond its range" if np.isfinite(dataset.values).all() else "NaN or infinite values"
        results.skipped.append(f"{dataset.name} in {dtype}: {reason}")
        return
    exact = exact_moments(x)
    found = {name: tuple(map(float, call())) for name, call in _calls(results, x, peers).items()}
    scale = Fraction(float(np.abs(x).max()))
    full = all_digits(dtype)

    def row(truth: str, mean: Fraction, sd: Fraction, mean_ceiling: float, sd_ceiling: float) -> Row:
        scores = {
            name: Score(
                computed_mean,
                computed_sd,
                log_relative_error(computed_mean, mean, dtype, scale, mean_ceiling),
                log_relative_error(computed_sd, sd, dtype, scale, sd_ceiling),
                units_in_last_place(computed_sd, sd, dtype, scale),
            )
            for name, (computed_mean, computed_sd) in found.items()
        }
        return Row(dataset.name, dtype, truth, exact.count, exact.condition, mean_ceiling, sd_ceiling, scores)

    results.rows.append(row("stored", exact.mean, exact.sd, _mean_ceiling(x, exact.mean, full), full))
    ceilings = _ceilings(dataset, exact) if dtype == "float64" else None
    if ceilings is not None and dataset.certified_mean is not None and dataset.certified_sd is not None:
        results.rows.append(row("certified", dataset.certified_mean, dataset.certified_sd, *ceilings))


def _mean_ceiling(x: Array, mean: Fraction, full: float) -> float:
    """How many digits of a mean are worth scoring: those that the rounding of the values themselves leaves.

    A mean that nearly cancels, far below the mean magnitude, is noise to so many digits: the condition number of a sum.
    """
    largest = float(np.abs(x).max())
    if mean == 0 or largest == 0:
        return full
    magnitude = Fraction(float(np.abs(x / x.dtype.type(largest)).mean(dtype=np.float64))) * Fraction(largest)
    return min(full, max(0.0, full - math.log10(max(1.0, as_float(magnitude / abs(mean))))))


def _ceilings(dataset: Dataset, exact: ExactMoments) -> tuple[float, float] | None:
    """How many digits of the certified values the stored values have; None where both are the same."""
    if dataset.certified_mean is None or dataset.certified_sd is None:
        return None
    mean, sd = dataset.certified_mean, dataset.certified_sd
    if (mean, sd) == (exact.mean, exact.sd):
        return None
    full = all_digits("float64")

    def digits(stored: Fraction, certified: Fraction) -> float:
        error = abs(stored / certified - 1) if certified else abs(stored)
        return full if not error else min(full, max(0.0, -math.log10(max(as_float(error), sys.float_info.min))))

    return digits(exact.mean, mean), digits(exact.sd, sd)


def _time(results: Results, dtype: str, peers: list[Peer], *, quick: bool) -> None:
    x = np.random.default_rng(0).standard_normal(TIMED_COUNT).astype(dtype)
    seconds = interleaved(_calls(results, x, peers), **layer_norms.effort(quick=quick))
    results.nanoseconds[dtype] = {name: value * 1e9 / TIMED_COUNT for name, value in seconds.items()}


def _machine() -> dict[str, Any]:
    found = configuration()
    return {
        "processor": found["cpu"],
        "cpus": found["cpus"],
        "system": found["platform"],
        "fastnorm threads": fastnorm.get_num_threads(),
        "fastnorm backend": fastnorm.explain("moments", (TIMED_COUNT,), "float32").backend,
        "variant": found["cython"].get("variant chosen", "none"),
    }
