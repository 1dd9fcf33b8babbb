"""Norms of a layer's weights: weight normalization, weight standardization, spectral normalization, folding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.dispatch import choose
from fastnorm.dtypes import result_dtype, storage
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import plain_calls_by
from fastnorm.plan import kept_shape, plan_reduction, unbatched_layout
from fastnorm.recipe import Measure, Rule
from fastnorm.settings import current

Array = npt.NDArray[Any]


@plain_calls_by("slices", "v", "g", "axis", "out")
def weight_norm(
    v: npt.ArrayLike,
    g: npt.ArrayLike,
    *,
    axis: int | None = 0,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Give each slice of a weight the length `g`: ``g * v / ||v||``.

    Salimans and Kingma, "Weight Normalization", 2016, equation 2. A slice of zeros stays so.

    Parameters
    ----------
    v : array_like
        The direction, such as (out, in) or (out, in, h, w); real numbers.
    g : array_like
        The lengths: as many as `axis` has, in any shape of that size, such as (out,) or torch's (out, 1, 1, 1).
    axis : int or None, default 0
        The axis whose slices have a length of their own; None: all of v has one.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0, rstd is 1 / ||v||.

    Returns
    -------
    ndarray of the shape of v, or (ndarray, Stats)

    Raises
    ------
    TypeError
        v or g is not of a real number dtype, or out not of the result's.
    ValueError
        An axis, out or g that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.weight_norm([[3.0, 4.0], [0.0, 2.0]], [10.0, 1.0])
    array([[6., 8.],
           [0., 1.]])
    """
    function = "weight_norm"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(v, function, "v")
    lengths = calls.take(g, function, "g")
    shape = array.shape if axis is not None else (1, *array.shape)
    index = 0 if axis is None else arguments.axis_index(axis, array.ndim, function)
    if lengths.size != shape[index] or sum(size != 1 for size in lengths.shape) > 1:
        raise ValueError(f"{function}: g must have {shape[index]} elements along one axis, got shape {lengths.shape}")
    call = calls.begin(array, out, dtype, backend, function, (lengths,), narrow=True)
    moments, rule = None, Rule(measure=Measure.SQUARES, summed=True)
    if array.size:
        layout = unbatched_layout(shape, index)
        plan = layout.plan(per_item=False)
        moments = engine.normalize_channels(call, layout, plan, rule, lengths.reshape(-1), None, 1, return_stats)
    slices = tuple(size if axis is not None and a == index else 1 for a, size in enumerate(array.shape))
    return engine.results(call, engine.stats_of(moments, 1, rule, slices) if return_stats else None)


