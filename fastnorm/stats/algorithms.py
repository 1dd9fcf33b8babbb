"""The textbook algorithms for mean and variance, each honest to its name, to compare their accuracy.

Every function takes lines x (L, n) and weights (L, n) or None, computes in the dtype of x, adds in order where its text
does, and returns (mean, m2), (L,). Let u be the unit roundoff and kappa the condition number sqrt(1 + n mean^2 / m2).
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
    return x if weights is None else x * weights


def _total(x: Array, weights: Array | None) -> Array:
    if weights is None:
        return np.full(x.shape[:-1], x.shape[-1], x.dtype)
    return in_order(np.broadcast_to(weights, x.shape))


def welford(x: Array, weights: Array | None) -> Result:
    """One element at a time: Welford 1962; with weights, West 1979. Error n kappa u."""
    count = np.zeros(x.shape[:-1], x.dtype)
    mean, m2 = np.zeros_like(count), np.zeros_like(count)
    for i in range(x.shape[-1]):
        w = x.dtype.type(1) if weights is None else weights[..., i]
        count = count + w
        delta = x[..., i] - mean
        mean = mean + delta * (w / np.where(count == 0, 1, count))
        m2 = m2 + w * delta * (x[..., i] - mean)
    return mean, m2


def two_pass(x: Array, weights: Array | None) -> Result:
    """The mean, then the squared deviations from it. Error n u + (n kappa u)^2."""
    mean = in_order(_weighted(x, weights)) / _total(x, weights)
    deviations = x - mean[..., np.newaxis]
    return mean, in_order(_weighted(deviations * deviations, weights))


def corrected_two_pass(x: Array, weights: Array | None) -> Result:
    """Two passes, less what the mean's own rounding error adds: Chan, Golub and LeVeque 1983, equation 1.7."""
    total = _total(x, weights)
    mean = in_order(_weighted(x, weights)) / total
    deviations = x - mean[..., np.newaxis]
    rest = in_order(_weighted(deviations, weights))
    return mean + rest / total, in_order(_weighted(deviations * deviations, weights)) - rest * (rest / total)


def naive(x: Array, weights: Array | None) -> Result:
    """The mean of the squares less the square of the mean. Error n kappa^2 u: use it only to see that."""
    total = _total(x, weights)
    first = in_order(_weighted(x, weights))
    return first / total, in_order(_weighted(x * x, weights)) - first * (first / total)


def shifted(x: Array, weights: Array | None) -> Result:
    """The naive algorithm after the first element is subtracted."""
    shift = x[..., :1]
    mean, m2 = naive(x - shift, weights)
    return mean + shift[..., 0], m2


def pairwise(x: Array, weights: Array | None) -> Result:
    """Halves joined, down to single elements: Chan, Golub and LeVeque 1979. Error kappa u log2(n)."""
    count = np.ones_like(x) if weights is None else np.broadcast_to(weights, x.shape).astype(x.dtype)
    mean, m2 = x, np.zeros_like(x)
    while mean.shape[-1] > 1:
        if mean.shape[-1] % 2:  # an empty part: it changes nothing
            padding = [(0, 0)] * (mean.ndim - 1) + [(0, 1)]
            count, mean, m2 = (np.pad(part, padding) for part in (count, mean, m2))
        left, right = count[..., 0::2], count[..., 1::2]
        joined = left + right
        share = right / np.where(joined == 0, 1, joined)
        delta = mean[..., 1::2] - mean[..., 0::2]
        m2 = m2[..., 0::2] + m2[..., 1::2] + delta * delta * (left * share)
        mean = mean[..., 0::2] + delta * share
        count = joined
    return mean[..., 0], m2[..., 0]


def _compensated_sum(x: Array) -> Array:
    """Neumaier 1974: what each addition in order loses is summed apart and added at the end."""
    sums = np.cumsum(x, axis=-1, dtype=x.dtype)
    before, after, added = sums[..., :-1], sums[..., 1:], x[..., 1:]
    lost = np.where(np.abs(before) >= np.abs(added), (before - after) + added, (added - after) + before)
    result: Array = sums[..., -1] + (in_order(lost) if lost.shape[-1] else 0)
    return result


def compensated(x: Array, weights: Array | None) -> Result:
    """Two passes whose sums are compensated."""
    total = _total(x, weights)
    mean = _compensated_sum(_weighted(x, weights)) / total
    deviations = x - mean[..., np.newaxis]
    return mean, _compensated_sum(_weighted(deviations * deviations, weights))


ALGORITHMS: dict[str, Callable[[Array, Array | None], Result]] = {
    "welford": welford,
    "two_pass": two_pass,
    "corrected_two_pass": corrected_two_pass,
    "naive": naive,
    "shifted": shifted,
    "pairwise": pairwise,
    "compensated": compensated,
}
