"""Switchable normalization."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine, gradients
from fastnorm.calls import Call
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.gradients import ChannelSums
from fastnorm.norms.conventions import TORCH, check_momentum, update_running
from fastnorm.plan import ChannelLayout, kept_shape, plan_channels
from fastnorm.recipe import Measure, Moments, Rule

Array = npt.NDArray[Any]


def _softmax(values: Array) -> Array:
    with np.errstate(all="ignore"):  # of an infinite weight: NaN
        exponentials: Array = np.exp(values - values.max())
        exponentials /= exponentials.sum()
    return exponentials


class SwitchableGradients(NamedTuple):
    """What `switchable_norm_backward` returns.

    Attributes
    ----------
    dx : ndarray
        The gradient of x, in its shape.
    dmean_weight, dvar_weight : ndarray
        Those of the weights of the two mixtures, (3,).
    dweight, dbias : ndarray
        Those of weight and bias, (C,).

    Examples
    --------
    >>> import fastnorm
    >>> x, dy = [[[1.0, 2.0], [3.0, 5.0]]], [[[1.0, 0.0], [0.0, 0.0]]]
    >>> gradients = fastnorm.switchable_norm_backward(dy, x, [0.0] * 3, [0.0] * 3, training=True)
    >>> gradients.dx.shape, gradients.dbias
    ((1, 2, 2), array([1., 0.]))
    """

    dx: Array
    dmean_weight: Array
    dvar_weight: Array
    dweight: Array
    dbias: Array


class _Mixed(NamedTuple):
    """The instance's, the layer's and the batch's statistics, and what is mixed of them, float64.

    Shapes are (N, C), or broadcast to that.
    """

    means: tuple[Array, Array, Array]
    variances: tuple[Array, Array, Array]
    mean: Array
    var: Array
    rstd: Array


@np.errstate(all="ignore")
def _mix(
    call: Call, layout: ChannelLayout, shares: tuple[Array, Array], eps: float, batch_mean: Array | None,
    batch_var: Array | None,
) -> _Mixed:  # fmt: skip
    """Compute all statistics of x; those of the batch unless they are given."""
    items, channels, positions = layout.batch, layout.channels, layout.spatial
    plan = layout.plan(per_item=True)
    ordered = call.x if layout.order is None else call.x.transpose(layout.order)
    instance = engine.statistics(ordered, plan, Measure.VARIANCE, call.backend)
    layer = call.backend.merge(Moments(*(part.reshape(items, channels, 1) for part in instance)), positions, positions)
    if batch_mean is None or batch_var is None:
        parts = Moments(*(part.reshape(1, items, channels) for part in instance))
        batch = call.backend.merge(parts, positions, positions)
        batch_mean = (batch.hi + batch.lo).reshape(channels)
        batch_var = batch.m2.reshape(channels) / (items * positions)
    means = (instance.hi + instance.lo).reshape(items, channels), layer.hi + layer.lo, batch_mean
    variances = instance.m2.reshape(items, channels) / positions, layer.m2 / (channels * positions), batch_var
    mean, var = (
        share[0] * parts[0] + share[1] * parts[1] + share[2] * parts[2]
        for share, parts in zip(shares, (means, variances), strict=True)
    )
    root = np.sqrt(var + eps)
    return _Mixed(means, variances, mean, var, 1.0 / np.where(root == 0.0, 1.0, root))


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
    RuntimeError
        The backend that is asked for cannot run here.

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
    training = arguments.flag(training, function, "training")
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    mean_mixture = _softmax(arguments.statistic(mean_weight, 3, function, "mean_weight"))
    var_mixture = _softmax(arguments.statistic(var_weight, 3, function, "var_weight"))
    least = arguments.number(eps, function, "eps", minimum=0)
    momentum = check_momentum(momentum, function)
    weight, bias = arguments.parameters(weight, bias, (channels,), function)
    layout = plan_channels(array.shape, axis)
    items, positions = layout.batch, layout.spatial
    mean_to_update = var_to_update = given_mean = given_var = None
    if training:
        arguments.check_count(items * positions, function)
        mean_to_update = arguments.running(running_mean, channels, function, "running_mean")
        var_to_update = arguments.running(running_var, channels, function, "running_var")
    else:
        given_mean, given_var = arguments.running_statistics(running_mean, running_var, channels, function)
    call = calls.begin(array, out, dtype, backend, function, (weight, bias), narrow=True)
    shape = kept_shape(array.shape, (0, axis))
    if not array.size:
        return engine.results(call, engine.stats_of(None, 0, Rule(), shape) if return_stats else None)

    mixed = _mix(call, layout, (mean_mixture, var_mixture), least, given_mean, given_var)
    centre = Moments(mixed.mean, np.zeros_like(mixed.mean), mixed.var)
    engine.apply_channels(call, layout, centre, mixed.rstd, weight, bias, 1, given=True)
    stats = Stats(mixed.mean.reshape(shape), mixed.rstd.reshape(shape)) if return_stats else None
    result = engine.results(call, stats)
    if training:
        seen = Moments(mixed.means[2], np.zeros(channels), mixed.variances[2] * (items * positions))
        update_running(mean_to_update, var_to_update, seen, items * positions, momentum, TORCH)
    return result


def switchable_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mean_weight: npt.ArrayLike,
    var_weight: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    training: bool = False,
    eps: float = 1e-5,
    channel_axis: int = 1,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
) -> SwitchableGradients:
    """Return the gradients of `switchable_norm`.

    With ``xhat = (x - mean) * rstd`` and ``g = weight * dy``, sums over the positions of a channel of an item, the
    gradients of its mean and its variance are ``-rstd * sum(g)`` and ``-rstd^2 / 2 * sum(g * xhat)``; each goes on to
    the three statistics by their shares, and from them to the elements behind them (Luo et al., 2018, appendix). In
    inference those of the batch do not depend on x. A softmax with shares s passes the gradients d of the shares on
    as ``s * (d - sum(s * d))``.

    Parameters
    ----------
    dy : array_like
        The gradient of the result, of the shape of x.
    x, mean_weight, var_weight, weight, training, eps, channel_axis
        As in `switchable_norm`. Their statistics are always computed again: mean and rstd alone would not do.
    running_mean, running_var : array_like, optional
        (C,); needed in inference. Not changed.
    out, dtype, backend
        As in `layer_norm_backward`.

    Returns
    -------
    SwitchableGradients
        ``(dx, dmean_weight, dvar_weight, dweight, dbias)``; the second and third, (3,), in the dtype of their weight,
        the last two, (C,), in that of weight, or of dx without it.

    Raises
    ------
    TypeError
        An array is not of a real number dtype, or out not of the result's.
    ValueError
        A shape, axis or eps that does not fit; no running statistics in inference; in training one value per channel.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> x, dy = [[[1.0, 2.0, 3.0]]], [[[1.0, 0.0, 0.0]]]
    >>> found = fastnorm.switchable_norm_backward(dy, x, [0.0] * 3, [0.0] * 3, training=True)
    >>> found.dx.round(4), found.dweight.round(4), found.dbias
    (array([[[ 0.2041, -0.4082,  0.2041]]]), array([-1.2247]), array([1.]))
    """
    function = "switchable_norm_backward"
    training = arguments.flag(training, function, "training")
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    shares = (
        _softmax(arguments.statistic(mean_weight, 3, function, "mean_weight")),
        _softmax(arguments.statistic(var_weight, 3, function, "var_weight")),
    )
    least = arguments.number(eps, function, "eps", minimum=0)
    weight = arguments.parameter(weight, (channels,), function, "weight")
    layout = plan_channels(array.shape, axis)
    given_mean = given_var = None
    if training:
        arguments.check_count(layout.batch * layout.spatial, function)
    else:
        given_mean, given_var = arguments.running_statistics(running_mean, running_var, channels, function)
    call, upstream = gradients.begin(dy, array, out, dtype, backend, function, (weight,), narrow=True)
    if not array.size:
        found, of_shares = gradients.nothing(call, weight, channels), (np.zeros(3), np.zeros(3))
    else:
        mixed = _mix(call, layout, shares, least, given_mean, given_var)
        sums = gradients.channel_dots(call, upstream, layout, mixed.mean, mixed.rstd)
        of_shares = _apply_gradients(call, upstream, layout, shares, mixed, sums, weight, training)
        found = gradients.finish(call, sums, weight)
    dmean_weight, dvar_weight = (
        gradients.rounded(part, calls.take(like, function), call.result)
        for part, like in zip(of_shares, (mean_weight, var_weight), strict=True)
    )
    assert found.dweight is not None
    assert found.dbias is not None
    return SwitchableGradients(found.dx, dmean_weight, dvar_weight, found.dweight, found.dbias)


def _apply_gradients(
    call: Call, dy: Array, layout: ChannelLayout, shares: tuple[Array, Array], mixed: _Mixed, sums: ChannelSums,
    weight: Array | None, training: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """Write dx; return the gradients of the weights of the mixtures."""
    w = np.ones(layout.channels) if weight is None else weight.astype(np.float64)
    with np.errstate(all="ignore"):
        of_mean = -mixed.rstd * (sums.sums * w)
        of_var = -0.5 * mixed.rstd * mixed.rstd * (sums.products * w)
        centre = mixed.means[0]  # that of the elements themselves: their deviations are the smallest
        slope, shift = np.zeros_like(of_mean), np.zeros_like(of_mean)
        behind = zip(_per_element(of_mean, layout), _per_element(of_var, layout), strict=True)
        for k, (to_mean, to_var) in enumerate(behind):
            if k < 2 or training:  # in inference the batch's are constants
                steepness = 2.0 * shares[1][k] * to_var
                slope += steepness
                shift += shares[0][k] * to_mean + steepness * (centre - mixed.means[k])
        gradients.apply_channels(call, dy, layout, centre, mixed.rstd * w, slope, shift)
        return (  # about the mixture: sum(s * d) is the part of the mixture itself
            shares[0] * [(of_mean * (part - mixed.mean)).sum() for part in mixed.means],
            shares[1] * [(of_var * (part - mixed.var)).sum() for part in mixed.variances],
        )


def _per_element(gradient: Array, layout: ChannelLayout) -> tuple[Array, Array, Array]:
    """Return the gradients of instance, layer and batch, of those of the mixture, by the number of elements behind."""
    return (
        gradient / layout.spatial,
        gradient.sum(axis=1, keepdims=True) / (layout.channels * layout.spatial),
        gradient.sum(axis=0, keepdims=True) / (layout.batch * layout.spatial),
    )
