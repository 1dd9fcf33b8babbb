"""Scaling of columns: to mean 0 and deviation 1, to a range, to the largest magnitude."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.dtypes import FLOAT32
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import plain_calls_by
from fastnorm.lines import lines_over, replace_lines_over
from fastnorm.plan import plan_reduction
from fastnorm.recipe import Affine, Rule

Array = npt.NDArray[Any]

# Up to these the difference of two numbers, and what it is multiplied by, stay clear of the ends of the range.
LARGEST_SINGLE_SPAN = 2.0**126
LARGEST_SPAN = LARGEST_SCALE = 2.0**1000
SMALLEST_SCALE = 2.0**-1000


@plain_calls_by("standardized", "x", "axis", "ddof", "out")
@calls.through_plain_copies
def standardize(
    x: npt.ArrayLike,
    *,
    axis: int | tuple[int, ...] | None = 0,
    ddof: int = 0,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Shift and scale along an axis to mean 0 and standard deviation 1 (z-scores).

    ``(x - mean) / std``, as scikit-learn's ``StandardScaler``.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers.
    axis : int, tuple of int or None, default 0
        What the statistics are taken over; 0 standardises columns, None the whole array.
    ddof : int, default 0
        The variance is the sum of squares over count - ddof.
    out, dtype, return_stats, backend
        As in `layer_norm`.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)
        A column whose values are all equal becomes 0, its rstd is 1.

    Raises
    ------
    TypeError
        x is not of a real number dtype, or out not of the result's.
    ValueError
        An axis or out that does not fit, or ddof not below the count.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.standardize([[1.0, 5.0], [3.0, 5.0]])
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    function = "standardize"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    axes = arguments.axis_indices(axis, array.ndim, function)
    plan = plan_reduction(array.shape, axes)
    degrees = arguments.integer(ddof, function, "ddof", minimum=0)
    if array.size and degrees >= plan.count:
        raise ValueError(f"{function}: ddof must be below the {plan.count} elements of a line, got {degrees}")
    call = calls.begin(array, out, dtype, backend, function, narrow=True)
    rule = Rule(ddof=degrees)
    moments = engine.normalize_axes(call, plan, rule, return_stats) if array.size else None
    return engine.results(call, engine.stats_of(moments, plan.count, rule, plan.stats_shape) if return_stats else None)


def scale_by_extrema(
    function: str, x: npt.ArrayLike, axis: Any, low: float | None, high: float, out: Array | None,
    dtype: npt.DTypeLike | None, return_stats: bool, backend: str | None,
) -> Any:  # fmt: skip
    """Scale along `axis` to the range low..high, or, without `low`, to the largest magnitude of 1."""
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    axes = arguments.axis_indices(axis, array.ndim, function)
    plan = plan_reduction(array.shape, axes)
    call = calls.begin(array, out, dtype, backend, function, narrow=True)
    if not array.size:
        return engine.results(call, engine.stats_of(None, 0, Rule(), plan.stats_shape) if return_stats else None)
    least, largest = (part.astype(np.float64) for part in engine.extrema(call.x, plan, call.backend))
    zero = np.zeros_like(least)
    if low is None:
        least, largest = zero, np.maximum(np.abs(least), np.abs(largest))
        high, low = 1.0, 0.0
    with np.errstate(all="ignore"):
        span = largest - least
        scale = (high - low) / np.where(span == 0.0, 1.0, span)
    limit = LARGEST_SINGLE_SPAN if call.compute == FLOAT32 else LARGEST_SPAN
    within = (span <= limit) & (scale >= SMALLEST_SCALE) & (scale <= LARGEST_SCALE)
    shift = np.full(least.shape, low)
    far = None if within.all() else ~within & np.isfinite(least) & np.isfinite(largest)
    if far is None or not far.any():
        engine.apply_statistics(call, plan, Affine(least, zero, scale, shift))
    else:
        mask = far.reshape(plan.stats_shape)
        lines = lines_over(axes, call.x, mask).astype(np.float64)  # read first: y may be x
        apart, scale[far] = _scale_by_division(lines, least[far], largest[far], low, high)
        engine.apply_statistics(call, plan, Affine(least, zero, np.where(far, 1.0, scale), shift))
        with np.errstate(all="ignore"):
            replace_lines_over(axes, call.y, mask, apart.astype(call.compute))
    stats = Stats(least.reshape(plan.stats_shape), scale.reshape(plan.stats_shape))
    return engine.results(call, stats if return_stats else None)


def _scale_by_division(lines: Array, least: Array, largest: Array, low: float, high: float) -> tuple[Array, Array]:
    """Return lines, the first axis, scaled in float64 where a span or a scale is no number of it, and the scales."""
    with np.errstate(all="ignore"):
        half = np.where(np.isinf(largest - least), 0.5, 1.0)
        half_range = 0.5 if math.isinf(high - low) else 1.0
        span = largest * half - least * half
        span[span == 0.0] = 1.0
        scale = (high * half_range - low * half_range) / span * (half / half_range)
    of_line = -1, *(1,) * (lines.ndim - 1)
    half, least, span = (part.reshape(of_line) for part in (half, least, span))
    with np.errstate(all="ignore"):
        share = (lines * half - least * half) / span
        return low * (1.0 - share) + high * share, scale


@plain_calls_by("scaled", "x", "axis", "feature_range", False, "out")
@calls.through_plain_copies
def min_max_scale(
    x: npt.ArrayLike,
    *,
    axis: int | tuple[int, ...] | None = 0,
    feature_range: tuple[float, float] = (0, 1),
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Shift and scale along an axis so that the values span `feature_range`.

    ``low + (x - min) * (high - low) / (max - min)``, as scikit-learn's ``MinMaxScaler``.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers. NaN makes its column NaN.
    axis : int, tuple of int or None, default 0
        What the extrema are taken over.
    feature_range : (float, float), default (0, 1)
        What the least and the largest value become, to within a rounding.
    out, dtype, return_stats, backend
        As in `layer_norm`; the statistics are the least value and the scale.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)
        A column whose values are all equal becomes the lower end of the range.

    Raises
    ------
    TypeError
        x is not of a real number dtype, or out not of the result's.
    ValueError
        An axis or out that does not fit, or a range whose ends are not finite or not in order.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.min_max_scale([[1.0, 5.0], [2.0, 5.0], [5.0, 5.0]]).T
    array([[0.  , 0.25, 1.  ],
           [0.  , 0.  , 0.  ]])
    """
    function = "min_max_scale"
    try:
        low, high = feature_range
    except (TypeError, ValueError):
        raise TypeError(f"{function}: feature_range must be a pair of numbers, got {feature_range!r}") from None
    low, high = (arguments.number(end, function, "feature_range") for end in (low, high))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{function}: feature_range must be finite, got {feature_range!r}")
    if not low < high:
        raise ValueError(f"{function}: feature_range must be ascending, got {feature_range!r}")
    return scale_by_extrema(function, x, axis, low, high, out, dtype, return_stats, backend)


@plain_calls_by("scaled", "x", "axis", (0, 1), True, "out")
@calls.through_plain_copies
def max_abs_scale(
    x: npt.ArrayLike,
    *,
    axis: int | tuple[int, ...] | None = 0,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Scale along an axis so that the largest magnitude is 1, to within a rounding; zeros stay zeros.

    ``x / max(|x|)``, as scikit-learn's ``MaxAbsScaler``.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers. NaN makes its column NaN.
    axis : int, tuple of int or None, default 0
        What the magnitude is taken over.
    out, dtype, return_stats, backend
        As in `layer_norm`; the statistics are 0 and the scale.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x is not of a real number dtype, or out not of the result's.
    ValueError
        An axis or out that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.max_abs_scale([[1.0, 0.0], [-4.0, 0.0]])
    array([[ 0.25,  0.  ],
           [-1.  ,  0.  ]])
    """
    return scale_by_extrema("max_abs_scale", x, axis, None, 1.0, out, dtype, return_stats, backend)
