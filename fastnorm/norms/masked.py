"""Batch, instance and group normalization by the statistics of some elements, or of elements that count unequally.

What an element counts, w, is 0 where a mask leaves it out. Statistics and gradients follow from it:

    mean = sum of w * x / sum of w,    var = sum of w * (x - mean)^2 / sum of w,
    dx = rstd * (g - w * (A + xhat * B)),    A = sum of g / sum of w,    B = sum of g * xhat / sum of w,

g = weight * dy as in `fastnorm.gradients`. All elements are results, so g is summed over all; statistics depend on an
element as far as it counts. Moments are those of each channel of each item first, which are joined then; all of it is
float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, engine, gradients
from fastnorm.calls import Call
from fastnorm.engine import Stats
from fastnorm.gradients import ChannelSums, Given, quiet
from fastnorm.plan import LONG_ITEM, ChannelLayout, plan_channels
from fastnorm.ranges import ROUNDING
from fastnorm.recipe import Fusion, Moments, Rule, added_in_order, fold, reciprocal_root, seen_from

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Counted:
    """What each element counts, and which elements share statistics.

    Attributes
    ----------
    weights : ndarray
        float64, contiguous: (parts, C, S) or, where the channels are last, (parts, S, C), like x as `view` returns it,
        the parts being items, or all of them as one; C is 1 if all channels count alike.
    counts : ndarray
        The sum of the weights of each channel of each part, (parts, C).
    layout : ChannelLayout
        Where the channels are.
    items : int
        How many statistics a channel has: 1, those of the batch, or as many as there are items.
    per_group : int
        How many adjacent channels share statistics.
    """

    weights: Array
    counts: Array
    layout: ChannelLayout
    items: int
    per_group: int

    def view(self, array: Array) -> Array:
        """Return an array of the shape of x as the kernels take it, contiguous; a copy where it must be."""
        return _view(array, self.layout, self.items, self.layout.channels)

    def joined(self, parts: Array) -> Array:
        """Return (items, C) as what shares statistics, the middle of three axes."""
        if self.per_group > 1:
            return parts.reshape(-1, self.per_group, 1)
        return parts.reshape(self.items, -1, self.layout.channels)

    def of_channels(self, values: Array) -> Array:
        """Return one number for each of the items x groups as (items, C)."""
        return np.repeat(values, self.per_group).reshape(self.items, -1)

    def against_x(self, values: Array, ndim: int, axis: int) -> Array:
        """Return (items, C) in the shape that broadcasts against x."""
        shape = [1] * ndim
        shape[0], shape[axis] = len(values), self.layout.channels
        return values.reshape(shape)

    @quiet
    def totals(self) -> Array:
        """Return the sum of the weights of each of the items x groups."""
        totals: Array = self.joined(self.counts).sum(axis=1).reshape(-1)
        return totals


def _view(array: Array, layout: ChannelLayout, items: int, channels: int) -> Array:
    ordered = array if layout.order is None else array.transpose(layout.order)
    if not layout.last:
        shape = layout.batch, channels, layout.spatial
    elif items == 1 and layout.spatial < LONG_ITEM:
        shape = 1, layout.batch * layout.spatial, channels
    else:
        shape = layout.batch, layout.spatial, channels
    return np.ascontiguousarray(ordered).reshape(shape)


def _lines(array: Array, layout: ChannelLayout) -> Array:
    """Return (items, C, S)."""
    return np.ascontiguousarray(array.transpose(0, 2, 1)) if layout.last else array


class Normalized(NamedTuple):
    """What a batch's running statistics are updated by, and the statistics in the shape that broadcasts against x."""

    moments: Moments
    totals: Array
    stats: Stats


def find_counted(
    x: Array, axis: int, weights: npt.ArrayLike | None, where: npt.ArrayLike | None, function: str, *,
    per_group: int | None,
) -> Counted | None:  # fmt: skip
    """Check `weights` and `where`; None if there are neither. Without `per_group` statistics are those of the batch."""
    found = arguments.element_weights(weights, where, x.shape, function)
    if found is None:
        return None
    layout, items = plan_channels(x.shape, axis), 1 if per_group is None else x.shape[0]
    if found.strides[axis] == 0 and x.size:  # what is the same in all channels is not repeated for them
        found = found[(slice(None),) * axis + (slice(1),)]
    view = _view(found, layout, items, found.shape[axis])
    with np.errstate(all="ignore"):
        sums = _lines(view, layout).sum(axis=2)  # contiguous: the order does not depend on C
    counts = np.broadcast_to(sums, (len(sums), layout.channels))
    return Counted(view, counts, layout, items, per_group or 1)


def check_counted(counted: Counted, unbiased: bool, moved: bool, function: str) -> None:
    """Check that each channel of a batch has what training needs.

    A value; if variances are unbiased two, and if a running one is moved, a count that 1 can be taken from.
    """
    if not counted.weights.size:
        return
    least = np.count_nonzero(_lines(counted.weights, counted.layout), axis=(0, 2)).min()
    if least < 1 + unbiased:
        needed = "more than one value" if unbiased else "a value"
        raise ValueError(f"{function}: training needs {needed} per channel, got {least} that where and weights count")
    total = counted.totals().min()
    if unbiased and moved and total <= 1:
        raise ValueError(
            f"{function}: weights must add up to more than 1 in each channel for an unbiased running variance, "
            f"got {total:g}"
        )


