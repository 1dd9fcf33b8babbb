"""Group normalization and its limit, instance normalization."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, engine
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.express import lane
from fastnorm.plan import plan_channels, plan_groups_last, plan_reduction
from fastnorm.recipe import Rule

Array = npt.NDArray[Any]


def _normalize_groups(
    function: str, x: npt.ArrayLike, num_groups: int | None, weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None, channel_axis: int, eps: float, out: Array | None, dtype: npt.DTypeLike | None,
    return_stats: bool, backend: str | None,
) -> Any:  # fmt: skip
    """Normalise groups of channels; without `num_groups` each channel is one."""
    if dtype is None and not return_stats and backend is None:
        y = lane.groups(x, num_groups, weight, bias, channel_axis, eps, out)
        if y is not None:
            return y
    array = engine.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    per_group = 1 if num_groups is None else channels // num_groups
    if num_groups is not None and channels % num_groups:
        raise ValueError(f"{function}: num_groups must divide the {channels} channels, got {num_groups}")
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    weight = arguments.parameter(weight, (channels,), function, "weight")
    bias = arguments.parameter(bias, (channels,), function, "bias")
    call = engine.begin(array, out, dtype, backend, function, (weight, bias))
    stats_shape = tuple(size if a in (0, axis) else 1 for a, size in enumerate(array.shape))
    if not array.size:
        empty = Stats(np.full(stats_shape, np.nan), np.full(stats_shape, np.nan))
        return (call.finish(), empty) if return_stats else call.finish()
    layout = plan_channels(array.shape, axis)
    split = layout.channels // per_group, per_group
    if layout.last:
        plan = plan_groups_last(layout.batch, layout.spatial, *split)
    else:
        plan = plan_reduction((layout.batch, *split, layout.spatial), (2, 3))
    moments = engine.normalize_channels(call, layout, plan, rule, weight, bias, per_group, return_stats)
    result = call.finish()
    if moments is None:
        return result
    return result, engine.stats_of(moments, plan.count, rule, stats_shape, per_group)


def group_norm(
    x: npt.ArrayLike,
    num_groups: int,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    channel_axis: int = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Normalise groups of adjacent channels of each item: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Wu and He, "Group Normalization", 2018, equations 1 to 7.

    Parameters
    ----------
    x : array_like
        (N, C, ...); real numbers.
    num_groups : int
        How many groups the channels make; divides C.
    weight, bias : array_like, optional
        (C,).
    channel_axis : int, default 1
        The axis of the channels; -1 for NHWC. Not 0.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the statistics have a number for each item and channel.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        An array is not of a real number dtype, or out not of the result's.
    ValueError
        num_groups does not divide C, or a shape, axis or eps that does not fit.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.group_norm([[0.0, 2.0, 10.0, 30.0]], 2, eps=0)
    array([[-1.,  1., -1.,  1.]])
    """
    groups = arguments.integer(num_groups, "group_norm", "num_groups", minimum=1)
    return _normalize_groups(
        "group_norm", x, groups, weight, bias, channel_axis, eps, out, dtype, return_stats, backend
    )


def instance_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    channel_axis: int = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Normalise each channel of each item: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016, equation 4.

    Parameters
    ----------
    x : array_like
        (N, C, ...); real numbers.
    weight, bias : array_like, optional
        (C,).
    channel_axis : int, default 1
        The axis of the channels; -1 for NHWC. Not 0.
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

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.instance_norm([[[1.0, 3.0], [10.0, 10.0]]], eps=0)
    array([[[-1.,  1.],
            [ 0.,  0.]]])
    """
    return _normalize_groups(
        "instance_norm", x, None, weight, bias, channel_axis, eps, out, dtype, return_stats, backend
    )
