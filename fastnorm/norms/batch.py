"""Batch normalization, in inference and in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy.typing as npt

from fastnorm import arguments, calls, engine, gradients
from fastnorm.activations import activation_code, check_activation
from fastnorm.device import is_device_array
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import fast_path
from fastnorm.gradients import Gradients
from fastnorm.norms import masked
from fastnorm.norms.conventions import (
    LEFT_OPEN,
    Convention,
    ConventionName,
    check_momentum,
    find_convention,
    left_open,
    update_running,
)
from fastnorm.norms.given import as_moments, with_statistics
from fastnorm.plan import kept_shape, unbatched_layout
from fastnorm.recipe import Rule

Array = npt.NDArray[Any]


def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    training: bool = False,
    momentum: float | Literal["convention"] = LEFT_OPEN,
    eps: float | Literal["convention"] = LEFT_OPEN,
    channel_axis: int = 1,
    convention: ConventionName = "torch",
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
    """Normalise each channel over the batch: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2. In inference mean and var are the running ones;
    in training they are those of the batch (var biased), and the running ones, if given, move towards them.

    Parameters
    ----------
    x : array_like
        (N, C) or (N, C, ...); real numbers.
    running_mean, running_var : array_like, optional
        (C,); needed in inference. In training floating arrays that are updated in place, or None.
    weight, bias : array_like, optional
        (C,).
    training : bool, default False
        Use the statistics of the batch.
    momentum : float, default that of the convention
        From 0 to 1: the weight of the new value ("torch", 0.1) or of the old one ("keras" and "flax", 0.99; "onnx",
        0.9).
    eps : float, default that of the convention
        Added to the variance; at least 0. 1e-5, with "keras" 1e-3.
    channel_axis : int, default 1
        The axis of the channels; -1 for NHWC. Not 0. The same in all conventions.
    convention : {"torch", "keras", "onnx", "flax"}, default "torch"
        The library whose rule the running statistics follow, and whose defaults hold. "torch" takes the unbiased
        variance, and so needs two values per channel to train; the others the biased one, of one value too.
        docs/conventions.md has the sources.
    out, dtype, return_stats, backend
        As in `layer_norm`.
    residual, return_residual, activation
        As in `layer_norm`; in inference alone.
    where : array_like of bool, optional
        Which elements count for mean and variance; broadcasts against x, as (N, 1, L) does for sequences of unequal
        lengths, (N, C, L). In training alone. All elements are normalised, those left out by the same numbers as the
        others; what they are, NaN too, changes nothing else.
    weights : array_like, optional
        How often each element counts, finite and not negative; broadcasts against x; in training alone. With w, 0
        where `where` is False: ``mean = sum(w * x) / sum(w)`` and ``var = sum(w * (x - mean)^2) / sum(w)``; an
        unbiased running variance divides by ``sum(w) - 1``.

    Returns
    -------
    ndarray of the shape of x, or a tuple, as in `layer_norm`

    Raises
    ------
    TypeError
        An array is not of a real number dtype, a running one cannot be updated in place, or where is not of bool.
    ValueError
        A shape, axis, eps or momentum that does not fit; no running statistics in inference, or where or weights; in
        training fewer values per channel that count than the convention needs, weights that add up to 1 or less for an
        unbiased running variance, or a residual or activation. Nothing is changed then.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    >>> mean, var = np.zeros(3), np.ones(3)
    >>> fastnorm.batch_norm(x, mean, var, training=True)[0].round(4)
    array([-1.2247, -1.2247, -1.2247])
    >>> mean
    array([0.3, 0.4, 0.5])
    >>> padded = [[[1.0, 3.0]], [[5.0, 0.0]]]  # two sequences of one channel, the second one shorter
    >>> fastnorm.batch_norm(padded, training=True, where=[[[True, True]], [[True, False]]]).round(4)
    array([[[-1.2247,  0.    ]],
    <BLANKLINE>
           [[ 1.2247, -1.8371]]])
    """
    function = "batch_norm"
    training = arguments.flag(training, function, "training")
    return_stats = arguments.flag(return_stats, function, "return_stats")
    rules = find_convention(convention, function)
    if isinstance(momentum, str):
        momentum = left_open(momentum, rules.momentum, function, "momentum")
    else:
        momentum = check_momentum(momentum, function)
    if isinstance(eps, str):
        eps = left_open(eps, rules.eps, function, "eps")
    return_residual = arguments.flag(return_residual, function, "return_residual")
    plain = residual is None and activation is None and not return_residual
    if training and not plain:
        raise ValueError(f"{function}: residual, return_residual and activation must not be given in training")
    if not training and not (where is None and weights is None):
        raise ValueError(f"{function}: where and weights must not be given unless training=True")
    if weights is None and dtype is None and backend is None:
        y = None
        if training:
            given = x, running_mean, running_var, weight, bias, channel_axis, eps
            options = rules.weight_of_old(momentum), rules.unbiased, Stats if return_stats else None
            if where is None:
                y = fast_path.train(*given, *options, out)
            else:
                y = fast_path.masked_train(*given, *options, where, out)
        elif plain and not return_stats:
            y = fast_path.given(x, running_mean, running_var, weight, bias, channel_axis, eps, out)
        elif plain and out is None:
            y = with_statistics(x, running_mean, running_var, weight, bias, channel_axis, eps)
        elif not return_stats:
            code = activation_code(activation, x, function)
            y = fast_path.fused_given(
                x, residual, running_mean, running_var, weight, bias, channel_axis, eps, code, return_residual, out
            )
        if y is not None:
            return y
    copy = None
    if out is None and backend is None:
        copy = calls.plain_copy(x, dtype, function)
    if copy is not None:
        return batch_norm(
            copy, running_mean, running_var, weight, bias, training=training, momentum=momentum, eps=eps,
            channel_axis=channel_axis, convention=convention, residual=residual, return_residual=return_residual,
            activation=activation, where=where, weights=weights, out=copy, return_stats=return_stats,
        )  # fmt: skip
    if is_device_array(x):
        from fastnorm.device_norms import channels as on_device  # imports Numba

        moving = on_device.Moving(rules.weight_of_old(momentum), rules.unbiased)
        return on_device.batch(
            x, running_mean, running_var, weight, bias, training, moving, eps, channel_axis, out, dtype, return_stats,
            backend, residual, return_residual, activation, where, weights,
        )  # fmt: skip
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    weight, bias = arguments.parameters(weight, bias, (channels,), function)
    if training:
        return _by_batch(
            array, axis, running_mean, running_var, weight, bias, rule, momentum, rules, where, weights, out, dtype,
            backend, return_stats,
        )  # fmt: skip
    return _by_running(
        array, axis, running_mean, running_var, weight, bias, rule, residual, return_residual, activation, out, dtype,
        backend, return_stats,
    )  # fmt: skip


def _by_batch(
    array: Array, axis: int, running_mean: npt.ArrayLike | None, running_var: npt.ArrayLike | None,
    weight: Array | None, bias: Array | None, rule: Rule, momentum: float, rules: Convention,
    where: npt.ArrayLike | None, weights: npt.ArrayLike | None, out: Array | None, dtype: npt.DTypeLike | None,
    backend: str | None, return_stats: bool,
) -> ArrayOrStats:  # fmt: skip
    """Normalise by the statistics of the batch, and move the running ones."""
    function = "batch_norm"
    channels, layout = array.shape[axis], unbatched_layout(array.shape, axis)
    mean_to_update = arguments.running(running_mean, channels, function, "running_mean")
    var_to_update = arguments.running(running_var, channels, function, "running_var")
    count = layout.batch * layout.spatial
    if rules.unbiased:
        arguments.check_count(count, function)
    counted = masked.find_counted(array, axis, weights, where, function, per_group=None)
    if counted is not None:
        masked.check_counted(counted, rules.unbiased, var_to_update is not None, function)
    call = calls.begin(array, out, dtype, backend, function, (weight, bias), narrow=counted is None)
    if array.size and counted is not None:
        moments, totals, batch = masked.normalize_channels(call, axis, counted, rule, weight, bias)
        update_running(mean_to_update, var_to_update, moments, totals, momentum, rules)
        return engine.results(call, batch if return_stats else None)
    found = None
    if array.size:
        wanted = return_stats or mean_to_update is not None or var_to_update is not None
        plan = layout.plan(per_item=False)
        found = engine.normalize_channels(call, layout, plan, rule, weight, bias, 1, wanted)
    stats = engine.stats_of(found, count, rule, kept_shape(array.shape, (axis,))) if return_stats else None
    result = engine.results(call, stats)
    if found is not None:
        update_running(mean_to_update, var_to_update, found, count, momentum, rules)
    return result


def _by_running(
    array: Array, axis: int, running_mean: npt.ArrayLike | None, running_var: npt.ArrayLike | None,
    weight: Array | None, bias: Array | None, rule: Rule, residual: npt.ArrayLike | None, return_residual: bool,
    activation: Any, out: Array | None, dtype: npt.DTypeLike | None, backend: str | None, return_stats: bool,
) -> ArrayOrStats:  # fmt: skip
    """Normalise by given statistics, with what stands next to that."""
    function = "batch_norm"
    channels, layout = array.shape[axis], unbatched_layout(array.shape, axis)
    mean, var = arguments.running_statistics(running_mean, running_var, channels, function)
    addend = arguments.residual(residual, return_residual, array, function)
    applied = check_activation(activation, function, calls.compute_dtype(array, dtype, function))
    plain = addend is None and applied is None and not return_residual
    call = calls.begin(array, out, dtype, backend, function, (weight, bias, addend), narrow=plain)
    call, fusion = engine.fuse(call, addend, applied, return_residual)
    moments, rstd = as_moments(mean, var, rule.eps)
    if array.size:
        engine.apply_channels(call, layout, moments, rstd, weight, bias, 1, fusion, given=True)
    stats_shape = kept_shape(array.shape, (axis,))
    stats = Stats(mean.reshape(stats_shape), rstd.reshape(stats_shape)) if return_stats else None
    return engine.results(call, stats, return_residual)


def batch_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    training: bool = False,
    eps: float | Literal["convention"] = LEFT_OPEN,
    channel_axis: int = 1,
    convention: ConventionName = "torch",
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
    where: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> Gradients:
    """Return the gradients of `batch_norm`.

    With ``xhat = (x - mean) * rstd``: ``dweight = sum(dy * xhat)`` and ``dbias = sum(dy)`` over all but the channels.
    In training, where mean and rstd depend on x, ``dx = rstd * weight * (dy - mean(dy) - xhat * mean(dy * xhat))``
    (Ioffe and Szegedy, 2015, section 3); in inference ``dx = rstd * weight * dy``.

    Parameters
    ----------
    dy : array_like
        The gradient of the result, of the shape of x.
    x, weight, training, eps, channel_axis, convention
        As in `batch_norm`.
    where, weights : array_like, optional
        As in `batch_norm`: with w, what an element counts,
        ``dx = rstd * weight * (dy - w * (sum(dy) + xhat * sum(dy * xhat)) / sum(w))``. All sums go over all elements,
        since all are results; one that is left out and whose dy is 0 may be NaN.
    mean, rstd : array_like, optional
        The statistics that ``batch_norm(..., return_stats=True)`` returned; computed again if not given.
    running_mean, running_var : array_like, optional
        (C,); needed in inference without mean and rstd. Not changed.
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
        A shape, axis, eps or convention that does not fit; no statistics in inference, or where or weights; in
        training fewer values per channel that count than the convention needs.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> x, dy = [[1.0], [2.0], [3.0]], [[1.0], [0.0], [0.0]]
    >>> dx, dweight, dbias = fastnorm.batch_norm_backward(dy, x, training=True)
    >>> dx.ravel().round(4), dweight.round(4), dbias
    (array([ 0.2041, -0.4082,  0.2041]), array([-1.2247]), array([1.]))
    """
    function = "batch_norm_backward"
    training = arguments.flag(training, function, "training")
    rules = find_convention(convention, function)
    if isinstance(eps, str):
        eps = left_open(eps, rules.eps, function, "eps")
    if dtype is None and backend is None and weights is None:
        served: Gradients | None = None
        if where is None:
            served = fast_path.batch_backward(
                dy, x, weight, mean, rstd, running_mean, running_var, channel_axis, eps, training, Gradients, out
            )
        elif training:
            served = fast_path.masked_batch_backward(
                dy, x, weight, mean, rstd, channel_axis, eps, rules.unbiased, Gradients, where, out
            )
        if served is not None:
            return served
    if is_device_array(x):
        from fastnorm.device_norms import gradients as on_device  # imports Numba

        return on_device.batch(
            dy, x, weight, mean, rstd, running_mean, running_var, training, rules.unbiased, eps, channel_axis, out,
            dtype, backend, where, weights,
        )  # fmt: skip
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    channels = array.shape[axis]
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    weight = arguments.parameter(weight, (channels,), function, "weight")
    layout = unbatched_layout(array.shape, axis)
    stats_shape = kept_shape(array.shape, (axis,))
    given = gradients.given_statistics(mean, rstd, stats_shape, function)
    counted = masked.find_counted(array, axis, weights, where, function, per_group=None)
    if training:
        if rules.unbiased:
            arguments.check_count(layout.batch * layout.spatial, function)
        if counted is not None:
            masked.check_counted(counted, rules.unbiased, False, function)
    elif counted is not None:
        raise ValueError(f"{function}: where and weights must not be given unless training=True")
    elif given is None:
        if running_mean is None or running_var is None:
            raise ValueError(
                f"{function}: mean and rstd, or running_mean and running_var, are needed unless training=True"
            )
        centre = arguments.statistic(running_mean, channels, function, "running_mean")
        var = arguments.statistic(running_var, channels, function, "running_var")
        given = gradients.Given(centre, as_moments(centre, var, rule.eps)[1])
    call, upstream = gradients.begin(dy, array, out, dtype, backend, function, (weight,), narrow=counted is None)
    if not array.size:
        return gradients.nothing(call, weight, channels)
    if counted is not None:
        found = masked.of_channels(call, upstream, counted, rule, weight, given)
    elif training or given is None:
        plan = layout.plan(per_item=False)
        found = gradients.of_channels(call, upstream, layout, plan, rule, weight, given, 1)
    else:
        found = gradients.of_given(call, upstream, layout, weight, given)
    return gradients.finish(call, found, weight)
