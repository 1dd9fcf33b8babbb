"""Clipping: by value, by the norm of an array, by the norm of several arrays together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.backends.reference import Reference
from fastnorm.calls import Call
from fastnorm.dtypes import FLOAT64
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import plain_calls_by
from fastnorm.lines import lines_over, replace_lines_over
from fastnorm.plan import plan_reduction
from fastnorm.ranges import LARGEST_SUM, SMALLEST_FACTOR, SMALLEST_SUM
from fastnorm.recipe import Measure

Array = npt.NDArray[Any]


@plain_calls_by("clipped_by_value", "x", "low", "high", "out")
def clip_by_value(
    x: npt.ArrayLike,
    low: float | None,
    high: float | None,
    *,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Limit each element to low..high.

    ``min(max(x, low), high)``, as ``numpy.clip``.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers. NaN stays.
    low, high : float or None
        The ends, in order; None leaves an end open.
    out, dtype, return_stats, backend
        As in `layer_norm`; nothing is subtracted and nothing scaled, so the statistics are 0 and 1.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x is not of a real number dtype, an end is not a number, or out is not of the result's dtype.
    ValueError
        low is above high, or out does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.clip_by_value([-3.0, 0.5, 7.0], -1, 1)
    array([-1. ,  0.5,  1. ])
    """
    function = "clip_by_value"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    low = -np.inf if low is None else arguments.number(low, function, "low")
    high = np.inf if high is None else arguments.number(high, function, "high")
    if low > high:
        raise ValueError(f"{function}: low must not be above high, got {low:g} and {high:g}")
    call = calls.begin(array, out, dtype, backend, function)
    call.backend.clip(np.ascontiguousarray(call.x).reshape(-1), call.y.reshape(-1), low, high)
    shape = (1,) * array.ndim
    return engine.results(call, Stats(np.zeros(shape), np.ones(shape)) if return_stats else None)


class _Numbers(NamedTuple):
    """Numbers mantissa * 2 ** exponent, which float64 need not be able to hold."""

    mantissa: Array
    exponent: Array

    def value(self) -> Array:
        """Return them in float64, infinity or 0 for what it cannot hold."""
        with np.errstate(all="ignore"):
            value: Array = np.ldexp(self.mantissa, self.exponent)
        return value

    def reshaped(self, *shape: int) -> _Numbers:
        """Return the same numbers in another shape."""
        return _Numbers(self.mantissa.reshape(shape), self.exponent.reshape(shape))


def _norm(x: Array, axes: tuple[int, ...], backend: Reference) -> _Numbers:
    """The L2 norm over axes, shaped to broadcast against x."""
    plan = plan_reduction(x.shape, axes)
    exponent = np.zeros(plan.stats_shape, np.int32)
    if not x.size:
        return _Numbers(np.zeros(plan.stats_shape), exponent)
    squares = engine.statistics(x, plan, Measure.SQUARES, backend).m2.reshape(plan.stats_shape)
    with np.errstate(all="ignore"):
        root = np.asarray(np.sqrt(squares))  # of no dimension NumPy makes a scalar
    far = (squares < SMALLEST_SUM) | (squares > LARGEST_SUM)
    if x.dtype == FLOAT64 and far.any():
        lines = np.abs(lines_over(axes, x, far).reshape(np.count_nonzero(far), -1))
        power = np.frexp(lines.max(axis=1))[1]
        with np.errstate(all="ignore"):  # what is infinite has no exponent
            root[far] = np.sqrt(np.square(np.ldexp(lines, -power[:, np.newaxis])).sum(axis=1))
        exponent[far] = power
    return _Numbers(root, exponent)


def _sum_of_squares(parts: list[float]) -> float:
    """Add with what each addition loses (Neumaier, 1974), in their order: as the fast path does."""
    total = rest = 0.0
    for part in parts:
        square = part * part
        larger = total + square
        rest += (total - larger) + square if total >= square else (square - larger) + total
        total = larger
    return total + rest if math.isfinite(total) else total


def _joined(norms: list[_Numbers]) -> _Numbers:
    """The L2 norm of several arrays together, from that of each."""
    if not norms:
        return _Numbers(np.zeros(()), np.zeros((), np.int32))
    mantissa, power = np.frexp([norm.mantissa.item() for norm in norms])
    power = power + [norm.exponent.item() for norm in norms]
    top = max(power[mantissa != 0.0], default=0)
    with np.errstate(all="ignore"):
        parts = np.ldexp(mantissa, np.where(mantissa == 0.0, 0, power - top))
    return _Numbers(np.array(math.sqrt(_sum_of_squares(parts.tolist()))), np.array(top))


def _scale_down(norm: _Numbers, limit: float) -> _Numbers:
    """1 where the norm is within the limit; NaN where it is NaN."""
    mantissa, power = np.frexp(limit)
    divisor, power_of_divisor = np.frexp(norm.mantissa)
    with np.errstate(all="ignore"):
        within = norm.value() <= limit
        # At most 1, since it multiplies numbers that may be the largest.
        quotient, shift = mantissa / divisor / 2, power - power_of_divisor - norm.exponent + 1
    return _Numbers(np.where(within, 1.0, quotient), np.where(within, 0, shift))


