"""Coefficient algebra: from moments to y = (x - centre) * scale + shift, in float64.

What is particular to a norm by mean and variance is here, as data (`Rule`) and a few lines of arithmetic. The compiled
kernels do the same operations in the same order, so a composed norm has the bits of a fused one.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm.activations import Activation
from fastnorm.ranges import LARGEST_CENTRE, LARGEST_RSTD, SMALLEST_RSTD

Array = npt.NDArray[Any]


class Measure(IntEnum):
    """What `m2` adds up over a line."""

    SQUARES = 0  # of the elements (RMSNorm, L2)
    VARIANCE = 1  # squares of the deviations from the mean (LayerNorm)
    MAGNITUDES = 2  # of the elements (L1)


@dataclass(frozen=True, slots=True)
class Rule:
    """How a line's moments become its scale.

    scale = 1 / sqrt(m2 / divisor + eps), or with `floor` 1 / max(sqrt(m2 / divisor), eps), the root left out for
    magnitudes.
    """

    measure: Measure = Measure.VARIANCE
    eps: float = 0.0
    floor: bool = False
    summed: bool = False  # divisor 1 (a norm) instead of count - ddof (a variance)
    ddof: float = 0.0

    def divisor(self, count: int) -> float:
        """Return what m2 of so many elements is divided by."""
        return 1.0 if self.summed else count - self.ddof


class Moments(NamedTuple):
    """Statistics of lines, float64: the mean is hi + lo, m2 the sum of squared deviations from it."""

    hi: Array
    lo: Array
    m2: Array


class Affine(NamedTuple):
    """Coefficients of y = (x - hi - lo) * scale + shift, float64, one each a line."""

    hi: Array
    lo: Array
    scale: Array
    shift: Array


class Neighbourhood(NamedTuple):
    """What a local response divides by: (k + slope * sum)^beta, the sum of the squares of the channels around."""

    before: int
    after: int
    slope: float
    beta: float
    k: float


class Fusion(NamedTuple):
    """What is done in the same pass: the norm's x is addend + residual, if given; an activation is applied to y.

    `quantized` are the int8 lines that y is turned into, and the float32 scale of each; y is then memory to work in, of
    which nobody reads what is left there.

    Arrays are C-contiguous, of the dtype that the kernels compute in.
    """

    addend: Array | None
    residual: Array | None
    activation: Activation | None
    quantized: tuple[Array, Array] | None = None


def reciprocal_root(m2: Array, count: int, rule: Rule) -> Array:
    """Return 1 / denominator, and 1 where the denominator is 0: the deviations are 0 there too."""
    with np.errstate(all="ignore"):
        variance = m2 / rule.divisor(count)
        if rule.floor:
            root = np.maximum(variance if rule.measure == Measure.MAGNITUDES else np.sqrt(variance), rule.eps)
        else:
            root = np.sqrt(variance + rule.eps)
        return 1.0 / np.where(root == 0.0, 1.0, root)


def fold(hi: Array, lo: Array, rstd: Array, weight: Array | None = None, bias: Array | None = None) -> Affine:
    """Return the coefficients of lines with statistics `hi + lo` and `rstd`, weight and bias broadcast to them."""
    with np.errstate(all="ignore"):
        scale = rstd if weight is None else rstd * weight.astype(np.float64)
    shift = np.zeros(scale.shape)
    if bias is not None:
        shift += bias
    return Affine(hi, lo, scale, shift)


def leaves_range(rstd: Array, scale: Array, dtype: np.dtype[Any]) -> Array | None:
    """Which lines the kernels cannot apply, since float32 would overflow or underflow on the way; None if all can be.

    In float64 those with an infinite scale, which has no two parts. NaN makes NaN of its line in any way.
    """
    if rstd.size == 0:
        return None
    if dtype != np.float32:
        infinite = np.isinf(scale)
        return infinite if infinite.any() else None
    within = rstd.min() >= SMALLEST_RSTD and rstd.max() <= LARGEST_RSTD
    if within and scale is rstd:
        return None
    size = np.abs(scale)
    if within and size.min() >= SMALLEST_RSTD and size.max() <= LARGEST_RSTD:
        return None
    outside = (rstd < SMALLEST_RSTD) | (rstd > LARGEST_RSTD)
    outside |= (size > LARGEST_RSTD) | ((size < SMALLEST_RSTD) & (size > 0.0))
    return outside if outside.any() else None


def seen_from(centre: Array, rstd: Array) -> Array:
    """Return what `leaves_range` is to see of a rstd that was given: 0 where x - centre may leave float32."""
    return np.where(np.abs(centre) > LARGEST_CENTRE, 0.0, rstd)


def line_terms(rule: Rule, sums: Array, products: Array, count: int, rstd: Array) -> tuple[Array, Array]:
    """Return A and B of dx = rstd * (g - A - xhat * B), from the sums of g and of g * xhat over lines of `count`."""
    with np.errstate(all="ignore"):
        b = products / rule.divisor(count)
        if rule.floor:  # a line that is divided by eps is divided by a constant
            b = np.where(rstd >= np.float64(1.0) / rule.eps, 0.0, b)
        return (sums / count if rule.measure == Measure.VARIANCE else np.zeros_like(sums)), b


def added_in_order(parts: Array, axis: int) -> Array:
    """Return sums along an axis, from 0 on in order, as kernels add: NumPy adds eight and more in pairs."""
    sums: Array = 0.0 + np.cumsum(parts, axis=axis, dtype=parts.dtype).take(-1, axis)
    return sums


def merge(parts: Moments, count: float, last: float) -> Moments:
    """Join the parts (a, b, c) along the middle axis, in order, by the formula of Chan, Golub and LeVeque (1979).

    Every part has `count` elements, the last one `last`.
    """
    hi, lo, m2 = (part[:, 0].copy() for part in parts)
    total = count
    for b in range(1, parts.hi.shape[1]):
        size = last if b == parts.hi.shape[1] - 1 else count
        joined = total + size
        with np.errstate(all="ignore"):
            delta = (parts.hi[:, b] - hi) + (parts.lo[:, b] - lo)
            lo = lo + delta * (size / joined)
            m2 = m2 + (parts.m2[:, b] + delta * delta * (total * size / joined))
        total = joined
    return Moments(hi, lo, m2)
