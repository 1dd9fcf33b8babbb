"""From arrays to results: statistics -> merge -> fold -> apply, and what stands next to them in the same pass.

A norm with lines of its own is one fused pass over each line while it is in cache. Where lines are pooled (BatchNorm on
NCHW), or so few and long that threads must share one, the same steps are taken one after the other, with the same bits.
"""

from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import tuning
from fastnorm.activations import Activation
from fastnorm.backends import registry
from fastnorm.backends.reference import Reference
from fastnorm.calls import Call, as_compute, as_rows, parameter, viewed
from fastnorm.dispatch import choose
from fastnorm.dtypes import FLOAT32, is_narrow
from fastnorm.lines import Lines
from fastnorm.memory import empty
from fastnorm.plan import ChannelLayout, Plan
from fastnorm.recipe import Affine, Fusion, Measure, Moments, Rule, fold, leaves_range, reciprocal_root, seen_from
from fastnorm.settings import current

Array = npt.NDArray[Any]

# Lines side by side are worked on, and shared by threads, in tiles of so many bytes; see columns/statistics.pxi.
TILE_BYTES = 512

# What a norm returns: an array, or with `return_stats` (array, Stats). Any, so that nobody must narrow it.
ArrayOrStats = Any


class Stats(NamedTuple):
    """What a norm has computed on its way; see ``return_stats``.

    Attributes
    ----------
    mean : ndarray
        What was subtracted; float64, shaped to broadcast against x.
    rstd : ndarray
        What that was multiplied by, ``1 / sqrt(var + eps)``, before weight and bias; likewise.

    Examples
    --------
    >>> import fastnorm
    >>> y, stats = fastnorm.layer_norm([[1.0, 2.0, 3.0]], eps=0.0, return_stats=True)
    >>> stats.mean, stats.rstd.round(4)
    (array([[2.]]), array([[1.2247]]))
    """

    mean: Array
    rstd: Array


def statistics(x: Array, plan: Plan, measure: Measure, backend: Reference) -> Moments:
    """Return the moments of x over the reduced axes of a plan, flat."""
    stats = backend.moments(viewed(as_rows(x, backend), plan.view, plan.order), measure)
    if plan.pool is not None:
        parts = Moments(*(np.ascontiguousarray(part).reshape(plan.pool) for part in stats))
        stats = backend.merge(parts, plan.view[1], plan.view[1])
    return Moments(*(part.reshape(-1) for part in stats))


def fuse(
    call: Call, residual: Array | None, activation: Activation | None, keep: bool, quantize: Plan | None = None
) -> tuple[Call, Fusion | None]:
    """Return the call whose x will be x + residual, and what its kernels are to do besides.

    The sum goes where the result will be, or with `keep` to an array of its own. `quantize` is the plan whose lines are
    to be int8.
    """
    quantized = None
    if quantize is not None:
        scales = np.full(quantize.stats_shape, np.nan, np.float32)  # which lines without elements keep
        quantized = empty(call.x.shape, np.dtype(np.int8)), scales
    if residual is None:
        if activation is None and quantized is None:
            return call, None
        return call, Fusion(None, None, activation, quantized)
    total = empty(call.x.shape, call.x.dtype, second=True) if keep else call.y
    fused = Call(total, call.y, call.result, call.out, call.backend)
    addend = as_compute(residual, call.x.dtype, call.backend)
    return fused, Fusion(np.ascontiguousarray(call.x), np.ascontiguousarray(addend), activation, quantized)


def results(call: Call, stats: Stats | None, with_total: bool = False, fusion: Fusion | None = None) -> Any:
    """Return the result, then the statistics and the sum with a residual, if wanted: a tuple if there are several."""
    found: tuple[Any, ...] = (call.finish(),) if fusion is None or fusion.quantized is None else fusion.quantized
    if stats is not None:
        found += (stats,)
    if with_total:
        found += (call.total(),)
    return found if len(found) > 1 else found[0]


