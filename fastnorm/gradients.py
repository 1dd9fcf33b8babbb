"""Backward passes: from the gradient of a norm's result to those of x, weight and bias.

With xhat = (x - mean) * rstd and y = xhat * weight + bias, and g = weight * dy, every norm has

    dbias = sum of dy,    dweight = sum of dy * xhat    over all that a parameter touches,
    dx = rstd * (g - A - xhat * B),    A = mean of g,    B = mean of g * xhat    over all that a statistic is made of;

A is 0 where no mean was subtracted, A and B are 0 where the statistics were given. So x and dy are read for two sums a
line, `dots`, and once more for dx, which is affine in both: a line that is in cache is read from memory once.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import calls, engine
from fastnorm.backends import registry
from fastnorm.backends.reference import Reference
from fastnorm.calls import Call
from fastnorm.dtypes import FLOAT32
from fastnorm.lines import Lines
from fastnorm.memory import empty
from fastnorm.plan import ChannelLayout, Plan
from fastnorm.ranges import LARGEST_SLOPED, SMALLEST_SLOPED
from fastnorm.recipe import Affine, Measure, Moments, Rule, added_in_order, line_terms, reciprocal_root

Array = npt.NDArray[Any]

# Weighted lines side by side, of so few elements in all, are copied to rows: the other way has more steps.
TRANSPOSED = 2**16

# NaN and infinities of x and dy come through without a warning.
quiet = np.errstate(all="ignore")


class Gradients(NamedTuple):
    """What a backward pass returns.

    Attributes
    ----------
    dx : ndarray
        The gradient of x, in its shape.
    dweight, dbias : ndarray or None
        Those of weight and bias, in theirs; None for what a norm does not have.

    Examples
    --------
    >>> import fastnorm
    >>> gradients = fastnorm.layer_norm_backward([[1.0, 0.0, 0.0]], [[1.0, 2.0, 3.0]])
    >>> gradients.dx.round(4), gradients.dbias
    (array([[ 0.2041, -0.4082,  0.2041]]), array([1., 0., 0.]))
    """

    dx: Array
    dweight: Array | None
    dbias: Array | None


class Given(NamedTuple):
    """The statistics of the forward pass, float64, flat."""

    mean: Array
    rstd: Array


def begin(
    dy: npt.ArrayLike, x: Array, out: Array | None, dtype: npt.DTypeLike | None, backend: str | None, function: str,
    others: tuple[Array | None, ...] = (), narrow: bool = False,
) -> tuple[Call, Array]:  # fmt: skip
    """Check `dy`, `out`, `dtype` and `backend`; return the call, whose y is where dx goes, and dy to compute with.

    `narrow` as in `calls.begin`.
    """
    gradient = calls.take(dy, function, "dy")
    if gradient.shape != x.shape:
        raise ValueError(f"{function}: dy must have the shape of x, {x.shape}, got {gradient.shape}")
    narrow = narrow and gradient.dtype == x.dtype
    result, compute, chosen = calls.settle(x, out, dtype, backend, function, narrow)
    source, upstream = (calls.as_rows(calls.as_compute(array, compute, chosen), chosen) for array in (x, gradient))
    usable = out is not None and calls.usable_as_output(out, None, compute, (source, upstream, *others))
    target = np.asarray(out) if usable and out is not None else empty(x.shape, compute)
    return Call(source, target, result, out, chosen), upstream


def given_statistics(
    mean: npt.ArrayLike | None, rstd: npt.ArrayLike | None, shape: tuple[int, ...], function: str,
    needs_mean: bool = True,
) -> Given | None:  # fmt: skip
    """Return the statistics of the forward pass, of `shape`; None if they are to be computed again."""
    if rstd is None or (mean is None and needs_mean):
        if mean is not None or rstd is not None:
            raise ValueError(f"{function}: mean and rstd must be given together, or neither")
        return None
    rstd = _statistic(rstd, shape, function, "rstd")
    mean = np.zeros_like(rstd) if mean is None or not needs_mean else _statistic(mean, shape, function, "mean")
    return Given(mean, rstd)


def _statistic(value: npt.ArrayLike, shape: tuple[int, ...], function: str, name: str) -> Array:
    array = calls.take(value, function, name)
    if array.shape != shape:
        raise ValueError(f"{function}: {name} must have shape {shape}, got {array.shape}")
    return array.astype(np.float64).reshape(-1)


@quiet
def of_lines(
    call: Call, dy: Array, plan: Plan, rule: Rule, weight: Array | None, given: Given | None, parameters: bool
) -> tuple[Array, Array] | None:
    """Write dx of lines; with `parameters`, one a position, return dweight and dbias, float64, (reduce,)."""
    outer, reduce, inner = plan.view
    if inner > 1 and (not parameters or call.x.size > TRANSPOSED):
        return _compose_lines(call, dy, plan, rule, weight, given, parameters)
    w = calls.parameter(weight, 1.0, reduce if parameters else 1, call.compute)
    x, upstream, dx = (calls.viewed(array, plan.view) for array in (call.x, dy, call.y))
    if inner == 1:
        return call.backend.normalize_grad(x, upstream, dx, w, parameters, 1, rule, given, parameters)
    x, upstream = (
        calls.as_rows(array.transpose(0, 2, 1), call.backend).reshape(-1, reduce, 1) for array in (x, upstream)
    )
    rows = empty(x.shape, x.dtype, second=True)
    sums = call.backend.normalize_grad(x, upstream, rows, w, parameters, 1, rule, given, parameters)
    call.backend.copy(rows.reshape(outer, inner, reduce).transpose(0, 2, 1), dx)
    return sums


def _compose_lines(
    call: Call, dy: Array, plan: Plan, rule: Rule, weight: Array | None, given: Given | None, parameters: bool
) -> tuple[Array, Array] | None:
    """The same for lines side by side in memory: the elements of a position, which share its weight, are rows."""
    outer, reduce, inner = plan.view
    x, upstream = calls.viewed(call.x, plan.view), calls.viewed(dy, plan.view)
    mean, rstd = (part.reshape(outer, inner) for part in given or _recomputed(call.x, plan, rule, call.backend))
    found = None
    if parameters:
        xhat = empty(call.x.shape, call.compute, second=True)
        zero = np.zeros_like(mean)
        made = Call(call.x, xhat, call.result, None, call.backend)
        engine.apply(made, plan.view, None, Affine(mean, zero, rstd, zero), rstd)
        rows = outer * reduce, inner, 1
        sums, products = call.backend.dots(xhat.reshape(rows), calls.viewed(dy, rows), np.zeros((1, 1)))
        found = products.reshape(outer, reduce).sum(axis=0), sums.reshape(outer, reduce).sum(axis=0)
        if weight is not None:
            each = calls.as_compute(weight, call.compute).reshape(reduce, 1)
            upstream = np.multiply(upstream, each, out=xhat.reshape(plan.view))
    sums, dots = _dots(call.backend, x, upstream, mean, _outside(call, rstd, exponent=1))
    a, b = line_terms(rule, sums, 0.0 + dots * rstd, reduce, rstd)  # no -0, as on the fast path
    coefficients = mean, rstd, -rstd * rstd * b, -rstd * a
    outside = _outside(call, *coefficients[1:3], exponent=2)
    _affine_grad(call.backend, x, upstream, call.y.reshape(plan.view), coefficients, outside)
    return found


def _recomputed(x: Array, plan: Plan, rule: Rule, backend: Reference) -> Given:
    """Compute the statistics of the forward pass again, flat."""
    stats = engine.statistics(x, plan, rule.measure, backend)
    return Given(stats.hi + stats.lo, reciprocal_root(stats.m2, plan.count, rule))


def _outside(call: Call, *coefficients: Array, exponent: int) -> Array | None:
    """Which lines have coefficients that leave the range of float32 on the way; None if none has."""
    if call.compute != FLOAT32:
        return None
    low, high = SMALLEST_SLOPED**exponent, LARGEST_SLOPED**exponent
    outside = np.zeros(coefficients[0].shape, bool)
    for size in map(np.abs, coefficients):
        # What is 0 or infinite makes the same of any number in float32.
        outside |= ((size < low) & (size > 0)) | ((size > high) & (size < np.inf))
    return outside if outside.any() else None


def _dots(backend: Reference, x: Array, dy: Array, mean: Array, outside: Array | None) -> tuple[Array, Array]:
    """`dots` of a backend; lines marked by `outside`, (lines, inner), are added up in float64, the others as ever."""
    found = backend.dots(x, dy, mean)
    if outside is not None:
        lines = Lines.marked(outside, len(x))
        exact = registry.load("reference").dots(lines.read(x), lines.read(dy), lines.coefficients(mean))
        for part, of_lines in zip(found, exact, strict=True):
            lines.write(part[:, np.newaxis], of_lines[:, np.newaxis])
    return found


def _affine_grad(
    backend: Reference, x: Array, dy: Array, dx: Array, coefficients: tuple[Array, ...], outside: Array | None
) -> None:
    """`affine_grad` of a backend; lines marked by `outside`, (lines, inner), are computed in float64."""
    if outside is not None and outside.all():
        backend, outside = registry.load("reference"), None
    backend.affine_grad(x, dy, dx, *coefficients)
    if outside is not None:
        lines = Lines.marked(outside, len(x))
        source = lines.read(x)
        exact = np.empty(source.shape, dx.dtype)
        of_lines = (lines.coefficients(part) for part in coefficients)
        registry.load("reference").affine_grad(source, lines.read(dy), exact, *of_lines)
        lines.write(dx, exact)


class ChannelSums(NamedTuple):
    """Sums over the positions of a channel, of dy and of dy * xhat, float64, (items, C): of each item, or of all."""

    sums: Array
    products: Array


@quiet
def channel_dots(call: Call, dy: Array, layout: ChannelLayout, mean: Array, rstd: Array) -> ChannelSums:
    """Return the sums for statistics (items, C), where items is 1 or N."""
    view = layout.apply_view(len(mean))
    x, upstream = calls.viewed(call.x, view, layout.order), calls.viewed(dy, view, layout.order)
    outside = _outside(call, rstd.reshape(-1, view[2]), exponent=1)
    sums, dots = _dots(call.backend, x, upstream, mean.reshape(-1, view[2]), outside)
    shape = -1, layout.channels
    sums, dots = sums.reshape(shape), dots.reshape(shape)
    if len(sums) > len(mean):
        sums, dots = sums.sum(axis=0, keepdims=True), dots.sum(axis=0, keepdims=True)
    return ChannelSums(sums, dots * rstd)


def apply_channels(
    call: Call, dy: Array, layout: ChannelLayout, mean: Array, scale: Array, slope: Array, shift: Array
) -> None:
    """Write dx = scale * dy + slope * (x - mean) + shift, coefficients (items, C)."""
    view = layout.apply_view(len(mean))
    x, upstream = calls.viewed(call.x, view, layout.order), calls.viewed(dy, view, layout.order)
    target = call.y if layout.order is None else call.y.transpose(layout.order)
    dx = target.reshape(view)
    coefficients = tuple(np.ascontiguousarray(part).reshape(-1, view[2]) for part in (mean, scale, slope, shift))
    outside = _outside(call, *coefficients[1:3], exponent=2)
    _affine_grad(call.backend, x, upstream, dx, coefficients, outside)
    if not np.may_share_memory(dx, call.y):  # the transposition could not be seen as a view
        np.copyto(target, dx.reshape(target.shape))


def group_means(found: ChannelSums, weight: Array, per_group: int, count: int | Array) -> tuple[Array, Array]:
    """Return A and B, (items, C), from the sums of channels and what a statistic is made of: `count` elements."""
    pooled = (part.reshape(len(part), -1, per_group) for part in (found.sums * weight, found.products * weight))
    a, b = (np.repeat(added_in_order(part, 2), per_group, axis=1) / count for part in pooled)
    return a, b


@quiet
def of_channels(
    call: Call, dy: Array, layout: ChannelLayout, plan: Plan, rule: Rule, weight: Array | None, given: Given | None,
    per_group: int,
) -> ChannelSums:  # fmt: skip
    """Write dx of channels whose statistics, (1 or N) x groups, are those of x itself; return the sums."""
    channels = layout.channels
    w = np.ones(channels) if weight is None else weight.astype(np.float64)
    if plan.pool is None and layout.order is None and not layout.last:
        x, upstream, dx = (calls.viewed(array, plan.view) for array in (call.x, dy, call.y))
        scale = calls.parameter(weight, 1.0, channels if weight is not None else 1, call.compute)
        found = call.backend.normalize_grad(x, upstream, dx, scale, False, per_group, rule, given, True)
        assert found is not None
        products, sums = found
        return ChannelSums(sums.reshape(-1, channels), products.reshape(-1, channels))
    if layout.spatial == 1 and per_group > 1:
        return _of_group_rows(call, dy, layout, plan, rule, weight, given)
    ordered = call.x if layout.order is None else call.x.transpose(layout.order)
    mean, rstd = given or _recomputed(ordered, plan, rule, call.backend)
    mean, rstd = (np.repeat(part, per_group).reshape(-1, channels) for part in (mean, rstd))
    found_sums = channel_dots(call, dy, layout, mean, rstd)
    a, b = group_means(found_sums, w, per_group, plan.count)
    if rule.measure != Measure.VARIANCE:
        a = np.zeros_like(a)
    apply_channels(call, dy, layout, mean, rstd * w, -rstd * rstd * b, -rstd * a)
    return found_sums


def _of_group_rows(
    call: Call, dy: Array, layout: ChannelLayout, plan: Plan, rule: Rule, weight: Array | None, given: Given | None
) -> ChannelSums:
    """The same for groups of single values, which are rows: a weight goes with the channel, and sums down the batch."""
    mean, rstd = given or _recomputed(call.x, plan, rule, call.backend)
    xhat = empty(call.x.shape, call.compute, second=True)
    coefficients = Affine(mean, np.zeros_like(mean), rstd, np.zeros_like(mean))
    engine.apply(replace(call, y=xhat), plan.view, None, coefficients, rstd)
    columns = layout.apply_view(1)
    turned, upstream = xhat.reshape(columns), calls.viewed(dy, columns)
    sums, products = call.backend.dots(turned, upstream, np.zeros((1, layout.channels)))
    if weight is not None:
        upstream = np.multiply(upstream, calls.as_compute(weight, call.compute), out=turned)
    x, g, dx = calls.viewed(call.x, plan.view), upstream.reshape(plan.view), call.y.reshape(plan.view)
    one = calls.parameter(None, 1.0, 1, call.compute)
    call.backend.normalize_grad(x, g, dx, one, False, 1, rule, Given(mean, rstd), False)
    return ChannelSums(sums, products)


@quiet
def of_given(call: Call, dy: Array, layout: ChannelLayout, weight: Array | None, given: Given) -> ChannelSums:
    """Write dx of channels whose statistics did not come from x; return the sums."""
    mean, rstd = (part.reshape(1, -1) for part in given)
    found = channel_dots(call, dy, layout, mean, rstd)
    zero = np.zeros_like(rstd)
    # dx is dy, scaled: x is not read, and its NaN and infinities do not pass.
    engine.apply_channels(replace(call, x=dy), layout, Moments(zero, zero, zero), rstd, weight, None, 1)
    return found


@quiet
def rounded(values: Array, like: Array | None, fallback: np.dtype[Any]) -> Array:
    """Return a parameter's gradient in the dtype of the parameter."""
    dtype = fallback if like is None or like.dtype.kind in "iub" else like.dtype
    return values.astype(dtype.newbyteorder("="))


@quiet
def finish(call: Call, found: ChannelSums, weight: Array | None) -> Gradients:
    """Return dx where the caller wants it, and the gradients of parameters of a channel."""
    dx = call.finish()
    dweight, dbias = (rounded(part.sum(axis=0), weight, call.result) for part in (found.products, found.sums))
    return Gradients(dx, dweight, dbias)


def nothing(call: Call, weight: Array | None, channels: int) -> Gradients:
    """Return the gradients of an empty batch: zeros for the parameters."""
    zeros = np.zeros((1, channels))
    return finish(call, ChannelSums(zeros, zeros), weight)
