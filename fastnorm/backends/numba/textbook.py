"""The textbook algorithms for Numba: operation for operation those of ``src_pyx/textbook.pxi``."""

import numpy as np
from numba import types
from numba.extending import overload

from fastnorm.backends.numba.half import half_narrowed, half_widened
from fastnorm.backends.numba.jit import compiled, helper

# In the order of textbook.ALGORITHMS.
WELFORD, TWO_PASS, CORRECTED_TWO_PASS, NAIVE, SHIFTED, PAIRWISE, COMPENSATED = range(7)


def r(value, half):
    """The value as the storage type holds it."""


@overload(r, jit_options={"forceinline": True})
def _r(value, half):
    if value == types.float32:
        return lambda value, half: half_widened(half_narrowed(value)) if half else value
    return lambda value, half: value


def cast(value, like):
    """The value in the dtype of an array."""


@overload(cast, jit_options={"forceinline": True})
def _cast(value, like):
    if like.dtype == types.float32:
        return lambda value, like: np.float32(value)
    return lambda value, like: np.float64(value)


@helper
def over(value, count, like, half):
    return r(value / cast(count, like), half)


@helper
def total_weight(weights, n):
    if weights.size == 0:
        return np.float64(n)
    total = 0.0
    for i in range(n):
        total += weights[i]
    return total


@helper
def term(x, weights, i, shift, power, half):
    """The w * (x - shift), or w * (x - shift)^2, of element i."""
    d = r(x[i] - shift, half)
    if power == 2:
        d = r(d * d, half)
    return r(d * weights[i], half) if weights.size else d


@helper
def power_sum(x, weights, shift, power, half):
    total = term(x, weights, 0, shift, power, half)
    for i in range(1, x.size):
        total = r(total + term(x, weights, i, shift, power, half), half)
    return total


@helper
def compensated_sum(x, weights, shift, power, half):
    total = term(x, weights, 0, shift, power, half)
    rest = cast(0.0, x)
    for i in range(1, x.size):
        d = term(x, weights, i, shift, power, half)
        after = r(total + d, half)
        if abs(total) >= abs(d):
            lost = r(r(total - after, half) + d, half)
        else:
            lost = r(r(d - after, half) + total, half)
        rest = r(rest + lost, half)
        total = after
    return r(total + rest, half)


@helper
def welford(x, weights, half):
    count = 0.0
    mean, m2 = cast(0.0, x), cast(0.0, x)
    for i in range(x.size):
        w = weights[i] if weights.size else cast(1.0, x)
        count += w
        delta = r(x[i] - mean, half)
        weighted = r(w * delta, half)
        mean = r(mean + over(delta, (count if count != 0.0 else 1.0) / w, x, half), half)
        m2 = r(m2 + r(weighted * r(x[i] - mean, half), half), half)
    return mean, m2


@helper
def two_pass(x, weights, half):
    zero = cast(0.0, x)
    mean = over(power_sum(x, weights, zero, 1, half), total_weight(weights, x.size), x, half)
    return mean, power_sum(x, weights, mean, 2, half)


@helper
def corrected_two_pass(x, weights, half):
    total, zero = total_weight(weights, x.size), cast(0.0, x)
    mean = over(power_sum(x, weights, zero, 1, half), total, x, half)
    rest = power_sum(x, weights, mean, 1, half)
    share = over(rest, total, x, half)
    return r(mean + share, half), r(power_sum(x, weights, mean, 2, half) - r(rest * share, half), half)


@helper
def naive(x, weights, shift, half):
    first = power_sum(x, weights, shift, 1, half)
    mean = over(first, total_weight(weights, x.size), x, half)
    return r(mean + shift, half), r(power_sum(x, weights, shift, 2, half) - r(first * mean, half), half)


@helper
def shifted(x, weights, half):
    first = 0
    while first < weights.size and weights[first] == 0:
        first += 1
    return naive(x, weights, x[first if first < x.size else 0], half)


@helper
def pairwise(x, weights, half):
    counts, means, squares = np.empty(64), np.empty(64, x.dtype), np.empty(64, x.dtype)
    top = 0
    for i in range(x.size + 1):
        pairs = 0
        if i < x.size:
            counts[top], means[top], squares[top] = (weights[i] if weights.size else cast(1.0, x)), x[i], 0
            top += 1
            pairs = i + 1
        while top > 1 and pairs & 1 == 0:
            pairs >>= 1
            top -= 1
            left, right = counts[top - 1], counts[top]
            joined = left + right if left + right != 0.0 else 1.0
            delta = r(means[top] - means[top - 1], half)
            share, product = r(cast(right / joined, x), half), r(cast(left * right / joined, x), half)
            counts[top - 1] = left + right
            means[top - 1] = r(means[top - 1] + r(delta * share, half), half)
            both = r(squares[top - 1] + squares[top], half)
            squares[top - 1] = r(both + r(r(delta * delta, half) * product, half), half)
    return means[0], squares[0]


@helper
def compensated(x, weights, half):
    zero = cast(0.0, x)
    mean = over(compensated_sum(x, weights, zero, 1, half), total_weight(weights, x.size), x, half)
    return mean, compensated_sum(x, weights, mean, 2, half)


@compiled
def textbook(x, weights, algorithm, half, mean, m2):
    """Mean and m2 of the lines (lines, n); weights are of the same shape, or (lines, 0) for none."""
    for o in range(x.shape[0]):
        line, w = x[o], weights[o]
        if algorithm == WELFORD:
            mean[o], m2[o] = welford(line, w, half)
        elif algorithm == TWO_PASS:
            mean[o], m2[o] = two_pass(line, w, half)
        elif algorithm == CORRECTED_TWO_PASS:
            mean[o], m2[o] = corrected_two_pass(line, w, half)
        elif algorithm == NAIVE:
            mean[o], m2[o] = naive(line, w, cast(0.0, line), half)
        elif algorithm == SHIFTED:
            mean[o], m2[o] = shifted(line, w, half)
        elif algorithm == PAIRWISE:
            mean[o], m2[o] = pairwise(line, w, half)
        else:
            mean[o], m2[o] = compensated(line, w, half)