def _apply(call: Call, axes: tuple[int, ...], scale: _Numbers) -> None:
    """Write x * scale, one scale for each line over axes."""
    if not call.x.size:
        return
    value = scale.value()
    far = (value < SMALLEST_FACTOR) & (scale.mantissa > 0)
    apart = None
    if call.x.dtype == FLOAT64 and far.any():
        lines = lines_over(axes, call.x, far)  # read first: y may be x
        each = _Numbers(scale.mantissa[far], scale.exponent[far]).reshaped(-1, *(1,) * len(axes))
        with np.errstate(all="ignore"):
            apart = np.ldexp(lines * each.mantissa, each.exponent)
    engine.apply_scale(call, plan_reduction(call.x.shape, axes), value)
    if apart is not None:
        replace_lines_over(axes, call.y, far, apart)


@plain_calls_by("clipped", "x", "max_norm", "axis", "out")
def clip_by_norm(
    x: npt.ArrayLike,
    max_norm: float,
    *,
    axis: int | tuple[int, ...] | None = None,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Scale x down so that its L2 norm is at most `max_norm`.

    ``x * min(1, max_norm / norm)``: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
    networks", 2013, algorithm 1.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers.
    max_norm : float
        At least 0.
    axis : int, tuple of int or None, default None
        What the norm is taken over; None: the whole array.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0, rstd is what x was multiplied by, at most 1.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x is not of a real number dtype, or out not of the result's.
    ValueError
        An axis or out that does not fit, or a negative max_norm.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.clip_by_norm([3.0, 4.0], 1.0)
    array([0.6, 0.8])
    """
    function = "clip_by_norm"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    axes = arguments.axis_indices(axis, array.ndim, function)
    limit = arguments.number(max_norm, function, "max_norm", minimum=0)
    call = calls.begin(array, out, dtype, backend, function, narrow=True)
    scale = _scale_down(_norm(call.x, axes, call.backend), limit)
    _apply(call, axes, scale)
    rstd = scale.value()
    return engine.results(call, Stats(np.zeros_like(rstd), rstd) if return_stats else None)


class ClippedArrays(NamedTuple):
    """The arrays, and their norm before they were clipped."""

    arrays: list[Array]
    global_norm: float


@plain_calls_by("clipped_together", "arrays", "max_norm", "error_if_nonfinite", "out", ClippedArrays)
def clip_by_global_norm(
    arrays: Iterable[npt.ArrayLike],
    max_norm: float,
    *,
    error_if_nonfinite: bool = False,
    out: Sequence[Array] | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> Any:
    """Scale several arrays down together, so that the L2 norm of all their elements is at most `max_norm`.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013, algorithm 1.

    Parameters
    ----------
    arrays : iterable of array_like
        Any shapes; real numbers.
    max_norm : float
        At least 0.
    error_if_nonfinite : bool, default False
        Raise if the norm is NaN or infinite, instead of returning what follows from it.
    out : sequence of ndarray, optional
        Where to put the results, one for each of `arrays`; the arrays themselves are allowed.
    dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0, rstd is what all arrays were multiplied by, at most 1.

    Returns
    -------
    ClippedArrays, or (ClippedArrays, Stats)
        ``(arrays, global_norm)``, the arrays in a list.

    Raises
    ------
    TypeError
        `arrays` is not iterable, an array not of a real number dtype, or out not a sequence of arrays of the results'
        dtypes.
    ValueError
        A negative max_norm; an out that does not fit; with `error_if_nonfinite` a norm that is not finite.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> clipped, norm = fastnorm.clip_by_global_norm([[3.0], [4.0]], 1.0)
    >>> norm, clipped
    (5.0, [array([0.6]), array([0.8])])
    """
    function = "clip_by_global_norm"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    limit = arguments.number(max_norm, function, "max_norm", minimum=0)
    strict = arguments.flag(error_if_nonfinite, function, "error_if_nonfinite")
    try:
        given = iter(arrays)
    except TypeError:
        raise TypeError(f"{function}: arrays must be an iterable of arrays, got {type(arrays).__name__}") from None
    taken = [calls.take(array, function, f"arrays[{i}]") for i, array in enumerate(given)]
    targets: Sequence[Array | None] = [None] * len(taken)
    if out is not None:
        targets = calls.take_several(out, len(taken), f"one array for each of the {len(taken)} arrays", function)
    begun = [
        calls.begin(array, target, dtype, backend, function, tuple(taken[:i] + taken[i + 1 :]), narrow=True)
        for i, (array, target) in enumerate(zip(taken, targets, strict=True))
    ]
    joined = _joined([_norm(call.x, tuple(range(call.x.ndim)), call.backend) for call in begun])
    norm = joined.value().item()
    if strict and not np.isfinite(norm):
        raise ValueError(f"{function}: the norm of the arrays must be finite with error_if_nonfinite, got {norm}")
    scale = _scale_down(joined, limit)
    for call in begun:
        _apply(call, tuple(range(call.x.ndim)), scale.reshaped(*(1,) * call.x.ndim))
    result = ClippedArrays([call.finish() for call in begun], norm)
    return (result, Stats(np.zeros(()), scale.value())) if return_stats else result
