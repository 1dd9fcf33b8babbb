"""The error of the variance along the condition number and along the length, beside the bound of each algorithm."""

from typing import Any

import numpy as np
import numpy.typing as npt

import fastnorm
from fastnorm.lab import datasets
from fastnorm.lab.exact import ExactMoments, exact_moments, relative_error
from fastnorm.lab.results import Curve, Results
from fastnorm.stats.bounds import relative_error_bound

# Of the lines whose length varies: enough to tell the algorithms apart, within reach of every dtype.
N_KAPPA = 100.0


def kappa(results: Results, dtype: str, quick: bool, seed: int) -> None:
    """Add the errors of lines of `results.kappa_count` values, by condition number."""
    limit = np.log10(datasets.largest_condition(dtype))
    points = np.logspace(0, limit * (1 - 1e-9), round((1 if quick else 1.7) * limit) + 4)
    groups = [
        _lines("offset", results.kappa_count, point, dtype, seed, lines=3 if quick else 7) for point in points.tolist()
    ]
    truths = [[exact_moments(line) for line in group] for group in groups]
    at = [float(np.median([exact.condition for exact in group])) for group in truths]
    for algorithm in results.algorithms:
        errors = [_worst(algorithm, x, exact) for x, exact in zip(groups, truths, strict=True)]
        bound = relative_error_bound(algorithm, results.kappa_count, at, _roundoff(algorithm, dtype))
        results.against_kappa.append(Curve(algorithm, dtype, at, errors, bound.tolist()))


def count(results: Results, dtype: str, quick: bool, seed: int) -> None:
    """Add the errors of lines whose condition number is `N_KAPPA`, by length."""
    lengths = [round(10**power) for power in np.linspace(1, 5, 9 if quick else 17).tolist()]
    groups = [_lines("offset", n, N_KAPPA, dtype, seed, lines=2 if quick else 5) for n in lengths]
    truths = [[exact_moments(line) for line in group] for group in groups]
    for algorithm in results.algorithms:
        errors = [_worst(algorithm, x, exact) for x, exact in zip(groups, truths, strict=True)]
        bound = relative_error_bound(algorithm, lengths, N_KAPPA, _roundoff(algorithm, dtype))
        results.against_n.append(Curve(algorithm, dtype, [float(n) for n in lengths], errors, bound.tolist()))


def _roundoff(algorithm: str, dtype: str) -> float:
    """Return the unit roundoff of what the algorithm computes in; "auto" computes float16 in float32."""
    computed = "float32" if algorithm == "auto" and dtype == "float16" else dtype
    return float(np.finfo(computed).eps) / 2


def _lines(name: str, n: int, point: float, dtype: str, seed: int, lines: int) -> npt.NDArray[Any]:
    return np.stack([datasets.family(name, n, point, dtype, seed + line).values for line in range(lines)])


def _worst(algorithm: Any, x: npt.NDArray[Any], truths: list[ExactMoments]) -> float:
    found = fastnorm.moments(x, axis=1, algorithm=algorithm).m2
    errors = [relative_error(float(m2), exact.m2) for m2, exact in zip(found, truths, strict=True)]
    return float(np.max(errors))  # unlike max, keeps a NaN
