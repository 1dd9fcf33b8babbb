"""What each algorithm guarantees: bounds of the relative error of the sum of squared deviations.

Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983, table 1, whose bounds are of first order
and leave out a small constant. Here n is the number of elements, u the unit roundoff (2^-24 for float32) and kappa
the condition number ``sqrt(1 + n * mean^2 / m2)``, by which errors of the data grow in the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The constant left out: an element passes a subtraction, a product or two and an addition, each with a rounding.
ROUNDINGS = 4.0
# "auto" adds in lanes of 8, then 16 bundles, then a tree: so many roundings, however long the line. From block to
# block, of at least 64 elements, float64 adds on.
BLOCK_ROUNDINGS, BLOCK, FLOAT64_ROUNDOFF = 16.0, 64, 2.0**-53


def _auto(n: Array, kappa: Array, u: float) -> Array:
    return BLOCK_ROUNDINGS * u + n / BLOCK * FLOAT64_ROUNDOFF + 0.0 * kappa


def _naive(n: Array, kappa: Array, u: float) -> Array:
    bound: Array = n * kappa**2 * u
    return bound


def _shifted(n: Array, kappa: Array, u: float) -> Array:
    """As naive, about the first element: that is at most sqrt(m2) from the mean, so its kappa^2 is at most 1 + n."""
    bound: Array = n * (1 + n) * u + 0.0 * kappa
    return bound


def _two_pass(n: Array, kappa: Array, u: float) -> Array:
    return n * u + (n * kappa * u) ** 2


def _corrected_two_pass(n: Array, kappa: Array, u: float) -> Array:
    return n * u + n * u * (n * kappa * u) ** 2


def _welford(n: Array, kappa: Array, u: float) -> Array:
    return n * kappa * u


def _pairwise(n: Array, kappa: Array, u: float) -> Array:
    return (np.ceil(np.log2(n)) + 1) * kappa * u


def _compensated(n: Array, kappa: Array, u: float) -> Array:
    """Neumaier's sums have an error of u + (n u)^2; that of the mean enters squared."""
    total = u + (n * u) ** 2
    return total + (kappa * total) ** 2


_BOUNDS: dict[str, Callable[[Array, Array, float], Array]] = {
    "auto": _auto,
    "welford": _welford,
    "two_pass": _two_pass,
    "corrected_two_pass": _corrected_two_pass,
    "naive": _naive,
    "shifted": _shifted,
    "pairwise": _pairwise,
    "compensated": _compensated,
}


def relative_error_bound(algorithm: str, n: npt.ArrayLike, kappa: npt.ArrayLike, u: float) -> Array:
    """Return a bound of the relative error of `algorithm`'s sum of squared deviations.

    Parameters
    ----------
    algorithm : str
        As in `fastnorm.moments`.
    n, kappa : array_like
        The number of elements of a line, its condition number; they broadcast.
    u : float
        The unit roundoff of the dtype that the algorithm computes in.

    Returns
    -------
    ndarray
        float64; 1 or more says that no digit is guaranteed.

    Examples
    --------
    >>> from fastnorm.stats.bounds import relative_error_bound
    >>> [f"{relative_error_bound(name, 1000, 1e4, 2.0**-53):.1e}" for name in ("naive", "two_pass", "auto")]
    ['4.4e-05', '4.4e-13', '1.4e-14']
    """
    with np.errstate(all="ignore"):
        bound = ROUNDINGS * _BOUNDS[algorithm](np.asarray(n, np.float64), np.asarray(kappa, np.float64), u)
    return np.asarray(bound)
