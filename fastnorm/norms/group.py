"""Group normalization and its limit, instance normalization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine, gradients
from fastnorm.activations import activation_code, check_activation
from fastnorm.device import is_device_array
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import plain_calls_by
from fastnorm.gradients import Given, Gradients
from fastnorm.norms import masked
from fastnorm.plan import ChannelLayout, Plan, kept_shape, plan_channels, plan_groups_last, plan_reduction
from fastnorm.recipe import Rule

Array = npt.NDArray[Any]


def _normalize_groups(
    function: str, x: npt.ArrayLike, num_groups: int | None, weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None, channel_axis: int, eps: float, out: Array | None, dtype: npt.DTypeLike | None,
    return_stats: bool, backend: str | None, residual: npt.ArrayLike | None = None, return_residual: bool = False,
    activation: Any = None, where: npt.ArrayLike | None = None, weights: npt.ArrayLike | None = None,
) -> Any:  # fmt: skip
    """Normalise groups of channels; without `num_groups` each channel is one."""
    if is_device_array(x):
        from fastnorm.device_norms import channels as on_device  # imports Numba

        return on_device.groups(
            function, x, num_groups, weight, bias, channel_axis, eps, out, dtype, return_stats, backend,
            residual, return_residual, activation, where, weights,
        )  # fmt: skip
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    per_group = arguments.per_group(channels, num_groups, function)
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    weight, bias = arguments.parameters(weight, bias, (channels,), function)
    addend = arguments.residual(residual, return_residual, array, function)
    applied = check_activation(activation, function, calls.compute_dtype(array, dtype, function))
    counted = masked.find_counted(array, axis, weights, where, function, per_group=per_group)
    layout = plan_channels(array.shape, axis)
    # Single values are written twice, and rounded to 16 bits once.
    narrow = counted is None and addend is None and applied is None and layout.spatial > 1
    call = calls.begin(array, out, dtype, backend, function, (weight, bias, addend), narrow=narrow)
    call, fusion = engine.fuse(call, addend, applied, return_residual)
    stats_shape = kept_shape(array.shape, (0, axis))
    if array.size and counted is not None:
        found = masked.normalize_channels(call, axis, counted, rule, weight, bias, fusion)
        return engine.results(call, found.stats if return_stats else None, return_residual)
    moments, count = None, 0
    if array.size:
        plan = _plan_groups(layout, per_group)
        count = plan.count
        moments = engine.normalize_channels(call, layout, plan, rule, weight, bias, per_group, return_stats, fusion)
    stats = engine.stats_of(moments, count, rule, stats_shape, per_group) if return_stats else None
    return engine.results(call, stats, return_residual)


def _plan_groups(layout: ChannelLayout, per_group: int) -> Plan:
    split = layout.channels // per_group, per_group
    if layout.spatial == 1:  # groups are rows
        return plan_reduction((layout.batch, *split), (2,))
    if layout.last:
        return plan_groups_last(layout.batch, layout.spatial, *split)
    return plan_reduction((layout.batch, *split, layout.spatial), (2, 3))


@plain_calls_by("groups", "x", "num_groups", "weight", "bias", "channel_axis", "eps", "out")
@plain_calls_by(
    "groups_with_options", "x", "residual", "num_groups", "weight", "bias", "channel_axis", "eps", "activation",
    partial(activation_code, function="group_norm"), "return_residual", "return_stats", Stats, "out",
)  # fmt: skip
@plain_calls_by(
    "masked_groups", "x", "num_groups", True, "weight", "bias", "channel_axis", "eps", "return_stats", Stats, "where",
    "out",
)  # fmt: skip
@calls.through_plain_copies
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
    residual: npt.ArrayLike | None = None,
    return_residual: bool = False,
    activation: str | Callable[[float], float] | None = None,
    where: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
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
    residual, return_residual, activation
        As in `layer_norm`.
    where : array_like of bool, optional
        Which elements count for mean and variance; broadcasts against x, as (N, 1, L) does for sequences of unequal
        lengths, (N, C, L). All elements are normalised, those left out by the same numbers as the others; what they
        are, NaN too, changes nothing else. Where nothing of a group counts, its mean and rstd are 0, and the result is
        the bias: an item that is all padding harms no gradient.
    weights : array_like, optional
        How often each element counts, finite and not negative; broadcasts against x. With w, 0 where `where` is False:
        ``mean = sum(w * x) / sum(w)`` and ``var = sum(w * (x - mean)^2) / sum(w)``.

    Returns
    -------
    ndarray of the shape of x, or a tuple, as in `layer_norm`

    Raises
    ------
    TypeError
        An array is not of a real number dtype, out not of the result's, or where not of bool; an activation is neither
        a name nor compiled, or does not compile for the dtype.
    ValueError
        num_groups does not divide C, or a shape, axis, eps, where or weights that does not fit; an unknown activation
        or backend.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.group_norm([[0.0, 2.0, 10.0, 30.0]], 2, eps=0)
    array([[-1.,  1., -1.,  1.]])
    """
    groups = arguments.integer(num_groups, "group_norm", "num_groups", minimum=1)
    return _normalize_groups(
        "group_norm", x, groups, weight, bias, channel_axis, eps, out, dtype, return_stats, backend,
        residual, return_residual, activation, where, weights,
    )  # fmt: skip


