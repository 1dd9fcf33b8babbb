"""The reference: every primitive in NumPy and float64. It works everywhere, and is the specification of the others.

Every array is a canonical view (outer, reduce, inner) with a contiguous last axis of more than one element; weights are
one-dimensional and of the dtype of x. A backend that computes in another order must stay within the accuracy contract.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm.backends.textbook import ALGORITHMS
from fastnorm.dtypes import is_narrow
from fastnorm.recipe import (
    Affine,
    Fusion,
    Measure,
    Moments,
    Neighbourhood,
    Rule,
    line_terms,
    merge,
    reciprocal_root,
)

Array = npt.NDArray[Any]


def quantize(y: Array, lines: Array, scales: Array) -> None:
    """Write y, (lines, n), as int8 and a scale for each line, (lines, 1): 127 is the largest magnitude.

    Lines of zeros, and those that have no such scale, are zeros.
    """
    with np.errstate(all="ignore"):
        largest = np.abs(y).max(axis=1, keepdims=True)
        factor = np.where(largest > 0, y.dtype.type(127) / largest, y.dtype.type(0))
        np.copyto(scales, largest / y.dtype.type(127), casting="unsafe")
        usable = (factor > 0) & (factor < np.inf)
        np.copyto(lines, np.where(usable, np.rint(y * factor), 0), casting="unsafe")


def _write(y: Array, values: Array) -> None:
    """Write float64 numbers to y; to 16-bit floats by way of float32, in which they are computed everywhere else."""
    np.copyto(y, values.astype(np.float32) if is_narrow(y.dtype) else values, casting="unsafe")


def _channel_lines(last: bool, *arrays: Array) -> list[Array]:
    """Return arrays (items, C, S), or with `last` (items, S, C), as (items, C, S) float64 of the shape of the first."""
    turned = [array.transpose(0, 2, 1) if last else array for array in arrays]
    return [np.ascontiguousarray(np.broadcast_to(array, turned[0].shape), np.float64) for array in turned]


# Elements worked on at a time where several passes follow each other: their temporaries stay in the L2 cache.
_BLOCK = 2**15


def _blocks_of_positions(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Yield blocks of (items, channels, positions): all channels of some positions, one block after the other."""
    items, channels, positions = shape
    step = max(1, _BLOCK // channels)
    together = max(1, step // positions)
    for first in range(0, items, together):
        for position in range(0, positions, step):
            yield np.s_[first : first + together, :, position : position + step]


def _neighbour_sums(values: Array, before: int, after: int) -> Array:
    """Sums over the channels around each, (items, channels, positions)."""
    sums, channels = np.zeros_like(values), values.shape[1]
    for shift in range(-before, after + 1):
        sums[:, max(0, -shift) : channels - max(0, shift)] += values[:, max(0, shift) : channels + min(0, shift)]
    return sums


def _bases(x: Array, near: Neighbourhood) -> Array:
    return near.k + near.slope * _neighbour_sums(np.square(x), near.before, near.after)


class Reference:
    """A backend. Subclasses override what they speed up."""

    name = "reference"
    # Whether x, y, dy and dx of a primitive may be of a floating dtype of 16 bits, all of one; parameters are float32.
    narrow = False

    def variant(self) -> str:
        """Return what was chosen inside the backend, for `explain` and `show_config`."""
        return "numpy"

    def hindrance(self) -> str | None:
        """Return why this backend would be slower than NumPy here, so that it serves only who asks for it; or None."""
        return None

    def warm(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Have everything compiled that a call may need, for as long as `wanted` says so."""

    def threads(self, requested: int) -> int:
        """Return how many threads a call will use if it may use `requested`."""
        return 1

    def takes_narrow_lines(self, view: tuple[int, int, int], arrays: int) -> bool:
        """Return whether `normalize` takes lines so long of 16-bit floats, so many arrays at a time."""
        return False

    def convert(self, source: Array, target: Array) -> None:
        """Write `source` to `target`, both (n,): 16-bit floats to float32 or, rounded, back."""
        np.copyto(target, source, casting="unsafe")

    def copy(self, source: Array, target: Array) -> None:
        """Write `source` to `target`, of one shape and dtype, which share no memory; their strides may be any."""
        np.copyto(target, source)

    def moments(self, x: Array, measure: Measure) -> Moments:
        """Return the moments of each line, (outer, inner); about 0 unless the measure is the variance."""
        # Lines last and contiguous: only there does NumPy add pairwise.
        x = np.ascontiguousarray(x.transpose(0, 2, 1), dtype=np.float64)
        with np.errstate(all="ignore"):
            if measure != Measure.VARIANCE:
                zero = np.zeros(x.shape[:2])
                return Moments(zero, zero, (np.abs(x) if measure == Measure.MAGNITUDES else x * x).sum(axis=2))
            hi = x.mean(axis=2)
            deviations = x - hi[..., np.newaxis]
            lo = deviations.mean(axis=2)
            deviations -= lo[..., np.newaxis]
            return Moments(hi, lo, (deviations * deviations).sum(axis=2))

    def merge(self, parts: Moments, count: float, last: float) -> Moments:
        """Join the parts (a, b, c) along b; each has `count` elements, the last one `last`."""
        return merge(parts, count, last)

    def textbook(self, algorithm: str, x: Array, weights: Array | None) -> tuple[Array, Array]:
        """Return mean and m2, float64, of contiguous lines (lines, n) by one of `textbook.ALGORITHMS`.

        x is float16, float32 or float64; weights have its shape and dtype.
        """
        with np.errstate(all="ignore"):
            mean, m2 = ALGORITHMS[algorithm](x, weights)
        return mean.astype(np.float64), m2.astype(np.float64)

    def extrema(self, x: Array) -> tuple[Array, Array]:
        """Return the least and the largest element of each line, (outer, inner), NaN where there is one."""
        return x.min(axis=1), x.max(axis=1)

    def affine(
        self, x: Array, y: Array, coefficients: Affine, weight: Array | None = None, bias: Array | None = None
    ) -> None:
        """Write y = (x - hi - lo) * scale + shift, or, with a weight a position, times weight plus bias.

        The coefficients are (lines, inner); block o of x has row o % lines.
        """
        repeats = x.shape[0] // coefficients.hi.shape[0] if x.shape[0] else 1
        hi, lo, scale, shift = (np.tile(part, (repeats, 1))[:, np.newaxis] for part in coefficients)
        with np.errstate(all="ignore"):
            result = ((x.astype(np.float64) - hi) - lo) * scale
            if weight is not None and bias is not None:
                result = result * weight[:, np.newaxis].astype(np.float64) + bias[:, np.newaxis]
            else:
                result += shift
            _write(y, result)

    def normalize(
        self, x: Array, y: Array, weight: Array, bias: Array, per_position: bool, segments: int, rule: Rule,
        want_stats: bool,
    ) -> Moments | None:  # fmt: skip
        """Write the normalised lines; return their moments if they are wanted.

        Per position, weight and bias have `reduce` elements. Otherwise a line is `segments` equal runs; segment j of
        line number k has the parameter (k * segments + j) modulo the number of parameters.
        """
        outer, reduce, inner = x.shape
        stats = self.moments(x, rule.measure)
        rstd = reciprocal_root(stats.m2, reduce, rule)
        zero = np.zeros((outer, inner))
        if per_position:
            self.affine(x, y, Affine(stats.hi, stats.lo, rstd, zero), weight, bias)
            return stats if want_stats else None
        number = np.arange(outer * inner * segments) % weight.size
        parts = (outer * segments, reduce // segments, inner)
        split = (outer * segments, inner)
        with np.errstate(all="ignore"):
            scale = np.repeat(rstd, segments, axis=0) * weight.astype(np.float64)[number].reshape(split)
        hi, lo = (np.repeat(part, segments, axis=0) for part in (stats.hi, stats.lo))
        coefficients = Affine(hi, lo, scale, bias.astype(np.float64)[number].reshape(split))
        result = np.empty(parts, y.dtype)
        self.affine(x.reshape(parts), result, coefficients)
        np.copyto(y, result.reshape(y.shape))
        return stats if want_stats else None

    def before(self, fusion: Fusion, x: Array) -> None:
        """Write to x, C-contiguous, the sum that a fusion begins with, if any."""
        if fusion.addend is not None and fusion.residual is not None:
            with np.errstate(all="ignore"):
                np.add(fusion.addend.reshape(x.shape), fusion.residual.reshape(x.shape), out=x)

    def after(self, fusion: Fusion, y: Array) -> None:
        """Apply the activation that a fusion ends with, if any, to y, C-contiguous; quantise its lines if wanted."""
        if fusion.activation is not None:
            fusion.activation.apply(y)
        if fusion.quantized is not None:
            lines, scales = fusion.quantized
            quantize(y.reshape(scales.size, -1), lines.reshape(scales.size, -1), scales.reshape(-1, 1))

    def normalize_fused(
        self, fusion: Fusion, x: Array, y: Array, weight: Array, bias: Array, per_position: bool, segments: int,
        rule: Rule, want_stats: bool,
    ) -> Moments | None:  # fmt: skip
        """Do `before`, `normalize` of rows and `after`."""
        self.before(fusion, x)
        stats = self.normalize(x, y, weight, bias, per_position, segments, rule, want_stats)
        self.after(fusion, y)
        return stats

    def affine_fused(self, fusion: Fusion, x: Array, y: Array, coefficients: Affine) -> None:
        """Do `before`, `affine` and `after`."""
        self.before(fusion, x)
        self.affine(x, y, coefficients)
        self.after(fusion, y)

    def dots(self, x: Array, dy: Array, mean: Array) -> tuple[Array, Array]:
        """Return the sums of dy and of dy * (x - mean) over each line, (outer, inner) float64.

        The means are (lines, inner); block o of x has row o % lines.
        """
        repeats = x.shape[0] // mean.shape[0]
        centre = np.tile(mean, (repeats, 1))[:, np.newaxis]
        with np.errstate(all="ignore"):
            upstream = dy.astype(np.float64)
            return upstream.sum(axis=1), (upstream * (x - centre)).sum(axis=1)

    def affine_grad(
        self, x: Array, dy: Array, dx: Array, mean: Array, scale: Array, slope: Array, shift: Array
    ) -> None:
        """Write dx = scale * dy + slope * (x - mean) + shift, coefficients (lines, inner) as in `dots`."""
        repeats = x.shape[0] // mean.shape[0]
        centre, a, k, e = (np.tile(part, (repeats, 1))[:, np.newaxis] for part in (mean, scale, slope, shift))
        with np.errstate(all="ignore"):
            _write(dx, a * dy + k * (x - centre) + e)

    def normalize_grad(
        self, x: Array, dy: Array, dx: Array, weight: Array, per_position: bool, segments: int, rule: Rule,
        given: tuple[Array, Array] | None, parameters: bool,
    ) -> tuple[Array, Array] | None:  # fmt: skip
        """Write dx of rows, (outer, reduce, 1), and with `parameters` return sums of dy * xhat and of dy, float64.

        Per position, weight has `reduce` elements and the sums go over the lines. Otherwise weight is as in
        `normalize`, without a bias, and the sums are those of each of the `segments` runs of each line. `given` are
        mean and rstd of each line.
        """
        outer, reduce, _ = x.shape
        if given is None:
            stats = self.moments(x, rule.measure)
            mean, rstd = stats.hi + stats.lo, reciprocal_root(stats.m2, reduce, rule)
        else:
            mean, rstd = (part.reshape(outer, 1) for part in given)
        with np.errstate(all="ignore"):
            upstream = dy[..., 0].astype(np.float64)
            xhat = (x[..., 0] - mean) * rstd
            if per_position or weight.size == 1:
                g = upstream * weight
            else:
                number = np.arange(outer * segments) % weight.size
                g = upstream * np.repeat(weight[number].reshape(outer, segments), reduce // segments, axis=1)
            sums, products = g.sum(axis=1, keepdims=True), (g * xhat).sum(axis=1, keepdims=True)
            a, b = line_terms(rule, sums, products, reduce, rstd)
            np.copyto(dx[..., 0], rstd * (g - a - xhat * b), casting="unsafe")
            if not parameters:
                return None
            if per_position:
                return (upstream * xhat).sum(axis=0), upstream.sum(axis=0)
            runs = outer, segments, reduce // segments
            return (upstream * xhat).reshape(runs).sum(axis=2).ravel(), upstream.reshape(runs).sum(axis=2).ravel()

    def counted_moments(self, x: Array, weights: Array, last: bool) -> Moments:
        """Return the moments of each channel of each item, (items, C), of elements that count what weights say.

        x is (items, C, S) or, with `last`, (items, S, C), contiguous; weights, float64, likewise, C being 1 where all
        channels count alike. What counts 0 may be NaN; mean and m2 of nothing are 0.
        """
        x, weights = _channel_lines(last, x, weights)
        with np.errstate(all="ignore"):
            totals = weights.sum(axis=2)
            totals = np.where(totals == 0, 1.0, totals)
            deviations = np.where(weights == 0, 0.0, x)
            hi = (weights * deviations).sum(axis=2) / totals
            deviations = np.where(weights == 0, 0.0, deviations - hi[..., np.newaxis])
            lo = (weights * deviations).sum(axis=2) / totals
            deviations -= lo[..., np.newaxis]
            return Moments(hi, lo, (weights * deviations * deviations).sum(axis=2))

    def counted_dots(self, x: Array, dy: Array, weights: Array, last: bool, mean: Array) -> tuple[Array, Array]:
        """Return the sums of dy and of dy * (x - mean) of each channel of each item, (items, C) float64.

        mean is (items or 1, C). x is passed over where it counts 0 and dy is 0.
        """
        x, dy, weights = _channel_lines(last, x, dy, weights)
        passed = (weights == 0) & (dy == 0)
        with np.errstate(all="ignore"):
            deviations = np.where(passed, 0.0, x - mean[..., np.newaxis])
            return dy.sum(axis=2), (dy * deviations).sum(axis=2)

    def counted_grad(
        self, x: Array, dy: Array, dx: Array, weights: Array, last: bool, mean: Array, rstd: Array, scale: Array,
        a: Array, b: Array,
    ) -> None:  # fmt: skip
        """Write dx = rstd * (scale * dy - w * (a + (x - mean) * rstd * b)), coefficients (items or 1, C)."""
        place = 1 if last else 2  # of the positions
        mean, rstd, scale, a, b = (np.expand_dims(part, place) for part in (mean, rstd, scale, a, b))
        with np.errstate(all="ignore"):
            through_statistics = np.where(weights == 0, 0.0, weights * (a + (x - mean) * rstd * b))
            np.copyto(dx, rstd * (scale * dy - through_statistics), casting="unsafe")

    def clip(self, x: Array, y: Array, low: float, high: float) -> None:
        """Write x, (n,), limited to low..high; NaN stays."""
        with np.errstate(all="ignore"):  # an end beyond float32 is no limit to it
            ends = np.array([low, high]).astype(x.dtype)
        np.clip(x, *ends, out=y)

    def local_response(self, x: Array, y: Array, near: Neighbourhood, rstd: Array | None) -> None:
        """Write y = x * (k + slope * sum)^-beta, the sum of the squares of the channels around; the power to rstd.

        x and y are contiguous, (items, channels, positions), and rstd, float64, likewise if it is wanted.
        """
        with np.errstate(all="ignore"):
            for block in _blocks_of_positions(x.shape):
                part = x[block].astype(np.float64)
                factor = _bases(part, near) ** -near.beta
                np.copyto(y[block], part * factor, casting="unsafe")
                if rstd is not None:
                    rstd[block] = factor

    def local_response_grad(self, x: Array, dy: Array, dx: Array, near: Neighbourhood, rstd: Array | None) -> None:
        """Write the gradient of x in `local_response`, whose powers rstd are if they are given.

        With d = k + slope * sum: dx = dy * d^-beta - 2 * slope * beta * x * sum(dy * x * d^(-beta - 1)), the last sum
        over the channels in whose neighbourhood x is.
        """
        with np.errstate(all="ignore"):
            for block in _blocks_of_positions(x.shape):
                part, upstream = x[block].astype(np.float64), dy[block].astype(np.float64)
                bases = _bases(part, near)
                scaled = upstream * (bases**-near.beta if rstd is None else rstd[block])
                through = _neighbour_sums(scaled * part / bases, near.after, near.before)
                np.copyto(dx[block], scaled - 2.0 * near.slope * near.beta * part * through, casting="unsafe")

    def image(self, x: Array, y: Array, planar: bool, mean: Array, scale: Array) -> None:
        """Write y = (x - mean) * scale for bytes (images, pixels, channels), mean and scale (C,) or (images, C).

        y is (images, channels, pixels) if `planar`.
        """
        with np.errstate(all="ignore"):
            result = (x - mean.reshape(-1, 1, x.shape[2])) * scale.reshape(-1, 1, x.shape[2])
            np.copyto(y, result.transpose(0, 2, 1) if planar else result, casting="unsafe")

    def image_statistics(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of each channel of bytes (images, pixels, channels), (images, C)."""
        return x.mean(axis=1, dtype=np.float64), x.std(axis=1, dtype=np.float64)