def apply(
    call: Call, view: tuple[int, int, int], order: tuple[int, ...] | None, coefficients: Affine, rstd: Array,
    weight: Array | None = None, bias: Array | None = None, fusion: Fusion | None = None,
) -> None:  # fmt: skip
    """Write y = (x - centre) * scale + shift in a view in which each line has one set of coefficients.

    `rstd` is that of each line; where it would leave the range of float32 on the way, float64 does the line.
    """
    backend, columns = call.backend, view[2]
    flat = Affine(*(part.reshape(-1, columns) for part in coefficients))
    wide = leaves_range(rstd.reshape(-1, columns), flat.scale, call.compute)
    if wide is not None and wide.all():
        backend, wide = registry.load("reference"), None
    x, target = viewed(call.x, view, order), call.y if order is None else call.y.transpose(order)
    y = target.reshape(view)
    contiguous = order is None and x.flags.c_contiguous and y.flags.c_contiguous
    if fusion is not None and weight is None and contiguous and wide is None:
        backend.affine_fused(fusion, x, y, flat)
        return
    if fusion is not None:
        backend.before(fusion, call.x)
        x = viewed(call.x, view, order)
    if wide is not None:
        _apply_lines(backend, x, y, flat, wide, weight, bias)
    else:
        backend.affine(x, y, flat, weight, bias)
    if not np.may_share_memory(y, call.y):  # the transposition could not be seen as a view
        np.copyto(target, y.reshape(target.shape))
    if fusion is not None:
        backend.after(fusion, call.y)


def _apply_lines(
    backend: Reference, x: Array, y: Array, coefficients: Affine, wide: Array, weight: Array | None, bias: Array | None
) -> None:
    """Apply with `wide` lines, (lines, inner), in float64; the others have the bits that they have without these."""
    lines = Lines.marked(wide, len(x))
    source = lines.read(x)  # first: y may be x
    exact = np.empty(source.shape, y.dtype)
    backend.affine(x, y, coefficients, weight, bias)
    of_lines = Affine(*(lines.coefficients(part) for part in coefficients))
    registry.load("reference").affine(source, exact, of_lines, weight, bias)
    lines.write(y, exact)


def _enough_lines(view: tuple[int, int, int], call: Call) -> bool:
    """Whether whole lines keep all threads busy, and the backend takes lines so long."""
    if is_narrow(call.x.dtype) and not call.backend.takes_narrow_lines(view, 1):
        return False
    return _enough_for(view, call.compute.itemsize, call.backend)