@plain_calls_by("instances", "x", "weight", "bias", "channel_axis", "eps", "out")
@plain_calls_by("instances_with_statistics", "x", "weight", "bias", "channel_axis", "eps", "return_stats", Stats, "out")
@plain_calls_by(
    "masked_groups", "x", None, False, "weight", "bias", "channel_axis", "eps", "return_stats", Stats, "where", "out"
)
@calls.through_plain_copies
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
    where: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
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
        As in `layer_norm`; the statistics have a number for each item and channel.
    where, weights : array_like, optional
        What each element counts for mean and variance, as in `group_norm`.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        An array is not of a real number dtype, out not of the result's, or where not of bool.
    ValueError
        A shape, axis, eps, where or weights that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.instance_norm([[[1.0, 3.0], [10.0, 10.0]]], eps=0)
    array([[[-1.,  1.],
            [ 0.,  0.]]])
    >>> fastnorm.instance_norm([[[1.0, 3.0, 0.0]]], eps=0, where=[[[True, True, False]]])  # the 0 is padding
    array([[[-1.,  1., -2.]]])
    """
    return _normalize_groups(
        "instance_norm", x, None, weight, bias, channel_axis, eps, out, dtype, return_stats, backend,
        where=where, weights=weights,
    )  # fmt: skip


def _groups_backward(
    function: str, dy: npt.ArrayLike, x: npt.ArrayLike, num_groups: int | None, weight: npt.ArrayLike | None,
    mean: npt.ArrayLike | None, rstd: npt.ArrayLike | None, channel_axis: int, eps: float, out: Array | None,
    dtype: npt.DTypeLike | None, backend: str | None, where: npt.ArrayLike | None, weights: npt.ArrayLike | None,
) -> Gradients:  # fmt: skip
    if is_device_array(x):
        from fastnorm.device_norms import gradients as on_device  # imports Numba

        return on_device.groups(
            function, dy, x, num_groups, weight, mean, rstd, channel_axis, eps, out, dtype, backend, where, weights,
        )  # fmt: skip
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    per_group = arguments.per_group(channels, num_groups, function)
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    weight = arguments.parameter(weight, (channels,), function, "weight")
    stats_shape = kept_shape(array.shape, (0, axis))
    given = gradients.given_statistics(mean, rstd, stats_shape, function)
    counted = masked.find_counted(array, axis, weights, where, function, per_group=per_group)
    layout = plan_channels(array.shape, axis)
    narrow = counted is None and layout.spatial > 1
    call, upstream = gradients.begin(dy, array, out, dtype, backend, function, (weight,), narrow=narrow)
    if not array.size:
        return gradients.nothing(call, weight, channels)
    if given is not None:  # one number for each group, of those for each of its channels
        given = Given(*(np.ascontiguousarray(part[::per_group]) for part in given))
    if counted is not None:
        return gradients.finish(call, masked.of_channels(call, upstream, counted, rule, weight, given), weight)
    plan = _plan_groups(layout, per_group)
    found = gradients.of_channels(call, upstream, layout, plan, rule, weight, given, per_group)
    return gradients.finish(call, found, weight)


@plain_calls_by(
    "groups_backward", "dy", "x", "num_groups", "weight", "mean", "rstd", "channel_axis", "eps", Gradients, "out"
)
@plain_calls_by(
    "masked_groups_backward", "dy", "x", "num_groups", True, "weight", "mean", "rstd", "channel_axis", "eps", Gradients,
    "where", "out",
)  # fmt: skip
def group_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    num_groups: int,
    weight: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    channel_axis: int = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
    where: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> Gradients:
    """Return the gradients of `group_norm`.

    With ``xhat = (x - mean) * rstd`` and ``g = weight * dy``: ``dx = rstd * (g - mean(g) - xhat * mean(g * xhat))``,
    the means over a group; ``dweight = sum(dy * xhat)`` and ``dbias = sum(dy)`` over the items and the positions.

    Parameters
    ----------
    dy : array_like
        The gradient of the result, of the shape of x.
    x, num_groups, weight, channel_axis, eps
        As in `group_norm`.
    where, weights : array_like, optional
        As in `group_norm`: with w, what an element counts,
        ``dx = rstd * (g - w * (sum(g) + xhat * sum(g * xhat)) / sum(w))``. All sums go over all elements, since all are
        results; one that is left out and whose dy is 0 may be NaN.
    mean, rstd : array_like, optional
        The statistics that ``group_norm(..., return_stats=True)`` returned; computed again if not given.
    out, dtype, backend
        As in `layer_norm_backward`.

    Returns
    -------
    Gradients
        ``(dx, dweight, dbias)``; the last two, (C,), in the dtype of weight, or of dx without it.

    Raises
    ------
    TypeError
        An array is not of a real number dtype, out not of the result's, or where not of bool.
    ValueError
        num_groups does not divide C, or a shape, axis, eps, where or weights that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> dx, dweight, dbias = fastnorm.group_norm_backward([[1.0, 0.0, 0.0]], [[1.0, 2.0, 3.0]], 1)
    >>> dx.round(4), dweight.round(4), dbias
    (array([[ 0.2041, -0.4082,  0.2041]]), array([-1.2247,  0.    ,  0.    ]), array([1., 0., 0.]))
    """
    function = "group_norm_backward"
    groups = arguments.integer(num_groups, function, "num_groups", minimum=1)
    return _groups_backward(
        function, dy, x, groups, weight, mean, rstd, channel_axis, eps, out, dtype, backend, where, weights
    )


@plain_calls_by("instances_backward", "dy", "x", "weight", "mean", "rstd", "channel_axis", "eps", Gradients, "out")
@plain_calls_by(
    "masked_groups_backward", "dy", "x", None, False, "weight", "mean", "rstd", "channel_axis", "eps", Gradients,
    "where", "out",
)  # fmt: skip
def instance_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    channel_axis: int = 1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
    where: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> Gradients:
    """Return the gradients of `instance_norm`: those of `group_norm` where each channel is a group.

    Parameters
    ----------
    dy, x, weight, mean, rstd, channel_axis, eps, out, dtype, backend, where, weights
        As in `group_norm_backward`.

    Returns
    -------
    Gradients
        ``(dx, dweight, dbias)``; the last two, (C,), in the dtype of weight, or of dx without it.

    Raises
    ------
    TypeError
        An array is not of a real number dtype, out not of the result's, or where not of bool.
    ValueError
        A shape, axis, eps, where or weights that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.instance_norm_backward([[[1.0, 0.0, 0.0]]], [[[1.0, 2.0, 3.0]]]).dx.round(4)
    array([[[ 0.2041, -0.4082,  0.2041]]])
    """
    return _groups_backward(
        "instance_norm_backward", dy, x, None, weight, mean, rstd, channel_axis, eps, out, dtype, backend,
        where, weights,
    )  # fmt: skip
