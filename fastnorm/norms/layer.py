"""Layer normalization."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, engine
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.express import VARIANCE, lane
from fastnorm.plan import plan_reduction
from fastnorm.recipe import Rule

Array = npt.NDArray[Any]


def normalize_lines(
    function: str, x: npt.ArrayLike, weight: npt.ArrayLike | None, bias: npt.ArrayLike | None, axis: Any, rule: Rule,
    out: Array | None, dtype: npt.DTypeLike | None, return_stats: bool, backend: str | None,
) -> Any:  # fmt: skip
    """The common path of the norms whose lines are one axis, or the trailing ones, of x."""
    array = engine.take(x, function)
    axes = arguments.trailing_axes(axis, array.ndim, function)
    shape = tuple(array.shape[a] for a in axes)
    weight = arguments.parameter(weight, shape, function, "weight")
    bias = arguments.parameter(bias, shape, function, "bias")
    call = engine.begin(array, out, dtype, backend, function, (weight, bias))
    plan = plan_reduction(array.shape, axes)
    moments = None
    if array.size:
        moments = engine.normalize_positions(call, plan, rule, weight, bias, return_stats)
    result = call.finish()
    if not return_stats:
        return result
    if moments is None:
        return result, Stats(np.full(plan.stats, np.nan), np.full(plan.stats, np.nan))
    return result, engine.stats_of(moments, plan.count, rule, plan.stats)


def layer_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Normalise each line to mean 0 and variance 1: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Ba, Kiros and Hinton, "Layer Normalization", 2016, equation 4; the variance is the biased one.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    weight, bias : array_like, optional
        Of the shape of the normalised axes.
    axis : int or tuple of int, default -1
        The axis of a line, or several trailing axes that make one.
    eps : float, default 1e-5
        Added to the variance; at least 0. With 0 a constant line still gives the bias.
    out : ndarray, optional
        Where to put the result; `x` itself is allowed.
    dtype : dtype, optional
        A floating dtype for the result; float64 also computes in float64. Default: that of a floating x, float32 for
        integers of up to 16 bits, else float64.
    return_stats : bool, default False
        Also return ``Stats(mean, rstd)``, float64, shaped to broadcast against x.
    backend : str, optional
        Serve this call by "reference", "cython" or "numba".

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
    >>> fastnorm.layer_norm([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]).round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [ 0.    ,  0.    ,  0.    ]])
    """
    if dtype is None and not return_stats and backend is None:
        y = lane.lines(x, weight, bias, axis, eps, VARIANCE, False, False, out)
        if y is not None:
            return y
    rule = Rule(eps=arguments.number(eps, "layer_norm", "eps", minimum=0))
    return normalize_lines("layer_norm", x, weight, bias, axis, rule, out, dtype, return_stats, backend)