def _enough_for(view: tuple[int, int, int], itemsize: int, backend: Reference) -> bool:
    threads = tuning.threads_for(prod(view), backend.threads(current().num_threads))
    lines = view[0] if view[2] == 1 else view[0] * -(-view[2] * itemsize // TILE_BYTES)
    return threads == 1 or lines >= threads * tuning.LINES_PER_THREAD


def fuses_narrow(
    view: tuple[int, int, int], x: Array, residual: Array | None, backend: str | None, function: str
) -> bool:
    """Whether lines of 16-bit floats are normalised, with what stands next to that, without a wider array."""
    if not is_narrow(x.dtype) or (residual is not None and residual.dtype != x.dtype):
        return False
    chosen = choose(x.size, backend, function)
    whole = view[2] == 1 and chosen.takes_narrow_lines(view, 2)
    return whole and _enough_for(view, FLOAT32.itemsize, chosen)


def _normalize_lines(
    call: Call, view: tuple[int, int, int], rule: Rule, weight: Array | None, bias: Array | None, length: int,
    segments: int | None, want_stats: bool, fusion: Fusion | None,
) -> Moments | None:  # fmt: skip
    """Normalise whole lines in one pass, with weights (length,) of their positions or, if a number, of `segments`."""
    affine = weight is not None or bias is not None
    w = parameter(weight, 1.0, length if affine else 1, call.compute)
    b = parameter(bias, 0.0, length if affine else 1, call.compute)
    x, y = viewed(call.x, view), call.y.reshape(view)
    per_position, runs = (segments is None, segments or 1) if affine else (False, 1)  # without weights all is one run
    if fusion is None:
        return call.backend.normalize(x, y, w, b, per_position, runs, rule, want_stats)
    return call.backend.normalize_fused(fusion, x, y, w, b, per_position, runs, rule, want_stats)


def normalize_positions(
    call: Call, plan: Plan, rule: Rule, weight: Array | None, bias: Array | None, want_stats: bool,
    fusion: Fusion | None = None,
) -> Moments | None:  # fmt: skip
    """Normalise lines with a weight and a bias for each position of a line; return the moments if wanted."""
    view, dtype = plan.view, call.compute
    if fusion is not None and (view[2] > 1 or not _enough_lines(view, call)):
        call.backend.before(fusion, call.x)
        stats = normalize_positions(call, plan, rule, weight, bias, want_stats)
        call.backend.after(fusion, call.y)
        return stats
    if _enough_lines(view, call):
        return _normalize_lines(call, view, rule, weight, bias, view[1], None, want_stats, fusion)
    stats = call.backend.moments(viewed(call.x, view), rule.measure)
    rstd = reciprocal_root(stats.m2, view[1], rule)
    coefficients = fold(stats.hi, stats.lo, rstd)
    if weight is None and bias is None:
        apply(call, view, None, coefficients, rstd)
    else:
        w, b = parameter(weight, 1.0, view[1], dtype), parameter(bias, 0.0, view[1], dtype)
        apply(call, view, None, coefficients, rstd, w, b)
    return stats if want_stats else None


def _lines_of(part: Array, plan: Plan) -> Array:
    """One number for each line of the plan's view, from flat statistics; where they repeat, one period of them."""
    if plan.pool is None or plan.pool[0] == 1:
        return part
    before, pooled, after = plan.pool
    return np.repeat(part.reshape(before, 1, after), pooled, axis=1).reshape(-1)


def apply_statistics(call: Call, plan: Plan, coefficients: Affine) -> None:
    """Write y from coefficients that belong to the statistics of a plan, flat."""
    lines = Affine(*(_lines_of(np.ascontiguousarray(part).reshape(-1), plan) for part in coefficients))
    apply(call, plan.view, plan.order, lines, lines.scale)


def apply_scale(call: Call, plan: Plan, scale: Array) -> None:
    """Write y = x * scale, one scale for each of the statistics of a plan."""
    zero = np.zeros_like(scale)
    apply_statistics(call, plan, Affine(zero, zero, scale, -zero))  # so that zeros keep their sign


def normalize_axes(call: Call, plan: Plan, rule: Rule, want_stats: bool = False) -> Moments | None:
    """Normalise over the axes of any plan, without weights; return the moments, flat, if wanted."""
    if plan.pool is None and plan.order is None:
        stats = normalize_positions(call, plan, rule, None, None, want_stats)
        return None if stats is None else Moments(*(part.reshape(-1) for part in stats))
    stats = statistics(call.x, plan, rule.measure, call.backend)
    rstd = reciprocal_root(stats.m2, plan.count, rule)
    apply_statistics(call, plan, fold(stats.hi, stats.lo, rstd))
    return stats if want_stats else None


def extrema(x: Array, plan: Plan, backend: Reference) -> tuple[Array, Array]:
    """Return the least and the largest element over the reduced axes of a plan, flat."""
    low, high = backend.extrema(viewed(as_rows(x, backend), plan.view, plan.order))
    if plan.pool is not None:
        low, high = low.reshape(plan.pool).min(axis=1), high.reshape(plan.pool).max(axis=1)
    return low.reshape(-1), high.reshape(-1)


def normalize_channels(
    call: Call, layout: ChannelLayout, plan: Plan, rule: Rule, weight: Array | None, bias: Array | None,
    per_group: int, want_stats: bool, fusion: Fusion | None = None,
) -> Moments | None:  # fmt: skip
    """Normalise with a weight and a bias a channel; each statistic belongs to `per_group` adjacent channels.

    Statistics come one for all of the batch, (1, groups), or one for each item, (N, groups); flat, if wanted.
    """
    dtype, channels = call.compute, layout.channels
    # Rounded for either way, since the number of threads has a say in which it is.
    weight, bias = (None if part is None else parameter(part, 0.0, channels, dtype) for part in (weight, bias))
    fused = plan.pool is None and layout.order is None and (per_group == 1 or not layout.last)
    fused = fused and _enough_lines(plan.view, call)
    if fusion is not None and not (fused and plan.view[2] == 1):
        call.backend.before(fusion, call.x)
        stats = normalize_channels(call, layout, plan, rule, weight, bias, per_group, want_stats)
        call.backend.after(fusion, call.y)
        return stats
    if layout.spatial == 1 and per_group > 1:
        return _normalize_group_rows(call, layout, plan, rule, weight, bias, want_stats)
    if fused:
        found = _normalize_lines(call, plan.view, rule, weight, bias, channels, per_group, want_stats, fusion)
        return None if found is None else Moments(*(part.reshape(-1) for part in found))
    ordered = call.x if layout.order is None else call.x.transpose(layout.order)
    stats = statistics(ordered, plan, rule.measure, call.backend)
    rstd = reciprocal_root(stats.m2, plan.count, rule)
    apply_channels(call, layout, stats, rstd, weight, bias, per_group)
    return stats if want_stats else None


def _normalize_group_rows(
    call: Call, layout: ChannelLayout, plan: Plan, rule: Rule, weight: Array | None, bias: Array | None,
    want_stats: bool,
) -> Moments | None:  # fmt: skip
    """Normalise groups of single values, which are rows; then weight and bias, which go with the channel."""
    found = normalize_positions(call, plan, rule, None, None, want_stats)
    if weight is not None or bias is not None:
        zero, one = np.zeros((1, layout.channels)), np.ones((1, layout.channels))
        made = Call(call.y, call.y, call.result, call.out, call.backend)
        apply(made, layout.apply_view(1), None, fold(zero, zero, one, weight, bias), one)
    return None if found is None else Moments(*(part.reshape(-1) for part in found))


def apply_channels(
    call: Call, layout: ChannelLayout, stats: Moments, rstd: Array, weight: Array | None, bias: Array | None,
    per_group: int, fusion: Fusion | None = None, *, given: bool = False,
) -> None:  # fmt: skip
    """Write y from statistics (1 or N) x groups, a weight and a bias a channel; `given` if not those of x itself."""
    shape = -1, layout.channels
    hi, lo, scale = (
        (part if per_group == 1 else np.repeat(part, per_group)).reshape(shape) for part in (stats.hi, stats.lo, rstd)
    )
    coefficients = fold(hi, lo, scale, weight, bias)
    seen = seen_from(hi, scale) if given else scale
    apply(call, layout.apply_view(len(hi)), layout.order, coefficients, seen, fusion=fusion)


def stats_of(moments: Moments | None, count: int, rule: Rule, shape: tuple[int, ...], repeats: int = 1) -> Stats:
    """Return mean and rstd in the shape that broadcasts against x; each number `repeats` times (a group's channels).

    Without moments, those of lines without elements: NaN.
    """
    if moments is None:
        return Stats(np.full(shape, np.nan), np.full(shape, np.nan))
    rstd = reciprocal_root(moments.m2, count, rule)
    with np.errstate(all="ignore"):
        mean = moments.hi + moments.lo
    if repeats > 1:
        mean, rstd = np.repeat(mean, repeats), np.repeat(rstd, repeats)
    return Stats(mean.reshape(shape), rstd.reshape(shape))
