"""The least and the largest element along any axes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.device import is_device_array
from fastnorm.dispatch import choose
from fastnorm.fast_path import plain_calls_by
from fastnorm.plan import dropped_shape, plan_reduction


class Extrema(NamedTuple):
    """The least and the largest element of each line."""

    min: Any
    max: Any


@plain_calls_by("extrema_along", "x", "axis", Extrema)
def extrema(
    x: npt.ArrayLike,
    /,
    *,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    backend: str | None = None,
) -> Extrema:
    """Find the least and the largest element in one pass.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers.
    axis : int, tuple of int or None, default None
        What they are taken over; None: the whole array.
    keepdims : bool, default False
        Leave the reduced axes in, with length 1.
    backend : str, optional
        Serve this call by "reference", "cython" or "numba".

    Returns
    -------
    Extrema
        ``(min, max)`` in the dtype of x; NaN where a line has one.

    Raises
    ------
    TypeError
        x is not of a real number dtype.
    ValueError
        An axis that does not fit, or a line has no elements.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.extrema([[1.0, 2.0], [0.0, 5.0]], axis=0)
    Extrema(min=array([0., 2.]), max=array([1., 5.]))
    """
    function = "extrema"
    keepdims = arguments.flag(keepdims, function, "keepdims")
    if is_device_array(x):
        from fastnorm.device_norms import statistics as on_device  # imports Numba

        return Extrema(*on_device.extrema(x, axis, keepdims, backend))
    array = calls.take(x, function)
    axes = arguments.axis_indices(axis, array.ndim, function)
    plan = plan_reduction(array.shape, axes)
    chosen = choose(array.size, backend, function)
    shape = plan.stats_shape if keepdims else dropped_shape(array.shape, axes)
    if plan.count == 0:
        raise ValueError(f"{function}: a line without elements has no extrema, got shape {array.shape}")
    dtype = array.dtype.newbyteorder("=")
    if not array.size:
        return Extrema(np.empty(shape, dtype), np.empty(shape, dtype))
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:  # float64 does not hold them
        return Extrema(array.min(axis=axes, keepdims=keepdims), array.max(axis=axes, keepdims=keepdims))
    low, high = engine.extrema(calls.readable(array, chosen, function), plan, chosen)
    return Extrema(low.astype(dtype).reshape(shape)[()], high.astype(dtype).reshape(shape)[()])
