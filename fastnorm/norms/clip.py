"""Clipping: by value, by the norm of an array, by the norm of several arrays together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.backends.reference import Reference
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.plan import plan_reduction
from fastnorm.recipe import Measure

Array = npt.NDArray[Any]


def clip_by_value(
    x: npt.ArrayLike,
    low: float,
    high: float,
    *,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Limit each element to low..high.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers. NaN stays.
    low, high : float
        The ends, in order.
    out, dtype, return_stats, backend
        As in `layer_norm`; nothing is subtracted and nothing scaled, so the statistics are 0 and 1. NumPy clips: a
        compiled backend cannot serve this.

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
        A compiled backend was asked for.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.clip_by_value([-3.0, 0.5, 7.0], -1, 1)
    array([-1. ,  0.5,  1. ])
    """
    function = "clip_by_value"
    array = calls.take(x, function)
    low, high = arguments.number(low, function, "low"), arguments.number(high, function, "high")
    if low > high:
        raise ValueError(f"{function}: low must not be above high, got {low:g} and {high:g}")
    call = calls.begin(array, out, dtype, backend, function)
    with np.errstate(over="ignore"):  # an end beyond float32 is no limit to it
        ends = np.array([low, high]).astype(call.x.dtype)
    np.clip(call.x, *ends, out=call.y)
    result = call.finish()
    if not return_stats:
        return result
    shape = (1,) * array.ndim
    return result, Stats(np.zeros(shape), np.ones(shape))


def _root_of_squares(x: Array, axes: tuple[int, ...], backend: Reference) -> Array:
    """The L2 norm over axes, float64, shaped to broadcast against x."""
    plan = plan_reduction(x.shape, axes)
    if not x.size:
        return np.zeros(plan.stats)
    moments = engine.statistics(x, plan, Measure.SQUARES, backend)
    with np.errstate(invalid="ignore"):
        root: Array = np.sqrt(moments.m2).reshape(plan.stats)
    return root


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

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.clip_by_norm([3.0, 4.0], 1.0)
    array([0.6, 0.8])
    """
    function = "clip_by_norm"
    array = calls.take(x, function)
    axes = arguments.axis_indices(axis, array.ndim, function)
    limit = arguments.number(max_norm, function, "max_norm", minimum=0)
    call = calls.begin(array, out, dtype, backend, function, narrow=True)
    scale = _scale_down(_root_of_squares(call.x, axes, call.backend), limit)
    if array.size:
        engine.apply_scale(call, plan_reduction(array.shape, axes), scale)
    result = call.finish()
    return (result, Stats(np.zeros_like(scale), scale)) if return_stats else result


def _scale_down(norm: Array, limit: float) -> Array:
    """1 where the norm is within the limit; NaN where it is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scale: Array = np.where(norm <= limit, 1.0, limit / norm)
    return scale


class ClippedArrays(NamedTuple):
    """The arrays, and their norm before they were clipped."""

    arrays: list[Array]
    global_norm: float


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

    Examples
    --------
    >>> import fastnorm
    >>> clipped, norm = fastnorm.clip_by_global_norm([[3.0], [4.0]], 1.0)
    >>> norm, clipped
    (5.0, [array([0.6]), array([0.8])])
    """
    function = "clip_by_global_norm"
    limit = arguments.number(max_norm, function, "max_norm", minimum=0)
    try:
        given = iter(arrays)
    except TypeError:
        raise TypeError(f"{function}: arrays must be an iterable of arrays, got {type(arrays).__name__}") from None
    taken = [calls.take(array, function, f"arrays[{i}]") for i, array in enumerate(given)]
    targets = _targets(out, len(taken), function)
    begun = [
        calls.begin(array, target, dtype, backend, function, tuple(taken[:i] + taken[i + 1 :]), narrow=True)
        for i, (array, target) in enumerate(zip(taken, targets, strict=True))
    ]
    if out is not None and any(np.may_share_memory(a, b) for i, a in enumerate(out) for b in out[:i]):
        raise ValueError(f"{function}: the arrays of out must not share memory")
    norms = [_root_of_squares(call.x, tuple(range(call.x.ndim)), call.backend).item() for call in begun]
    norm = float(np.linalg.norm(norms)) if norms else 0.0
    if error_if_nonfinite and not np.isfinite(norm):
        raise ValueError(f"{function}: the norm of the arrays must be finite with error_if_nonfinite, got {norm}")
    scale = _scale_down(np.array(norm), limit)
    for call in begun:
        if call.x.size:
            engine.apply_scale(call, plan_reduction(call.x.shape, tuple(range(call.x.ndim))), scale)
    result = ClippedArrays([call.finish() for call in begun], norm)
    return (result, Stats(np.zeros(()), scale)) if return_stats else result


def _targets(out: Sequence[Array] | None, count: int, function: str) -> Sequence[Array | None]:
    """An `out` for each of `count` arrays."""
    if out is None:
        return [None] * count
    if not isinstance(out, Sequence):
        raise TypeError(f"{function}: out must be a sequence of numpy.ndarray, got {type(out).__name__}")
    if len(out) != count:
        raise ValueError(f"{function}: out must have one array for each of the {count} arrays, got {len(out)}")
    return out
