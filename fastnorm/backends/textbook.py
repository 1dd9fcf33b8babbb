"""The textbook algorithms for mean and variance, each honest to its name, to compare their accuracy and speed.

Every function takes lines x (L, n) and weights (L, n) or None, and returns (mean, m2), (L,). Each addition,
multiplication and division is rounded to the dtype of x, and sums run in order unless the text says otherwise. Only
counts, the integers of a textbook, are float64. The compiled backends do the same operations in the same order and have
the same bits. Error bounds are in `fastnorm.stats.bounds`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Result = tuple[Array, Array]


def in_order(x: Array) -> Array:
    """The sum along the last axis, from the first element to the last, unlike numpy.sum, which adds pairwise."""
    result: Array = np.cumsum(x, axis=-1, dtype=x.dtype)[..., -1]
    return result


def _weighted(x: Array, weights: Array | None) -> Array:
    result: Array = x if weights is None else x * weights
    return result


def _total(x: Array, weights: Array | None) -> Array:
    if weights is None:
        return np.full(x.shape[:-1], float(x.shape[-1]))
    return in_order(weights.astype(np.float64))


def _over(x: Array, count: Array) -> Array:
    """x / count, the count rounded to float32 at least: in float16 it would overflow from 65,520 on."""
    wide = np.promote_types(x.dtype, np.float32)
    quotient: Array = x.astype(wide) / count.astype(wide)
    return quotient.astype(x.dtype)


def welford(x: Array, weights: Array | None) -> Result:
    """One element at a time: Welford 1962; with weights, West 1979."""
    count = np.zeros(x.shape[:-1])
    mean, m2 = np.zeros(x.shape[:-1], x.dtype), np.zeros(x.shape[:-1], x.dtype)
    for i in range(x.shape[-1]):
        w = x.dtype.type(1) if weights is None else weights[..., i]
        count = count + w
        delta = x[..., i] - mean
        mean = mean + _over(delta, np.where(count == 0, 1, count) / w)  # the first one becomes the mean as it is
        m2 = m2 + w * delta * (x[..., i] - mean)
    return mean, m2


def two_pass(x: Array, weights: Array | None) -> Result:
    """The mean, then the squared deviations from it."""
    mean = _over(in_order(_weighted(x, weights)), _total(x, weights))
    deviations = x - mean[..., np.newaxis]
    return mean, in_order(_weighted(deviations * deviations, weights))


def corrected_two_pass(x: Array, weights: Array | None) -> Result:
    """Two passes, less what the mean's own rounding error adds: Chan, Golub and LeVeque 1983, equation 1.7."""
    total = _total(x, weights)
    mean = _over(in_order(_weighted(x, weights)), total)
    deviations = x - mean[..., np.newaxis]
    rest = in_order(_weighted(deviations, weights))
    share = _over(rest, total)
    return mean + share, in_order(_weighted(deviations * deviations, weights)) - rest * share


def naive(x: Array, weights: Array | None) -> Result:
    """The sum of the squares less the square of the sum. Use it only to see what that costs."""
    first = in_order(_weighted(x, weights))
    mean = _over(first, _total(x, weights))
    return mean, in_order(_weighted(x * x, weights)) - first * mean


def shifted(x: Array, weights: Array | None) -> Result:
    """The naive algorithm after the first element that counts is subtracted."""
    shift = x[..., :1]
    if weights is not None:
        shift = np.take_along_axis(x, np.argmax(weights != 0, axis=-1)[..., np.newaxis], axis=-1)
    mean, m2 = naive(x - shift, weights)
    return mean + shift[..., 0], m2


def pairwise(x: Array, weights: Array | None) -> Result:
    """Neighbours joined, then pairs, and so on: Chan, Golub and LeVeque 1979. A last one without a neighbour waits."""
    dtype = x.dtype
    wide = np.promote_types(dtype, np.float32)
    count = np.ones(x.shape) if weights is None else weights.astype(np.float64)
    mean, m2 = x, np.zeros_like(x)
    while mean.shape[-1] > 1:
        even = mean.shape[-1] // 2 * 2
        left, right = count[..., 0:even:2], count[..., 1:even:2]
        joined = np.where(left + right == 0, 1, left + right)
        delta = mean[..., 1:even:2] - mean[..., 0:even:2]
        share, product = (part.astype(wide).astype(dtype) for part in (right / joined, left * right / joined))
        pairs = (
            left + right,
            mean[..., 0:even:2] + delta * share,
            (m2[..., 0:even:2] + m2[..., 1:even:2]) + delta * delta * product,
        )
        count, mean, m2 = (
            np.concatenate([pair, part[..., even:]], axis=-1)
            for pair, part in zip(pairs, (count, mean, m2), strict=True)
        )
    return mean[..., 0], m2[..., 0]


def _compensated_sum(x: Array) -> Array:
    """Neumaier 1974: what each addition in order loses is summed apart and added at the end."""
    sums = np.cumsum(x, axis=-1, dtype=x.dtype)
    before, after, added = sums[..., :-1], sums[..., 1:], x[..., 1:]
    lost = np.where(np.abs(before) >= np.abs(added), (before - after) + added, (added - after) + before)
    result: Array = sums[..., -1] + (in_order(lost) if lost.shape[-1] else x.dtype.type(0))
    return result


def compensated(x: Array, weights: Array | None) -> Result:
    """Two passes whose sums are compensated."""
    mean = _over(_compensated_sum(_weighted(x, weights)), _total(x, weights))
    deviations = x - mean[..., np.newaxis]
    return mean, _compensated_sum(_weighted(deviations * deviations, weights))


# Compiled backends number them in this order.
ALGORITHMS: dict[str, Callable[[Array, Array | None], Result]] = {
    "welford": welford,
    "two_pass": two_pass,
    "corrected_two_pass": corrected_two_pass,
    "naive": naive,
    "shifted": shifted,
    "pairwise": pairwise,
    "compensated": compensated,
}
