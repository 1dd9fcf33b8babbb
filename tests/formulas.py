"""The defining formulas of the norms, written plainly in NumPy's widest float and without the library."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Wide = np.longdouble


class Parts(NamedTuple):
    """A result as normalized * weight + bias, each broadcastable; None where the case has no such array.

    `roundings` bounds the error of `normalized` in units of the roundoff times max(1, |normalized|).
    """

    normalized: Array
    weight: Array | None = None
    bias: Array | None = None
    roundings: float = 4


def along(values: Array | None, axes: int | tuple[int, ...], ndim: int) -> Array | None:
    """A parameter in a shape that broadcasts along `axes`."""
    if values is None:
        return None
    axes = axes if isinstance(axes, tuple) else (axes,)
    shape = [1] * ndim
    for axis, size in zip(axes, np.shape(values), strict=True):
        shape[axis] = size
    return np.asarray(values).astype(Wide).reshape(shape)


def centred(x: Array, axes: Any) -> tuple[Array, Array]:
    """Deviations from the mean, and the variance."""
    deviations = x - x.mean(axes, keepdims=True)
    deviations -= deviations.mean(axes, keepdims=True)
    return deviations, (deviations * deviations).mean(axes, keepdims=True)


def _root(variance: Array, eps: float = 0.0) -> Array:
    root = np.sqrt(variance + Wide(eps))
    return np.where(root == 0, Wide(1), root)


def _layer(x: Array, weight: Any = None, bias: Any = None, *, axis: Any = -1, eps: float = 1e-5) -> Parts:
    deviations, variance = centred(x, axis)
    return Parts(deviations / _root(variance, eps), along(weight, axis, x.ndim), along(bias, axis, x.ndim))


def _rms(x: Array, weight: Any = None, bias: Any = None, *, axis: Any = -1, eps: float = 1e-6) -> Parts:
    square = (x * x).mean(axis, keepdims=True)
    return Parts(x / _root(square, eps), along(weight, axis, x.ndim), along(bias, axis, x.ndim))


def _normalize(
    x: Array, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, channel_axis: int = -1, eps: float = 1e-5
) -> Parts:
    mean, var, weight, bias = (along(part, channel_axis, x.ndim) for part in (mean, var, weight, bias))
    return Parts((x - mean) / np.sqrt(var + Wide(eps)), weight, bias)


def _batch(
    x: Array, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None, *,
    training: bool = False, channel_axis: int = 1, eps: float = 1e-5, **_: Any,
) -> Parts:  # fmt: skip
    if not training:
        return _normalize(x, running_mean, running_var, weight, bias, channel_axis=channel_axis, eps=eps)
    axes = tuple(a for a in range(x.ndim) if a != channel_axis % x.ndim)
    deviations, variance = centred(x, axes)
    weight, bias = along(weight, channel_axis, x.ndim), along(bias, channel_axis, x.ndim)
    return Parts(deviations / _root(variance, eps), weight, bias)


def _group(
    x: Array, num_groups: int, weight: Any = None, bias: Any = None, *, channel_axis: int = 1, eps: float = 1e-5
) -> Parts:
    channels_second = np.moveaxis(x, channel_axis, 1)
    split = channels_second.reshape(x.shape[0], num_groups, -1)
    deviations, variance = centred(split, -1)
    result = np.moveaxis((deviations / _root(variance, eps)).reshape(channels_second.shape), 1, channel_axis)
    return Parts(result, along(weight, channel_axis, x.ndim), along(bias, channel_axis, x.ndim))


def _instance(x: Array, weight: Any = None, bias: Any = None, *, channel_axis: int = 1, eps: float = 1e-5) -> Parts:
    return _group(x, x.shape[channel_axis], weight, bias, channel_axis=channel_axis, eps=eps)


def _switchable(
    x: Array, mean_weight: Any, var_weight: Any, weight: Any = None, bias: Any = None, running_mean: Any = None,
    running_var: Any = None, *, training: bool = False, channel_axis: int = 1, eps: float = 1e-5,
) -> Parts:  # fmt: skip
    channel = channel_axis % x.ndim
    inside = tuple(a for a in range(1, x.ndim) if a != channel)
    axes = {"instance": inside, "layer": tuple(range(1, x.ndim)), "batch": (0, *inside)}
    means = [x.mean(a, keepdims=True) for a in axes.values()]
    variances = [centred(x, a)[1] for a in axes.values()]
    if not training:
        means[2], variances[2] = along(running_mean, channel, x.ndim), along(running_var, channel, x.ndim)
    mean_share, var_share = (np.exp(np.asarray(w, Wide)) for w in (mean_weight, var_weight))
    mean = sum(share * part for share, part in zip(mean_share / mean_share.sum(), means, strict=True))
    var = sum(share * part for share, part in zip(var_share / var_share.sum(), variances, strict=True))
    return Parts((x - mean) / _root(var, eps), along(weight, channel, x.ndim), along(bias, channel, x.ndim))


def _p_norm(x: Array, p: float, axis: Any) -> Array:
    magnitude = np.abs(x)
    if p == np.inf:
        return magnitude.max(axis, keepdims=True)
    return (magnitude ** Wide(p)).sum(axis, keepdims=True) ** (1 / Wide(p))


def _lp(x: Array, *, p: float, axis: int = -1) -> Parts:
    norm = _p_norm(x, p, axis)
    return Parts(x / np.where(norm == 0, Wide(1), norm))


def _l2(x: Array, *, axis: int = -1, eps: float = 1e-12) -> Parts:
    return Parts(x / np.maximum(_p_norm(x, 2, axis), Wide(eps)))


def _local_response(
    x: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, channel_axis: int = 1
) -> Parts:
    first = np.moveaxis(x, channel_axis, 0)
    sums = np.stack([(first[max(c - size // 2, 0) : c - size // 2 + size] ** 2).sum(0) for c in range(len(first))])
    result = first / (Wide(k) + Wide(alpha) / size * sums) ** Wide(beta)
    # A sum of `size` squares, a product, a sum, the power of these, the power's own roundings, a quotient.
    return Parts(np.moveaxis(result, 0, channel_axis), roundings=beta * (size + 3) + 4)


def _standardize(x: Array, *, axis: Any = 0, ddof: int = 0) -> Parts:
    deviations, variance = centred(x, axis)
    count = x.size // variance.size
    return Parts(deviations / _root(variance * count / (count - ddof)))


def _min_max(x: Array, *, axis: Any = 0, feature_range: tuple[float, float] = (0, 1)) -> Parts:
    low, span = x.min(axis, keepdims=True), np.ptp(x, axis, keepdims=True)
    ends = np.array(feature_range, Wide)
    return Parts((x - low) / np.where(span == 0, Wide(1), span), ends[1] - ends[0], ends[0])


def _weight_norm(v: Array, g: Any, *, axis: int | None = 0) -> Parts:
    axes = tuple(a for a in range(v.ndim) if axis is None or a != axis % v.ndim)
    norm = np.sqrt((v * v).sum(axes, keepdims=True))
    lengths = Wide(np.asarray(g).item()) if axis is None else along(g, axis, v.ndim)
    return Parts(v / np.where(norm == 0, Wide(1), norm), lengths)


def _spectral(w: Array, u: Any, *, n_power_iterations: int = 1, eps: float = 1e-12) -> Parts:
    matrix, left = w.reshape(len(w), -1), np.asarray(u, Wide)
    left = left / np.sqrt(left @ left)
    for _ in range(n_power_iterations):
        right = matrix.T @ left
        right = right / np.sqrt(right @ right)
        image = matrix @ right
        left = image / np.sqrt(image @ image)
    # Each product with the matrix sums so many terms.
    return Parts(w / (left @ image), roundings=4 + sum(matrix.shape))


def _clip_by_norm(x: Array, max_norm: float, *, axis: Any = None) -> Parts:
    norm = _p_norm(x, 2, axis)
    return Parts(x * np.where(norm > max_norm, Wide(max_norm) / norm, Wide(1)))


def _clip_by_global_norm(arrays: list[Array], max_norm: float) -> Parts:
    return _clip_by_norm(np.concatenate([part.reshape(-1) for part in arrays]), max_norm)


def _fold(
    weight: Array, bias: Any, mean: Any, var: Any, gamma: Any, beta: Any, *, eps: float = 1e-5, channel_axis: int = 0
) -> Parts:
    bias, mean, var, gamma, beta = (None if p is None else p.astype(Wide) for p in (bias, mean, var, gamma, beta))
    scale = (Wide(1) if gamma is None else gamma) / np.sqrt(var + Wide(eps))
    folded = weight * along(np.broadcast_to(scale, var.shape), channel_axis, weight.ndim)
    shifted = ((Wide(0) if bias is None else bias) - mean) * scale
    shift = np.concatenate([np.zeros(folded.size, Wide), np.zeros_like(var) if beta is None else beta])
    return Parts(np.concatenate([folded.reshape(-1), shifted]), Wide(1), shift)


FORMULAS: dict[str, Callable[..., Parts]] = {
    "layer_norm": _layer,
    "rms_norm": _rms,
    "batch_norm": _batch,
    "instance_norm": _instance,
    "group_norm": _group,
    "switchable_norm": _switchable,
    "pixel_norm": lambda x, channel_axis=1, eps=1e-8: _rms(x, axis=channel_axis, eps=eps),
    "l2_normalize": _l2,
    "lp_normalize": _lp,
    "local_response_norm": _local_response,
    "normalize": _normalize,
    "standardize": _standardize,
    "min_max_scale": _min_max,
    "max_abs_scale": lambda x, axis=0: _lp(x, p=np.inf, axis=axis),
    "weight_norm": _weight_norm,
    "weight_standardize": lambda w, eps=1e-5: _layer(w, axis=tuple(range(1, w.ndim)), eps=eps),
    "spectral_norm": _spectral,
    "clip_by_value": lambda x, low, high: Parts(np.clip(x, low, high)),
    "clip_by_norm": _clip_by_norm,
    "clip_by_global_norm": _clip_by_global_norm,
    "fold_batch_norm": _fold,
}


def joined(pieces: Parts) -> Array:
    """Return normalized * weight + bias."""
    y = pieces.normalized if pieces.weight is None else pieces.normalized * pieces.weight
    return y if pieces.bias is None else y + pieces.bias