def weight_standardize(
    w: npt.ArrayLike,
    *,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Normalise the weights of each output channel to mean 0 and variance 1.

    Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019, equation 7.

    Parameters
    ----------
    w : array_like
        (out, in, ...); real numbers.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    out, dtype, return_stats, backend
        As in `layer_norm`.

    Returns
    -------
    ndarray of the shape of w, or (ndarray, Stats)

    Raises
    ------
    TypeError
        w is not of a real number dtype, or out not of the result's.
    ValueError
        w has fewer than two dimensions, or out or eps does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.weight_standardize([[1.0, 3.0], [5.0, 5.0]], eps=0)
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    function = "weight_standardize"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(w, function, "w")
    if array.ndim < 2:
        raise ValueError(f"{function}: w must have at least 2 dimensions, (out, in, ...), got shape {array.shape}")
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    call = calls.begin(array, out, dtype, backend, function, narrow=True)
    plan = plan_reduction(array.shape, tuple(range(1, array.ndim)))
    moments = engine.normalize_axes(call, plan, rule, return_stats) if array.size else None
    return engine.results(call, engine.stats_of(moments, plan.count, rule, plan.stats_shape) if return_stats else None)


def _power_iteration(matrix: Array, start: Array, iterations: int, eps: float) -> tuple[Array, Array, float]:
    """(u, v, sigma) of a matrix."""
    left = start.astype(matrix.dtype)
    for _ in range(iterations):
        right, _ = _unit(matrix.T @ left, eps)
        left, sigma = _unit(matrix @ right, eps)  # u^T W v is the length of W v, along which u lies
    return left, right, sigma


def _exponent(matrix: Array) -> int:
    """The power of two that the largest magnitude is next to; 0 if that is none, or not finite."""
    return math.frexp(float(np.abs(matrix).max()))[1]


class SpectralNorm(NamedTuple):
    """The weight over its spectral norm, that norm, and the singular vectors that gave it."""

    weight: Array
    sigma: float
    u: Array
    v: Array


def _unit(vector: Array, eps: float) -> tuple[Array, float]:
    """The vector with length 1, and the length it had."""
    length = math.sqrt(float(vector @ vector))
    return vector * vector.dtype.type(1.0 / _divisor(length, eps)), length


def _divisor(length: float, eps: float) -> float:
    """The divisor that gives length 1: the length, at least eps; 1 for a vector of zeros, which stays so. NaN stays."""
    return max(length, eps) or 1.0


def spectral_norm(
    w: npt.ArrayLike,
    u: npt.ArrayLike | None = None,
    *,
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> Any:
    """Divide a weight by its largest singular value, as power iteration estimates it.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018, algorithm 1.

    Parameters
    ----------
    w : array_like
        (out, in, ...), seen as the matrix (out, in * ...); real numbers.
    u : array_like, optional
        (out,), the left singular vector of the last call, where the iteration goes on. Default, and where it is 0: a
        fixed pseudo-random vector.
    n_power_iterations : int, default 1
        At least 1.
    eps : float, default 1e-12
        The least length that a vector, or the weight, is divided by; at least 0. With 0, a weight of zeros stays so.
    out, dtype, return_stats, backend
        As in `layer_norm`; for the weight. The mean of the statistics is 0, rstd is 1 / sigma. The products with the
        matrix are BLAS's in any backend; a compiled one scales the weight.

    Returns
    -------
    SpectralNorm, or (SpectralNorm, Stats)
        ``(weight, sigma, u, v)``.

    Raises
    ------
    TypeError
        w or u is not of a real number dtype, or out not of the result's.
    ValueError
        w has fewer than two dimensions or no elements; u, out, eps or the number of iterations does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> result = fastnorm.spectral_norm([[3.0, 0.0], [0.0, 1.0]], n_power_iterations=20)
    >>> round(result.sigma, 6)
    3.0
    """
    function = "spectral_norm"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(w, function, "w")
    if array.ndim < 2 or not array.size:
        raise ValueError(f"{function}: w must be (out, in, ...) and not empty, got shape {array.shape}")
    iterations = arguments.integer(n_power_iterations, function, "n_power_iterations", minimum=1)
    least = arguments.number(eps, function, "eps", minimum=0)
    start = arguments.parameter(u, (array.shape[0],), function, "u")
    # The work is BLAS's and a division: a call that asks for nothing else goes straight to them.
    plain = out is None and dtype is None and backend is None and array.dtype in (np.float32, np.float64)
    plain = plain and current().backend == "auto"
    call = None if plain else calls.begin(array, out, dtype, backend, function)
    x = array if call is None else call.x
    matrix = x.reshape(array.shape[0], -1)
    if start is None or not start.any():  # zeros, which a weight of zeros left, lead nowhere
        start = np.random.default_rng(0).standard_normal((array.shape[0],))
    start = start.astype(np.float64)
    with np.errstate(all="ignore"):
        start = np.ldexp(start, -_exponent(start))  # of any length: that of W^T u is divided out, but must be a number
        left, right, sigma = _power_iteration(matrix, start, iterations, least)
        if not 0.0 < sigma < math.inf:  # products beyond the storage type, or beyond float64
            exponent = _exponent(matrix)
            wide = np.ldexp(matrix.astype(np.float64), -exponent)
            left, right, sigma = _power_iteration(wide, start, iterations, float(np.ldexp(least, -exponent)))
            left, right, sigma = left.astype(x.dtype), right.astype(x.dtype), float(np.ldexp(sigma, exponent))
        length = np.float64(_divisor(sigma, least))
        scale = np.full((1,) * array.ndim, 1.0 / length)
        divisor = length if length > np.finfo(x.dtype).max else length.astype(x.dtype)
        target = np.empty(x.shape, x.dtype) if call is None else call.y
        np.divide(x, divisor, out=target, casting="same_kind")
    weight = target if call is None else call.finish()
    result = SpectralNorm(weight, sigma, left, right)
    return (result, Stats(np.zeros_like(scale), scale)) if return_stats else result


class FoldedLayer(NamedTuple):
    """A layer with the BatchNorm that followed it inside."""

    weight: Array
    bias: Array


def fold_batch_norm(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    gamma: npt.ArrayLike | None,
    beta: npt.ArrayLike | None,
    *,
    eps: float = 1e-5,
    channel_axis: int = 0,
    out: Sequence[Array] | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> Any:
    """Fold an inference BatchNorm into the linear or convolutional layer before it.

    ``weight * s`` and ``(bias - running_mean) * s + beta`` with ``s = gamma / sqrt(running_var + eps)``, computed in
    float64 and rounded once (to bfloat16 by way of float32). Jacob et al., "Quantization and Training of Neural
    Networks", 2018, equation 14.

    Parameters
    ----------
    weight : array_like
        The layer's, (out, in, ...); real numbers.
    bias : array_like or None
        (out,).
    running_mean, running_var : array_like
        (out,).
    gamma, beta : array_like or None
        (out,), the BatchNorm's weight and bias.
    eps : float, default 1e-5
        As the BatchNorm's.
    channel_axis : int, default 0
        The axis of the output channels in `weight`: 0 for (out, in), 1 for (in, out).
    out : sequence of ndarray, optional
        Where to put the results, one for the weight and one for the bias; the arguments themselves are allowed.
    dtype, return_stats, backend
        As in `layer_norm`; the statistics are the running mean and 1 / sqrt(running_var + eps), shaped to broadcast
        against the weight. NumPy folds: a compiled backend cannot serve this.

    Returns
    -------
    FoldedLayer, or (FoldedLayer, Stats)
        ``(weight, bias)``, both of the dtype of the weight.

    Raises
    ------
    TypeError
        An array is not of a real number dtype, or out not a sequence of arrays of the result's.
    ValueError
        A shape, axis, out or eps that does not fit.
    RuntimeError
        A compiled backend was asked for.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.fold_batch_norm([[2.0]], [1.0], [3.0], [4.0], [1.0], [0.5], eps=0)
    FoldedLayer(weight=array([[1.]]), bias=array([-0.5]))
    """
    function = "fold_batch_norm"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(weight, function, "weight")
    axis = arguments.axis_index(channel_axis, array.ndim, function, "channel_axis")
    channels = array.shape[axis]
    least = arguments.number(eps, function, "eps", minimum=0)
    mean = arguments.statistic(running_mean, channels, function, "running_mean")
    var = arguments.statistic(running_var, channels, function, "running_var")

    def vector(value: npt.ArrayLike | None, name: str, default: float) -> Array:
        if value is None:
            return np.full(channels, default)
        return arguments.statistic(value, channels, function, name)

    scale, offset = vector(gamma, "gamma", 1.0), vector(beta, "beta", 0.0)
    shift = vector(bias, "bias", 0.0)
    choose(array.size, backend, function)
    result = result_dtype(dtype, storage(array.dtype, function, "weight").result, function)
    if out is not None:
        out = calls.take_several(out, 2, "two arrays, for weight and bias", function)
        calls.check_out(out[0], array.shape, result, function)
        calls.check_out(out[1], (channels,), result, function)
    shape = kept_shape(array.shape, (axis,))
    with np.errstate(all="ignore"):
        rstd = 1.0 / np.sqrt(var + least)
        scale *= rstd
        folded = FoldedLayer(
            (array.astype(np.float64) * scale.reshape(shape)).astype(result),
            ((shift - mean) * scale + offset).astype(result),
        )
    if out is not None:
        for target, part in zip(out, folded, strict=True):
            np.copyto(target, part)
        folded = FoldedLayer(*out)
    return (folded, Stats(mean.reshape(shape), rstd.reshape(shape))) if return_stats else folded
