"""Normalization by given statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.device import is_device_array
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import fast_path, plain_calls_by
from fastnorm.plan import kept_shape, unbatched_layout
from fastnorm.recipe import Moments

Array = npt.NDArray[Any]


def as_moments(mean: Array, var: Array, eps: float) -> tuple[Moments, Array]:
    """Return statistics that were not computed from x as moments with a centre, and their rstd."""
    with np.errstate(all="ignore"):
        rstd = 1.0 / np.sqrt(var + eps)
    return Moments(mean, np.zeros_like(mean), var), rstd


def with_statistics(
    x: npt.ArrayLike, mean: npt.ArrayLike | None, var: npt.ArrayLike | None, weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None, channel_axis: int, eps: float,
) -> tuple[Array, Stats] | None:  # fmt: skip
    """Return the result of a plain call and its statistics, in a new array, else None."""
    y: Array | None = fast_path.given(x, mean, var, weight, bias, channel_axis, eps, None)
    if y is None:
        return None
    centre, variance = (np.array(part, np.float64) for part in (mean, var))
    shape = kept_shape(y.shape, (channel_axis % y.ndim,))
    return y, Stats(centre.reshape(shape), as_moments(centre, variance, eps)[1].reshape(shape))


@plain_calls_by("given", "x", "mean", "var", "weight", "bias", "channel_axis", "eps", "out")
@calls.through_plain_copies
def normalize(
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    var: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    channel_axis: int = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Normalise each channel by given statistics: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    What ``tf.nn.batch_normalization`` does, in one pass over x.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    mean, var : array_like
        (C,), the statistics of each channel.
    weight, bias : array_like, optional
        (C,).
    channel_axis : int, default -1
        The axis of the channels.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    out, dtype, return_stats, backend
        As in `layer_norm`.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        An array is not of a real number dtype, or out not of the result's.
    ValueError
        A shape, axis or eps that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.normalize([[1.0, 10.0], [3.0, 30.0]], mean=[2.0, 20.0], var=[1.0, 100.0], eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    function = "normalize"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    if return_stats and out is None and dtype is None and backend is None:
        served = with_statistics(x, mean, var, weight, bias, channel_axis, eps)
        if served is not None:
            return served
    if is_device_array(x):
        from fastnorm.device_norms import channels as on_device  # imports Numba

        return on_device.given(
            x, mean, var, weight, bias, channel_axis, eps, out, dtype, return_stats, backend
        )  # fmt: skip
    array = calls.take(x, function)
    axis = arguments.axis_index(channel_axis, array.ndim, function, "channel_axis")
    channels = array.shape[axis]
    least = arguments.number(eps, function, "eps", minimum=0)
    mean = arguments.statistic(mean, channels, function, "mean")
    var = arguments.statistic(var, channels, function, "var")
    weight, bias = arguments.parameters(weight, bias, (channels,), function)
    call = calls.begin(array, out, dtype, backend, function, (weight, bias), narrow=True)
    moments, rstd = as_moments(mean, var, least)
    if array.size:
        engine.apply_channels(call, unbatched_layout(array.shape, axis), moments, rstd, weight, bias, 1, given=True)
    shape = kept_shape(array.shape, (axis,))
    return engine.results(call, Stats(mean.reshape(shape), rstd.reshape(shape)) if return_stats else None)
