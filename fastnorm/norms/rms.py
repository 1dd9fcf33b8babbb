"""Root mean square normalization."""

from typing import Any

import numpy.typing as npt

from fastnorm import arguments
from fastnorm.engine import ArrayOrStats
from fastnorm.express import SQUARES, lane
from fastnorm.norms.layer import normalize_lines
from fastnorm.recipe import Measure, Rule

Array = npt.NDArray[Any]


def rms_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-6,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Scale each line to a root mean square of 1: ``x / sqrt(mean(x^2) + eps) * weight + bias``.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    weight, bias : array_like, optional
        Of the shape of the normalised axes.
    axis : int or tuple of int, default -1
        The axis of a line, or several trailing axes that make one.
    eps : float, default 1e-6
        Added to the mean square; at least 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x, weight or bias is not of a real number dtype, or out not of the result's.
    ValueError
        A shape, axis or eps that does not fit.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.rms_norm([3.0, 4.0], eps=0).round(4)
    array([0.8485, 1.1314])
    """
    if dtype is None and not return_stats and backend is None:
        y = lane.lines(x, weight, bias, axis, eps, SQUARES, False, False, out)
        if y is not None:
            return y
    rule = Rule(measure=Measure.SQUARES, eps=arguments.number(eps, "rms_norm", "eps", minimum=0))
    return normalize_lines("rms_norm", x, weight, bias, axis, rule, out, dtype, return_stats, backend)
