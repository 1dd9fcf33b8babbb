"""Batch, instance and group normalization by the statistics of some elements, or of elements that count unequally.

What an element counts, w, is 0 where a mask leaves it out. Statistics and gradients follow from it:

    mean = sum of w * x / sum of w,    var = sum of w * (x - mean)^2 / sum of w,
    dx = rstd * (g - w * (A + xhat * B)),    A = sum of g / sum of w,    B = sum of g * xhat / sum of w,

g = weight * dy as in `fastnorm.gradients`. All elements are results, so g is summed over all; statistics depend on an
element as far as it counts. Here NumPy computes in float64, with several arrays of the size of x; the backend applies
the statistics and adds up the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, engine, gradients
from fastnorm.calls import Call
from fastnorm.engine import Stats
from fastnorm.gradients import ChannelSums, Given
from fastnorm.plan import ChannelLayout, plan_channels
from fastnorm.recipe import Fusion, Moments, Rule, fold, reciprocal_root

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Counted:
    """What each element counts, and which elements share statistics.

    Attributes
    ----------
    weights : ndarray
        float64, of the shape of x.
    axis : int
        That of the channels.
    items : int
        How many statistics a channel has: 1, those of the batch, or as many as there are items.
    per_group : int
        How many adjacent channels share statistics.
    """

    weights: Array
    axis: int
    items: int
    per_group: int

    @property
    def layout(self) -> ChannelLayout:
        """Where the channels are."""
        return plan_channels(self.weights.shape, self.axis)

    def lines(self, array: Array) -> Array:
        """Return an array of the shape of x with a contiguous row for each of the items x groups."""
        channels = np.moveaxis(array, self.axis, 0 if self.items == 1 else 1)
        return np.ascontiguousarray(channels.reshape(self.items * self.layout.channels // self.per_group, -1))

    def of_channels(self, values: Array) -> Array:
        """Return one number for each of the items x groups as (items, C)."""
        return np.repeat(values, self.per_group).reshape(self.items, -1)

    def against_x(self, values: Array) -> Array:
        """Return (items, C) or (1, C) in the shape that broadcasts against x."""
        shape = [1] * self.weights.ndim
        shape[0], shape[self.axis] = len(values), self.layout.channels
        return values.reshape(shape)

    def totals(self) -> Array:
        """Return the sum of the weights of each of the items x groups."""
        sums: Array = self.lines(self.weights).sum(axis=1)
        return sums


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
    return None if found is None else Counted(found, axis, 1 if per_group is None else x.shape[0], per_group or 1)


def check_counted(counted: Counted, unbiased: bool, function: str) -> None:
    """Check that each channel of a batch has what training needs: two values, and a count that 1 can be taken from."""
    if not counted.weights.size:
        return
    least = np.count_nonzero(counted.lines(counted.weights), axis=1).min()
    if least < 2:
        raise ValueError(
            f"{function}: training needs more than one value per channel, got {least} that where and weights count"
        )
    total = counted.totals().min()
    if unbiased and total <= 1:
        raise ValueError(
            f"{function}: weights must add up to more than 1 in each channel for an unbiased running variance, "
            f"got {total:g}"
        )


def _statistics(x: Array, counted: Counted, rule: Rule) -> tuple[Moments, Array, Array]:
    """Return moments, sums of weights and rstd of each of the items x groups, flat; mean 0 and rstd 0 of nothing."""
    weights = counted.lines(counted.weights)
    totals = weights.sum(axis=1)
    counts = np.where(totals == 0, 1.0, totals)
    with np.errstate(invalid="ignore", over="ignore"):
        deviations = np.where(weights == 0, np.float64(0), counted.lines(x))  # padding may be NaN
        hi = (weights * deviations).sum(axis=1) / counts
        deviations -= hi[:, np.newaxis]
        lo = (weights * deviations).sum(axis=1) / counts
        deviations -= lo[:, np.newaxis]
        m2 = (weights * deviations * deviations).sum(axis=1)
        rstd = np.where(totals == 0, 0.0, reciprocal_root(m2 / counts, 1, rule))
    return Moments(hi, lo, m2), totals, rstd


def _usable(rstd: Array, totals: Array) -> Array:
    """Return rstd, 1 where nothing counts: a 0 would send the item to float64, slower, for the same result."""
    return np.where(totals == 0, 1.0, rstd)


def normalize_channels(
    call: Call, counted: Counted, rule: Rule, weight: Array | None, bias: Array | None, fusion: Fusion | None = None
) -> Normalized:
    """Normalise all elements by the statistics of those that count."""
    if fusion is not None:
        call.backend.before(fusion, call.x)
    moments, totals, rstd = _statistics(call.x, counted, rule)
    hi, lo, scale = (counted.of_channels(part) for part in (moments.hi, moments.lo, rstd))
    layout = counted.layout
    in_range = counted.of_channels(_usable(rstd, totals))
    engine.apply(call, layout.apply_view(len(hi)), layout.order, fold(hi, lo, scale, weight, bias), in_range)
    if fusion is not None:
        call.backend.after(fusion, call.y)
    return Normalized(moments, totals, Stats(counted.against_x(hi + lo), counted.against_x(scale)))


def of_channels(
    call: Call, dy: Array, counted: Counted, rule: Rule, weight: Array | None, given: Given | None
) -> ChannelSums:
    """Write dx where the statistics, unless given, are those of the elements that count; return the sums."""
    if given is None:
        moments, totals, flat = _statistics(call.x, counted, rule)
        given = Given(moments.hi + moments.lo, flat)
    else:
        totals = counted.totals()
    mean, rstd = (counted.of_channels(part) for part in given)
    counts = counted.of_channels(totals)
    left_out, nothing = counted.weights == 0, counted.against_x(counts == 0)
    # Padding may be NaN: without a gradient of its own, or statistics, it must not touch the sums.
    x = np.where(left_out & (nothing | (dy == 0)), call.x.dtype.type(0), call.x)
    in_range = counted.of_channels(_usable(given.rstd, totals))
    found = gradients.channel_dots(replace(call, x=x), dy, counted.layout, mean, in_range)
    scale = np.ones((1, counted.layout.channels)) if weight is None else weight.astype(np.float64).reshape(1, -1)
    counts = np.where(counts == 0, 1.0, counts)
    a, b = gradients.group_means(found, scale, counted.per_group, counts)
    mean, rstd, scale, a, b = (counted.against_x(part) for part in (mean, rstd, scale, a, b))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        through_statistics = counted.weights * (a + (x - mean) * rstd * b)
        dx = rstd * (scale * dy - np.where(left_out, 0.0, through_statistics))
        np.copyto(call.y, dx, casting="unsafe")
    return found
