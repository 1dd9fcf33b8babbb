"""The gradients of the norms by their defining formulas, in NumPy's widest float and without the library."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from formulas import Array, Wide, along
from formulas import centred as deviations_of


class Gradient(NamedTuple):
    """A gradient, and the sum of the magnitudes that it is made of, which its rounding errors are in proportion to."""

    value: Array
    magnitude: Array


Found = dict[str, Gradient]


def _sum(part: Array, axes: Any) -> Array:
    return part.sum(axes, keepdims=True)


def _parameter_gradients(dy: Array, xhat: Array, kept: tuple[int, ...]) -> Found:
    """Gradients of weight and bias along the axes `kept`."""
    rest = tuple(a for a in range(dy.ndim) if a not in {axis % dy.ndim for axis in kept})
    size = np.abs(dy)
    return {
        "dweight": Gradient((dy * xhat).sum(rest), (size * np.maximum(1, np.abs(xhat))).sum(rest)),
        "dbias": Gradient(dy.sum(rest), size.sum(rest)),
    }


def _lines(
    g: Array, x: Array, axes: Any, eps: float, centred: bool = True, summed: bool = False
) -> tuple[Gradient, Array]:
    """Gradient of x where lines along `axes` are divided by a root, and the normalised x.

    dy_j / dx_i is rstd times (1 if i = j) - (1 / n if centred) - xhat_i xhat_j / divisor. `summed` is L2's rule.
    """
    count = prod(x.shape[a] for a in (axes if isinstance(axes, tuple) else (axes,)))
    deviations = deviations_of(x, axes)[0] if centred else x
    squares, divisor = _sum(deviations * deviations, axes), 1 if summed else count
    root = np.maximum(np.sqrt(squares), Wide(eps)) if summed else np.sqrt(squares / count + Wide(eps))
    rstd = 1 / np.where(root == 0, Wide(1), root)
    constant = summed & (np.sqrt(squares) <= eps)
    xhat = deviations * rstd
    from_mean = _sum(g, axes) / count if centred else 0
    from_root = np.where(constant, Wide(0), xhat * _sum(g * xhat, axes) / divisor)
    size, about_one = np.abs(g), np.maximum(0 if summed else 1, np.abs(xhat))
    magnitude = size + _sum(size, axes) / count + about_one * _sum(size * about_one, axes) / divisor
    return Gradient(rstd * (g - from_mean - from_root), rstd * magnitude), xhat


def _weighted(dy: Array, weight: Array | None) -> Array:
    return dy if weight is None else dy * weight


def _layer(
    dy: Array, x: Array, weight: Any = None, *, axis: Any = -1, eps: float = 1e-5, centred: bool = True
) -> Found:
    dx, xhat = _lines(_weighted(dy, along(weight, axis, x.ndim)), x, axis, eps, centred)
    return {"dx": dx, **_parameter_gradients(dy, xhat, axis if isinstance(axis, tuple) else (axis,))}


def _rms(dy: Array, x: Array, weight: Any = None, *, axis: Any = -1, eps: float = 1e-6) -> Found:
    found = _layer(dy, x, weight, axis=axis, eps=eps, centred=False)
    del found["dbias"]
    return found


def _batch(
    dy: Array, x: Array, weight: Any = None, running_mean: Any = None, running_var: Any = None, *,
    training: bool = False, channel_axis: int = 1, eps: float = 1e-5,
) -> Found:  # fmt: skip
    g = _weighted(dy, along(weight, channel_axis, x.ndim))
    if training:
        dx, xhat = _lines(g, x, tuple(a for a in range(x.ndim) if a != channel_axis % x.ndim), eps)
    else:
        mean, var = (along(part, channel_axis, x.ndim) for part in (running_mean, running_var))
        rstd = 1 / np.sqrt(var + Wide(eps))
        dx, xhat = Gradient(g * rstd, np.abs(g) * rstd), (x - mean) * rstd
    return {"dx": dx, **_parameter_gradients(dy, xhat, (channel_axis,))}


def _group(
    dy: Array, x: Array, num_groups: int, weight: Any = None, *, channel_axis: int = 1, eps: float = 1e-5
) -> Found:
    g = np.moveaxis(_weighted(dy, along(weight, channel_axis, x.ndim)), channel_axis, 1)
    second = np.moveaxis(x, channel_axis, 1)
    split = x.shape[0], num_groups, -1
    dx, xhat = _lines(g.reshape(split), second.reshape(split), -1, eps)
    value, magnitude, normalized = (np.moveaxis(part.reshape(second.shape), 1, channel_axis) for part in (*dx, xhat))
    return {"dx": Gradient(value, magnitude), **_parameter_gradients(dy, normalized, (channel_axis,))}


def _instance(dy: Array, x: Array, weight: Any = None, *, channel_axis: int = 1, eps: float = 1e-5) -> Found:
    return _group(dy, x, x.shape[channel_axis], weight, channel_axis=channel_axis, eps=eps)


def _switchable(
    dy: Array, x: Array, mean_weight: Any, var_weight: Any, weight: Any = None, running_mean: Any = None,
    running_var: Any = None, *, training: bool = False, channel_axis: int = 1, eps: float = 1e-5,
) -> Found:  # fmt: skip
    channel = channel_axis % x.ndim
    inside = tuple(a for a in range(1, x.ndim) if a != channel)
    axes = [inside, tuple(range(1, x.ndim)), (0, *inside)]
    means = [x.mean(a, keepdims=True) for a in axes]
    variances = [deviations_of(x, a)[1] for a in axes]
    if not training:
        means[2], variances[2] = (along(part, channel, x.ndim) for part in (running_mean, running_var))
    mean_share, var_share = (np.exp(np.asarray(w, Wide)) for w in (mean_weight, var_weight))
    mean_share, var_share = mean_share / mean_share.sum(), var_share / var_share.sum()
    mean = sum(share * part for share, part in zip(mean_share, means, strict=True))
    var = sum(share * part for share, part in zip(var_share, variances, strict=True))
    rstd = 1 / np.sqrt(var + Wide(eps))
    xhat = (x - mean) * rstd
    g = _weighted(dy, along(weight, channel, x.ndim))
    size, sigma = np.abs(g), 1 / rstd
    of_mean, of_var = -_sum(g * rstd, inside), -_sum(g * xhat, inside) * rstd**2 / 2
    mean_size, var_size = _sum(size * rstd, inside), _sum(size * np.maximum(1, np.abs(xhat)), inside) * rstd**2 / 2
    dx, magnitude = g * rstd, size * rstd
    for k, over in enumerate(axes[: 3 if training else 2]):
        outer = tuple(a for a in over if a not in inside)  # what is pooled besides the positions
        count = prod(x.shape[a] for a in over)
        for_mean, for_var, for_mean_size, for_var_size = (
            _sum(part, outer) / count for part in (of_mean, of_var, mean_size, var_size)
        )
        deviations = x - means[k]
        dx = dx + mean_share[k] * for_mean + var_share[k] * for_var * 2 * deviations
        magnitude = magnitude + mean_share[k] * for_mean_size
        magnitude = magnitude + var_share[k] * for_var_size * 2 * (np.abs(deviations) + sigma)
    of_mean_shares, of_var_shares, mean_sizes, var_sizes = (
        np.array([part.sum() for part in parts])
        for parts in (
            [of_mean * part for part in means],
            [of_var * part for part in variances],
            [mean_size * (np.abs(part - mean) + sigma) for part in means],
            [var_size * (np.abs(part - var) + sigma**2) for part in variances],
        )
    )
    return {
        "dx": Gradient(dx, magnitude),
        "dmean_weight": Gradient(_softmax(mean_share, of_mean_shares), mean_share * mean_sizes),
        "dvar_weight": Gradient(_softmax(var_share, of_var_shares), var_share * var_sizes),
        **_parameter_gradients(dy, xhat, (channel,)),
    }


def _softmax(shares: Array, gradients: Array) -> Array:
    """Gradients through a softmax, by its Jacobian."""
    jacobian = np.diag(shares) - np.outer(shares, shares)
    return jacobian @ gradients


def _l2(dy: Array, x: Array, *, axis: int = -1, eps: float = 1e-12) -> Found:
    return {"dx": _lines(dy, x, axis, eps, centred=False, summed=True)[0]}


def _pixel(dy: Array, x: Array, *, channel_axis: int = 1, eps: float = 1e-8) -> Found:
    return {"dx": _lines(dy, x, channel_axis, eps, centred=False)[0]}


def _local_response(
    dy: Array, x: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, channel_axis: int = 1
) -> Found:
    first, upstream = np.moveaxis(x, channel_axis, 0), np.moveaxis(dy, channel_axis, 0)
    channels, slope, exponent = len(first), Wide(alpha) / size, Wide(beta)
    value, magnitude = np.zeros_like(first), np.zeros_like(first)
    for c in range(channels):  # each row of the Jacobian
        window = range(max(c - size // 2, 0), min(c - size // 2 + size, channels))
        base = Wide(k) + slope * sum(first[j] ** 2 for j in window)
        value[c] += upstream[c] * base**-exponent
        magnitude[c] += np.abs(upstream[c]) * base**-exponent
        for j in window:
            term = 2 * slope * exponent * first[c] * first[j] * base ** (-exponent - 1) * upstream[c]
            value[j] -= term
            magnitude[j] += np.abs(term)
    return {"dx": Gradient(np.moveaxis(value, 0, channel_axis), np.moveaxis(magnitude, 0, channel_axis))}


GRADIENTS: dict[str, Callable[..., Found]] = {
    "layer_norm": _layer,
    "rms_norm": _rms,
    "batch_norm": _batch,
    "instance_norm": _instance,
    "group_norm": _group,
    "switchable_norm": _switchable,
    "pixel_norm": _pixel,
    "l2_normalize": _l2,
    "local_response_norm": _local_response,
}


def gradients(op: str, dy: Array, x: Array, **kwargs: Any) -> Found:
    """Return all gradients of a norm by name."""
    return GRADIENTS[op](dy.astype(Wide), x.astype(Wide), **kwargs)
