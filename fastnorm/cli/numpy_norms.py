"""
The norms as a competent NumPy user writes them: what fastnorm is compared with.

Names and arguments are those of the functions of the same name in `fastnorm`, so either can be handed to code that
takes a namespace of norms. Everything is computed in the floating-point type of the arguments: float32 for float32, and
the same functions called on float64 give the truth that errors are measured against. Temporaries are updated in place
and scales folded where that is natural, since that is what a competent user does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None


class Moments(NamedTuple):
    """Mean and variance."""

    mean: Any
    var: Any


def _per_channel(parameter: Array, ndim: int, channel_axis: int) -> Array:
    """Shape a vector with one value per channel so that it broadcasts against an array of `ndim` axes."""
    shape = [1] * ndim
    shape[channel_axis] = -1
    return parameter.reshape(shape)


def _other_axes(ndim: int, *kept: int) -> tuple[int, ...]:
    keep = {axis % ndim for axis in kept}
    return tuple(axis for axis in range(ndim) if axis not in keep)


def _centre(x: Array, axis: Axis) -> tuple[Array, Array, Array]:
    """Return the centred array, the mean and the variance along `axis`."""
    mean = x.mean(axis=axis, keepdims=True)
    centred = x - mean
    var = np.square(centred).mean(axis=axis, keepdims=True)
    return centred, mean, var


def _scale_and_shift(y: Array, weight: Array | None, bias: Array | None) -> Array:
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y


def _scale_and_shift_channels(y: Array, weight: Array | None, bias: Array | None, channel_axis: int) -> Array:
    return _scale_and_shift(
        y,
        None if weight is None else _per_channel(weight, y.ndim, channel_axis),
        None if bias is None else _per_channel(bias, y.ndim, channel_axis),
    )


def _update_running(running: Array | None, new: Array, momentum: float) -> None:
    if running is not None:
        running += momentum * (new.reshape(-1) - running)


def moments(x: Array, *, axis: Axis = None, ddof: int = 0) -> Moments:
    """Mean and variance along `axis`."""
    return Moments(x.mean(axis=axis), x.var(axis=axis, ddof=ddof))


def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, axis: int = -1, eps: float = 1e-5
) -> Array:
    """Layer normalization (Ba, Kiros and Hinton 2016) along `axis`."""
    y, _, var = _centre(x, axis)
    y /= np.sqrt(var + eps)
    return _scale_and_shift_channels(y, weight, bias, axis)


def rms_norm(x: Array, weight: Array | None = None, *, axis: int = -1, eps: float = 1e-6) -> Array:
    """Root mean square normalization (Zhang and Sennrich 2019) along `axis`."""
    y = x / np.sqrt(np.square(x).mean(axis=axis, keepdims=True) + eps)
    return _scale_and_shift_channels(y, weight, None, axis)


def normalize(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    channel_axis: int = -1,
    eps: float = 1e-5,
) -> Array:
    """Normalize each channel by the given mean and variance, then scale and shift it."""
    scale = 1.0 / np.sqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    y: Array = x - _per_channel(mean, x.ndim, channel_axis)
    return _scale_and_shift_channels(y, scale, bias, channel_axis)


def batch_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    channel_axis: int = 1,
) -> Array:
    """
    Batch normalization (Ioffe and Szegedy 2015).

    In inference the running statistics are used; in training those of the batch, and the running arrays are updated in
    place, with the unbiased variance.
    """
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are needed unless training is True")
        return normalize(x, running_mean, running_var, weight, bias, channel_axis=channel_axis, eps=eps)
    y, mean, var = _centre(x, _other_axes(x.ndim, channel_axis))
    count = x.size // mean.size
    _update_running(running_mean, mean, momentum)
    _update_running(running_var, var * (count / (count - 1)), momentum)
    scale = 1.0 / np.sqrt(var + eps)
    if weight is not None:
        scale *= _per_channel(weight, x.ndim, channel_axis)
    y *= scale
    return _scale_and_shift_channels(y, None, bias, channel_axis)


def instance_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, channel_axis: int = 1, eps: float = 1e-5
) -> Array:
    """Instance normalization (Ulyanov, Vedaldi and Lempitsky 2016)."""
    y, _, var = _centre(x, _other_axes(x.ndim, 0, channel_axis))
    scale = 1.0 / np.sqrt(var + eps)
    if weight is not None:
        scale = scale * _per_channel(weight, x.ndim, channel_axis)
    y *= scale
    return _scale_and_shift_channels(y, None, bias, channel_axis)


def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    channel_axis: int = 1,
    eps: float = 1e-5,
) -> Array:
    """Group normalization (Wu and He 2018)."""
    axis = channel_axis % x.ndim
    grouped = x.reshape(*x.shape[:axis], num_groups, x.shape[axis] // num_groups, *x.shape[axis + 1 :])
    y, _, var = _centre(grouped, _other_axes(grouped.ndim, 0, axis))
    y /= np.sqrt(var + eps)
    return _scale_and_shift_channels(y.reshape(x.shape), weight, bias, channel_axis)


def _softmax(logits: Array) -> Array:
    exponentials: Array = np.exp(logits - logits.max())
    exponentials /= exponentials.sum()
    return exponentials


def switchable_norm(
    x: Array,
    mean_weight: Array,
    var_weight: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    channel_axis: int = 1,
) -> Array:
    """Switchable normalization (Luo et al. 2018): softmax-weighted instance, layer and batch statistics."""
    spatial = _other_axes(x.ndim, 0, channel_axis)
    instance_mean = x.mean(axis=spatial, keepdims=True)
    instance_var = x.var(axis=spatial, keepdims=True)
    layer_mean = instance_mean.mean(axis=channel_axis, keepdims=True)
    layer_var = instance_var.mean(axis=channel_axis, keepdims=True) + instance_mean.var(
        axis=channel_axis, keepdims=True
    )
    if training:
        batch_mean = instance_mean.mean(axis=0, keepdims=True)
        batch_var = instance_var.mean(axis=0, keepdims=True) + instance_mean.var(axis=0, keepdims=True)
        _update_running(running_mean, batch_mean, momentum)
        _update_running(running_var, batch_var, momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("switchable_norm: running_mean and running_var are needed unless training is True")
    else:
        batch_mean = _per_channel(running_mean, x.ndim, channel_axis)
        batch_var = _per_channel(running_var, x.ndim, channel_axis)
    for_mean, for_var = _softmax(mean_weight), _softmax(var_weight)
    mean = for_mean[0] * instance_mean + for_mean[1] * layer_mean + for_mean[2] * batch_mean
    var = for_var[0] * instance_var + for_var[1] * layer_var + for_var[2] * batch_var
    scale = 1.0 / np.sqrt(var + eps)
    if weight is not None:
        scale = scale * _per_channel(weight, x.ndim, channel_axis)
    y = x - mean
    y *= scale
    return _scale_and_shift_channels(y, None, bias, channel_axis)


def pixel_norm(x: Array, *, channel_axis: int = 1, eps: float = 1e-8) -> Array:
    """Pixelwise feature vector normalization (Karras et al. 2018)."""
    y: Array = x / np.sqrt(np.square(x).mean(axis=channel_axis, keepdims=True) + eps)
    return y


def l2_normalize(x: Array, *, axis: int = -1, eps: float = 1e-12) -> Array:
    """Divide by the Euclidean norm along `axis`."""
    y: Array = x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), eps)
    return y


def lp_normalize(x: Array, *, p: float, axis: int = -1) -> Array:
    """Divide by the p-norm along `axis`; where that is zero, nothing is changed."""
    norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
    y: Array = x / np.where(norm == 0, 1, norm)
    return y


def local_response_norm(
    x: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, channel_axis: int = 1
) -> Array:
    """Local response normalization (Krizhevsky et al. 2012) over `size` neighbouring channels."""
    channels = x.shape[channel_axis]
    widths = [(0, 0)] * x.ndim
    widths[channel_axis] = (size // 2, (size - 1) // 2)
    squares = np.moveaxis(np.pad(np.square(x), widths), channel_axis, 0)
    total = squares[:channels].copy()
    for offset in range(1, size):
        total += squares[offset : offset + channels]
    total *= alpha / size
    total += k
    y: Array = x / np.moveaxis(total, 0, channel_axis) ** beta
    return y


def standardize(x: Array, *, axis: Axis = 0, ddof: int = 0) -> Array:
    """Zero mean and unit standard deviation along `axis`; what is constant becomes zero."""
    deviation = x.std(axis=axis, ddof=ddof, keepdims=True)
    y: Array = x - x.mean(axis=axis, keepdims=True)
    y /= np.where(deviation == 0, 1, deviation)
    return y


def min_max_scale(x: Array, *, axis: Axis = 0, feature_range: tuple[float, float] = (0, 1)) -> Array:
    """Map the range along `axis` to `feature_range`; what is constant becomes its lower end."""
    low = x.min(axis=axis, keepdims=True)
    extent = x.max(axis=axis, keepdims=True) - low
    y: Array = x - low
    y *= (feature_range[1] - feature_range[0]) / np.where(extent == 0, 1, extent)
    y += feature_range[0]
    return y


def max_abs_scale(x: Array, *, axis: Axis = 0) -> Array:
    """Divide by the largest magnitude along `axis`; where that is zero, nothing is changed."""
    largest = np.abs(x).max(axis=axis, keepdims=True)
    y: Array = x / np.where(largest == 0, 1, largest)
    return y


def weight_norm(v: Array, g: Array, *, axis: int = 0) -> Array:
    """Weight normalization (Salimans and Kingma 2016): direction `v`, length `g`."""
    y: Array = v * (g / np.sqrt(np.square(v).sum(axis=_other_axes(v.ndim, axis), keepdims=True)))
    return y


def weight_standardize(w: Array, *, eps: float = 1e-5) -> Array:
    """Weight standardization (Qiao et al. 2019): zero mean and unit variance of each filter, the first axis."""
    y, _, var = _centre(w, _other_axes(w.ndim, 0))
    y /= np.sqrt(var + eps)
    return y


def spectral_norm(
    w: Array, u: Array, *, n_power_iterations: int = 1, eps: float = 1e-12
) -> tuple[Array, Any, Array, Array]:
    """Spectral normalization (Miyato et al. 2018) by power iteration from `u`; returns w / sigma, sigma, u, v."""
    matrix = w.reshape(w.shape[0], -1)
    for _ in range(n_power_iterations):
        v = matrix.T @ u
        v /= max(np.linalg.norm(v), eps)
        u = matrix @ v
        u /= max(np.linalg.norm(u), eps)
    sigma = u @ matrix @ v
    return w / sigma, sigma, u, v


def clip_by_norm(x: Array, max_norm: float, *, axis: Axis = None) -> Array:
    """Scale down what is longer than `max_norm` along `axis`."""
    norm = np.sqrt(np.square(x).sum(axis=axis, keepdims=True))
    y: Array = x * (max_norm / np.maximum(norm, max_norm))
    return y


def clip_by_global_norm(arrays: Sequence[Array], max_norm: float) -> tuple[list[Array], Any]:
    """Scale all arrays down by one factor if together they are longer than `max_norm`; returns them and the norm."""
    norm = np.sqrt(sum(np.vdot(array, array) for array in arrays))
    factor = max_norm / np.maximum(norm, max_norm)
    return [array * factor for array in arrays], norm
