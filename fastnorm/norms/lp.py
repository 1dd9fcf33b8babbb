"""Lines scaled to a p-norm of 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import MAGNITUDES, SQUARES, fast_path
from fastnorm.norms.lines import normalize_lines
from fastnorm.norms.scalers import scale_by_extrema
from fastnorm.plan import plan_reduction
from fastnorm.recipe import Measure, Rule

Array = npt.NDArray[Any]


# Powers up to this are products, of so many elements at a time; NumPy's take 10 nanoseconds an element.
_MOST_FACTORS = 8
_BLOCK = 2**13


def lp_normalize(
    x: npt.ArrayLike,
    *,
    p: float,
    axis: int | tuple[int, ...] | None = -1,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Scale each line to a p-norm of 1: ``x / sum(|x|^p)^(1/p)``; a line of zeros stays so.

    ONNX LpNormalization-22, for any p.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    p : float
        Above 0; ``inf`` scales to the largest magnitude of 1.
    axis : int, tuple of int or None, default -1
        The axis of a line, or several trailing axes that make one; None: all.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0, rstd is 1 / norm.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x is not of a real number dtype, p not a number, or out not of the result's dtype.
    ValueError
        p is not above 0, or an axis or out that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.lp_normalize([1.0, -3.0], p=1)
    array([ 0.25, -0.75])
    """
    function = "lp_normalize"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    power = arguments.number(p, function, "p", minimum=0, open_end=True)
    axes = arguments.trailing_axes(axis, array.ndim, function)
    if power in (1, 2, np.inf) and dtype is None and not return_stats and backend is None:
        if power == np.inf:
            y = fast_path.scaled(array, axis, (0, 1), True, out)
        else:
            y = fast_path.lines(array, None, None, axis, 0.0, MAGNITUDES if power == 1 else SQUARES, True, True, out)
        if y is not None:
            return y
    if power in (1, 2):
        rule = Rule(measure=Measure.MAGNITUDES if power == 1 else Measure.SQUARES, floor=True, summed=True)
        return normalize_lines(function, array, None, None, axes, rule, out, dtype, return_stats, backend)
    if power == np.inf:
        return scale_by_extrema(function, array, axes, None, 1.0, out, dtype, return_stats, backend)
    call = calls.begin(array, out, dtype, backend, function)
    plan = plan_reduction(array.shape, axes)
    rstd = np.ones(plan.stats_shape)
    if array.size:
        # The output is the scratch memory, unless it is the input.
        powers = np.abs(call.x, out=None if np.may_share_memory(call.x, call.y) else call.y)
        # Scaled by the largest magnitude, so that no power overflows.
        largest = engine.extrema(powers, plan, call.backend)[1].astype(np.float64)
        with np.errstate(all="ignore"):  # a power beyond float32
            ordinary = np.where((largest == 0.0) | (largest == np.inf), 1.0, largest)
            powers /= ordinary.astype(powers.dtype).reshape(plan.stats_shape)
            _raise(powers.reshape(-1), power)
        sums = engine.statistics(powers, plan, Measure.MAGNITUDES, call.backend).m2
        with np.errstate(all="ignore"):  # norms beyond float64, and 1 / norm
            norm = largest * sums ** (1.0 / power)
            rstd = 1.0 / np.where(norm == 0.0, 1.0, norm).reshape(plan.stats_shape)
        engine.apply_scale(call, plan, rstd)
    return engine.results(call, Stats(np.zeros_like(rstd), rstd) if return_stats else None)


def _raise(numbers: Array, power: float) -> None:
    """Raise numbers, (n,), to a power, in place."""
    if not power.is_integer() or power > _MOST_FACTORS:
        np.power(numbers, power, out=numbers)
        return
    for first in range(0, numbers.size, _BLOCK):
        part = numbers[first : first + _BLOCK]
        factor = part.copy()
        for _ in range(int(power) - 1):
            np.multiply(part, factor, out=part)
