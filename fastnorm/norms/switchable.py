"""Switchable normalization."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, engine
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.norms.batch import check_count
from fastnorm.norms.conventions import TORCH, check_momentum, update_running
from fastnorm.plan import plan_channels, plan_reduction
from fastnorm.recipe import Measure, Moments

Array = npt.NDArray[Any]


def _softmax(values: Array) -> Array:
    exponentials: Array = np.exp(values - values.max())
    exponentials /= exponentials.sum()
    return exponentials


def switchable_norm(
    x: npt.ArrayLike,
    mean_weight: npt.ArrayLike,
    var_weight: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    channel_axis: int = 1,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Normalise by a learned mixture of instance, layer and batch statistics.

    Luo et al., "Differentiable Learning-to-Normalize via Switchable Normalization", 2018, equations 3 to 5: mean and
    variance are each a sum of the three, weighted by the softmax of `mean_weight` and of `var_weight`.

    Parameters
    ----------
    x : array_like
        (N, C, ...); real numbers.
    mean_weight, var_weight : array_like
        (3,): instance, layer, batch, before the softmax.
    weight, bias : array_like, optional
        (C,).
    running_mean, running_var : array_like, optional
        (C,), the batch statistics in inference. In training updated in place as by ``batch_norm(convention="torch")``.
    training : bool, default False
        Use the statistics of the batch.
    momentum : float, default 0.1
        The weight of the new running value, from 0 to 1.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    channel_axis : int, default 1
        The axis of the channels; -1 for NHWC. Not 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the statistics have a number for each item and channel.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        An array is not of a real number dtype, or a running one cannot be updated in place.
    ValueError
        A shape, axis, eps or momentum that does not fit; no running statistics in inference; in training one value
        per channel.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.arange(8.0).reshape(2, 2, 2)
    >>> only_instance = [50.0, 0.0, 0.0]
    >>> fastnorm.switchable_norm(x, only_instance, only_instance, training=True, eps=0)[0]
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    function = "switchable_norm"
    array = engine.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    mean_mixture = _softmax(arguments.statistic(mean_weight, 3, function, "mean_weight"))
    var_mixture = _softmax(arguments.statistic(var_weight, 3, function, "var_weight"))
    least = arguments.number(eps, function, "eps", minimum=0)
    momentum = check_momentum(momentum, function)
    weight = arguments.parameter(weight, (channels,), function, "weight")
    bias = arguments.parameter(bias, (channels,), function, "bias")
    layout = plan_channels(array.shape, axis)
    items, positions = layout.batch, layout.spatial
    mean_to_update = var_to_update = given_mean = given_var = None
    if training:
        check_count(items * positions, function)
        mean_to_update = arguments.running(running_mean, channels, function, "running_mean")
        var_to_update = arguments.running(running_var, channels, function, "running_var")
    elif running_mean is None or running_var is None:
        raise ValueError(f"{function}: running_mean and running_var are needed unless training=True")
    else:
        given_mean = arguments.statistic(running_mean, channels, function, "running_mean")
        given_var = arguments.statistic(running_var, channels, function, "running_var")
    call = engine.begin(array, out, dtype, backend, function, (weight, bias))
    shape = tuple(size if a in (0, axis) else 1 for a, size in enumerate(array.shape))
    if not array.size:
        empty = Stats(np.full(shape, np.nan), np.full(shape, np.nan))
        return (call.finish(), empty) if return_stats else call.finish()

    plan = plan_reduction(layout.shape, (1,) if layout.last else (2,))
    ordered = call.x if layout.order is None else call.x.transpose(layout.order)
    instance = engine.statistics(ordered, plan, Measure.VARIANCE, call.backend)
    layer = call.backend.merge(Moments(*(part.reshape(items, channels, 1) for part in instance)), positions, positions)
    batch_mean, batch_var = given_mean, given_var
    if batch_mean is None or batch_var is None:
        parts = Moments(*(part.reshape(1, items, channels) for part in instance))
        batch = call.backend.merge(parts, positions, positions)
        batch_mean = (batch.hi + batch.lo).reshape(channels)
        batch_var = batch.m2.reshape(channels) / (items * positions)

    mean = (
        mean_mixture[0] * (instance.hi + instance.lo).reshape(items, channels)
        + mean_mixture[1] * (layer.hi + layer.lo)
        + mean_mixture[2] * batch_mean
    )
    var = (
        var_mixture[0] * (instance.m2.reshape(items, channels) / positions)
        + var_mixture[1] * (layer.m2 / (channels * positions))
        + var_mixture[2] * batch_var
    )
    with np.errstate(invalid="ignore"):
        root = np.sqrt(var + least)
    rstd = 1.0 / np.where(root == 0.0, 1.0, root)
    engine.apply_channels(call, layout, Moments(mean, np.zeros_like(mean), var), rstd, weight, bias, 1)
    result = call.finish()
    if training:
        seen = Moments(batch_mean, np.zeros(channels), batch_var * (items * positions))
        update_running(mean_to_update, var_to_update, seen, items * positions, momentum, TORCH)
    return (result, Stats(mean.reshape(shape), rstd.reshape(shape))) if return_stats else result