def _divisors(totals: Array) -> Array:
    return np.where(totals == 0, 1.0, totals)


def _statistics(call: Call, counted: Counted, rule: Rule) -> tuple[Moments, Array, Array]:
    """Return moments, sums of weights and rstd of each of the items x groups, flat; mean 0 and rstd 0 of nothing."""
    found = call.backend.counted_moments(counted.view(call.x), counted.weights, counted.layout.last)
    parts = Moments(*(counted.joined(part) for part in found))
    counts = counted.joined(counted.counts)
    totals = counts.sum(axis=1)
    with np.errstate(all="ignore"):
        if counts.shape[1] > 1:
            parts = _pooled(parts, counts, _divisors(totals))
        moments = Moments(*(part.reshape(-1) for part in parts))
        totals = totals.reshape(-1)
        doubtful = (moments.m2 > 0.0) & (moments.m2 <= totals * (ROUNDING * moments.hi) ** 2)
        if doubtful.any():  # of a constant line that is the rounding of its mean
            moments.m2[doubtful & _are_constant(call.x, counted)] = 0.0
        rstd = np.where(totals == 0, 0.0, reciprocal_root(moments.m2 / _divisors(totals), 1, rule))
    return moments, totals, rstd


def _are_constant(x: Array, counted: Counted) -> Array:
    """Whether all elements that count of each of the items x groups are equal."""
    view, counts, positions = counted.view(x), counted.weights > 0, 1 if counted.layout.last else 2
    low = np.where(counts, view, np.inf).min(axis=positions)
    high = np.where(counts, view, -np.inf).max(axis=positions)
    constant: Array = counted.joined(low).min(axis=1) == counted.joined(high).max(axis=1)
    return constant.reshape(-1)


def _pooled(parts: Moments, counts: Array, totals: Array) -> Moments:
    """Join moments (a, b, c) along b, each of so many elements as `counts` says: about the mean of all."""
    hi = added_in_order(counts * parts.hi, 1) / totals
    deviations = (parts.hi - hi[:, np.newaxis]) + parts.lo
    deviations[counts == 0] = 0.0
    lo = added_in_order(counts * deviations, 1) / totals
    deviations -= lo[:, np.newaxis]
    return Moments(hi, lo, added_in_order(parts.m2 + counts * deviations * deviations, 1))


def _usable(rstd: Array, totals: Array) -> Array:
    """Return rstd, 1 where nothing counts: a 0 would send the item to float64, slower, for the same result."""
    return np.where(totals == 0, 1.0, rstd)


@quiet
def normalize_channels(
    call: Call, axis: int, counted: Counted, rule: Rule, weight: Array | None, bias: Array | None,
    fusion: Fusion | None = None,
) -> Normalized:  # fmt: skip
    """Normalise all elements by the statistics of those that count."""
    if fusion is not None:
        call.backend.before(fusion, call.x)
    moments, totals, rstd = _statistics(call, counted, rule)
    hi, lo, scale = (counted.of_channels(part) for part in (moments.hi, moments.lo, rstd))
    layout, ndim = counted.layout, call.x.ndim
    in_range = seen_from(hi, counted.of_channels(_usable(rstd, totals)))
    engine.apply(call, layout.apply_view(len(hi)), layout.order, fold(hi, lo, scale, weight, bias), in_range)
    if fusion is not None:
        call.backend.after(fusion, call.y)
    stats = Stats(counted.against_x(hi + lo, ndim, axis), counted.against_x(scale, ndim, axis))
    return Normalized(moments, totals, stats)


@quiet
def of_channels(
    call: Call, dy: Array, counted: Counted, rule: Rule, weight: Array | None, given: Given | None
) -> ChannelSums:
    """Write dx where the statistics, unless given, are those of the elements that count; return the sums."""
    if given is None:
        moments, totals, flat = _statistics(call, counted, rule)
        given = Given(moments.hi + moments.lo, flat)
    else:
        totals = counted.totals()
    mean, rstd, counts = (counted.of_channels(part) for part in (*given, totals))
    x, upstream, layout = counted.view(call.x), counted.view(dy), counted.layout
    sums, products = call.backend.counted_dots(x, upstream, counted.weights, layout.last, mean)
    with np.errstate(all="ignore"):
        if counted.items == 1:
            sums, products = sums.sum(axis=0, keepdims=True), products.sum(axis=0, keepdims=True)
        products[counts == 0] = 0.0  # where nothing counts, x may be NaN
        found = ChannelSums(sums, products * rstd)
        scale = np.ones(mean.shape) if weight is None else np.tile(weight.astype(np.float64), (len(mean), 1))
        a, b = gradients.group_means(found, scale, counted.per_group, _divisors(counts))
    dx = call.y.reshape(x.shape) if layout.order is None else np.empty(x.shape, call.y.dtype)
    call.backend.counted_grad(x, upstream, dx, counted.weights, layout.last, mean, rstd, scale, a, b)
    if layout.order is not None:
        target = call.y.transpose(layout.order)
        np.copyto(target, dx.reshape(target.shape))
    return found
