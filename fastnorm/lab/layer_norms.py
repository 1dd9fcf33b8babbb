"""How right and how fast layer norms are, against mean and variance that are exact."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

import fastnorm
from fastnorm.lab import datasets
from fastnorm.lab.exact import exact_moments, square_root
from fastnorm.lab.peers import EPSILON, Peer
from fastnorm.lab.results import LayerNormRow, Results
from fastnorm.lab.timing import interleaved

Array = npt.NDArray[Any]

ROWS, WIDTH = 4, 768
# Data as they reach a layer norm: well centred, and worse.
CASES = (("offset", 1.0), ("offset", 1e2), ("offset", 1e4), ("heavy tails", 1.0), ("outlier", 1.0), ("constant", 1.0))


def effort(*, quick: bool) -> dict[str, Any]:
    """Return how long `interleaved` is to measure."""
    if quick:
        return {"budget": 0.5, "sample": 0.001, "minimum_rounds": 3}
    return {"budget": 4.0, "sample": 0.005, "minimum_rounds": 7}


def exact_layer_norm(x: Array, epsilon: float = EPSILON) -> Array:
    """Return the layer norm of rows from exact means and variances, as long doubles.

    Parameters
    ----------
    x : ndarray, shape (rows, width)
        float16, float32 or float64.
    epsilon : float
        Added to the variance.

    Returns
    -------
    ndarray of longdouble, shape (rows, width)
        ``(x - mean) / sqrt(variance + epsilon)``. The mean is taken off in two parts, so that nothing is lost where x
        is close to it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm.lab import exact_layer_norm
    >>> exact_layer_norm(np.array([[1.0, 3.0]]), epsilon=0.0).astype(float)
    array([[-1.,  1.]])
    """
    result = np.empty(x.shape, np.longdouble)
    for line, out in zip(x, result, strict=True):
        exact = exact_moments(line, ddof=0)
        scale = square_root(exact.variance + Fraction(epsilon))
        (mean, rest), (root, root_rest) = _two_parts(exact.mean), _two_parts(scale)
        out[:] = ((line.astype(np.longdouble) - mean) - rest) / (np.longdouble(root) + np.longdouble(root_rest))
    return result


def _two_parts(value: Fraction) -> tuple[float, float]:
    first = float(value)
    return first, float(value - Fraction(first))


def worst_units(y: npt.ArrayLike, truth: Array, dtype: npt.DTypeLike) -> float:
    """Return the largest ``abs(y - truth) / max(1, abs(truth))`` in units of the unit roundoff of dtype."""
    error = np.abs(np.asarray(y).astype(np.longdouble) - truth) / np.maximum(1, np.abs(truth))
    return float(error.max() / (np.finfo(np.dtype(dtype)).eps / 2)) if np.isfinite(error).all() else float("inf")


def _calls(x: Array, peers: list[Peer]) -> dict[str, Callable[[], Any]]:
    calls: dict[str, Callable[[], Any]] = {"fastnorm": lambda: fastnorm.layer_norm(x, eps=EPSILON)}
    calls |= {peer.name: peer.prepare(x) for peer in peers if x.dtype.name in peer.dtypes}
    return calls


def measure(results: Results, dtype: str, peers: list[Peer], *, speed: bool, quick: bool) -> None:
    """Add the layer norms of one dtype to the results."""
    for name, kappa in CASES:
        if kappa > datasets.largest_condition(dtype):
            continue
        lines = [datasets.family(name, WIDTH, kappa, dtype, seed) for seed in range(ROWS)]
        x = np.stack([line.values for line in lines])
        truth = exact_layer_norm(x)
        errors = {called: worst_units(call(), truth, dtype) for called, call in _calls(x, peers).items()}
        results.layer_norm.append(LayerNormRow(lines[0].name, dtype, (ROWS, WIDTH), errors))
    if speed:
        x = np.random.default_rng(0).standard_normal(results.timed_shape).astype(dtype)
        seconds = interleaved(_calls(x, peers), **effort(quick=quick))
        results.layer_norm_nanoseconds[dtype] = {name: value * 1e9 / x.size for name, value in seconds.items()}
