"""Backward passes on a device: `fastnorm.gradients` with the device's kernels."""

from typing import Any

from fastnorm import arguments, device
from fastnorm.backends.cuda import gradients, primitives
from fastnorm.backends.cuda.buffers import Buffer, Shape
from fastnorm.backends.cuda.forms import Owner
from fastnorm.backends.cuda.gradients import Gradient, Sums
from fastnorm.backends.cuda.merging import Pool
from fastnorm.backends.cuda.primitives import Parameters, Statistics, View, Whose
from fastnorm.device import Device
from fastnorm.device_norms.calls import Call, begin, check_same_dtype, parameter, refuse, statistic
from fastnorm.device_norms.channels import Channels, channel_statistics, channels_of
from fastnorm.device_norms.lines import line_statistics
from fastnorm.gradients import Gradients
from fastnorm.plan import kept_shape, plan_reduction
from fastnorm.recipe import Measure, Rule


def _begin(
    where: Device, dy: Any, x: Buffer, out: Any, dtype: Any, function: str, others: tuple[Buffer | None, ...]
) -> tuple[Call, Buffer]:
    """Check dy, `out` and `dtype`; the call's y is where dx goes, which may be where dy is."""
    upstream = where.take(dy, function, "dy")
    if upstream.shape != x.shape:
        raise ValueError(f"{function}: dy must have the shape of x, {x.shape}, got {upstream.shape}")
    call = begin(where, x, out, dtype, function, others)
    # Rows are read several times by some kernels: dx is written beside x and dy, then copied.
    if call.y.overlaps(x) or call.y.overlaps(upstream):
        call = Call(where, x, where.place.empty(x.shape, call.y.storage), out)
    return call, upstream


def given_statistics(
    where: Device, mean: Any, rstd: Any, shape: Shape, function: str, needs_mean: bool = True
) -> Statistics | None:
    """Return the statistics of the forward pass, of `shape`; None if they are to be computed again."""
    if rstd is None or (mean is None and needs_mean):
        if mean is not None or rstd is not None:
            raise ValueError(f"{function}: mean and rstd must be given together, or neither")
        return None
    scale = statistic(where, rstd, shape, function, "rstd")
    centre = statistic(where, mean, shape, function, "mean") if needs_mean else scale
    check_same_dtype(function, mean=centre, rstd=scale)
    return Statistics(centre, scale)


def _sums_like(where: Device, shape: Shape, weight: Buffer | None, call: Call) -> tuple[Buffer, Buffer]:
    """Return memory for dweight and dbias, in the dtype of weight, or of dx without it."""
    storage = call.y.storage if weight is None else weight.storage
    return where.place.empty(shape, storage), where.place.empty(shape, storage)


def lines(
    function: str, dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, axis: Any, rule: Rule, out: Any, dtype: Any,
    backend: str | None, parameters: bool,
) -> Gradients:  # fmt: skip
    """Backward of norms whose lines are one axis, or the trailing ones: `norms.lines.lines_backward` on a device."""
    where = device.begin(x, backend, function)
    source = where.take(x, function, "x")
    axes = arguments.trailing_axes(axis, source.ndim, function)
    shape = tuple(source.shape[a] for a in axes)
    scale = parameter(where, weight, shape, function, "weight")
    plan = plan_reduction(source.shape, axes)
    found = given_statistics(where, mean, rstd, plan.stats_shape, function, rule.measure == Measure.VARIANCE)
    others = (scale, *(found[:2] if found else ()))
    call, upstream = _begin(where, dy, source, out, dtype, function, others)
    sums = _sums_like(where, shape, scale, call) if parameters else None
    if source.size:
        gradient = Gradient(source, upstream, call.y, scale, "position")
        outer, _, inner = plan.view
        if inner > 1 or not gradients.normalize_grad(where.place, gradient, outer, rule, found, sums):
            _compose_lines(where, gradient, plan.view, rule, found, sums)
    for part in sums or ():
        if not source.size:
            primitives.fill_as_empty(where.place, part, defined=True)
    dweight, dbias = (part.array for part in sums) if sums else (None, None)
    return Gradients(call.finish(), dweight, dbias)


def _compose_lines(
    where: Device, gradient: Gradient, view: View, rule: Rule, found: Statistics | None,
    results: tuple[Buffer, Buffer] | None,
) -> None:  # fmt: skip
    """Rows too long for registers, and columns: sums of chunks, then dx, then the sums for the parameters."""
    outer, length, inner = view
    statistics = found or line_statistics(where, gradient.x, view, rule)
    whose = Whose(outer, outer)
    parts = gradients.dots(where.place, gradient, view, rule, statistics, whose)
    k = parts.chunks
    a, b = where.place.numbers(outer * inner), where.place.numbers(outer * inner)
    of_lines = Pool(outer, inner, 1, 1, k, k * inner, 1, 0, 0, inner)
    primitives.add_up(where.place, parts.sums, None, of_lines, a, None, 1.0 / length)
    primitives.add_up(where.place, parts.products, None, of_lines, b, None, 1.0 / rule.divisor(length))
    gradients.affine_grad(
        where.place, gradient, view, rule, statistics, whose, a, b, results if inner == 1 else None
    )  # fmt: skip
    if results is None or inner == 1:
        return
    # Columns at one position are a row.
    plain, rows = Gradient(gradient.x, gradient.dy, gradient.dx), (outer * length, inner, 1)
    parts = gradients.dots(where.place, plain, rows, rule, statistics, Whose(length, 1), by_position=True)
    pool = Pool(1, length, outer, 1, parts.chunks, 0, parts.chunks, length * parts.chunks, 0, 1)
    primitives.add_up(where.place, parts.products, parts.sums, pool, *results)


def _channel_sums(where: Device, layout: Channels, items: int, parts: Sums, results: tuple[Buffer, Buffer]) -> None:
    """Add up dweight and dbias of each channel."""
    k, channels = parts.chunks, layout.channels
    if layout.last:
        pool = Pool(1, channels, items, 1, k, 0, 1, k * channels, 0, channels)
    else:
        pool = Pool(1, channels, layout.batch * layout.before, 1, k, 0, k, channels * k, 0, 1)
    primitives.add_up(where.place, parts.products, parts.sums, pool, *results)


def _of_channels(
    call: Call, dy: Buffer, layout: Channels, items: int, per_group: int, rule: Rule, weight: Buffer | None,
    found: Statistics, results: tuple[Buffer, Buffer],
) -> None:  # fmt: skip
    """Write dx where statistics, (items, channels), are those of x itself, and the sums for the parameters."""
    place = call.where.place
    view, whose = layout.view(items), layout.whose(items)
    plain = Gradient(call.x, dy, call.y)
    parts = gradients.dots(place, plain, view, rule, found, whose)
    a, b = place.numbers(items * layout.channels), place.numbers(items * layout.channels)
    pool = layout.pool(items, per_group, parts.chunks)
    factor = 1.0 / layout.count(items, per_group)
    primitives.add_up(place, parts.sums, parts.products, pool, a, b, factor, weight, per_group)
    owner: Owner = "column" if layout.last else "run"
    gradients.affine_grad(place, Gradient(call.x, dy, call.y, weight, owner), view, rule, found, whose, a, b)
    _channel_sums(call.where, layout, items, parts, results)


def groups(
    function: str, dy: Any, x: Any, num_groups: int | None, weight: Any, mean: Any, rstd: Any, channel_axis: int,
    eps: float, out: Any, dtype: Any, backend: str | None, where: Any, weights: Any,
) -> Gradients:  # fmt: skip
    """Backward of group and instance normalization."""
    on = device.begin(x, backend, function)
    refuse(function, where=where, weights=weights)
    source = on.take(x, function, "x")
    axis = arguments.channel_index(source, channel_axis, function)
    channels = source.shape[axis]
    per_group = arguments.per_group(channels, num_groups, function)
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    scale = parameter(on, weight, (channels,), function, "weight")
    stats_shape = kept_shape(source.shape, (0, axis))
    found = given_statistics(on, mean, rstd, stats_shape, function)
    call, upstream = _begin(on, dy, source, out, dtype, function, (scale, *(found[:2] if found else ())))
    results = _sums_like(on, (channels,), scale, call)
    layout = channels_of(source.shape, axis)
    if source.size:
        parts = None
        if not layout.last and layout.before == 1:
            gradient = Gradient(source, upstream, call.y, scale, "run")
            rows = layout.batch * channels // per_group
            parts = gradients.normalize_grad_runs(on.place, gradient, rows, per_group, rule, found)
        if parts is None:
            statistics = found or channel_statistics(on, source, layout, layout.batch, per_group, rule)
            _of_channels(call, upstream, layout, layout.batch, per_group, rule, scale, statistics, results)
        else:
            _channel_sums(on, layout, layout.batch, parts, results)
    return _finished(call, results)


def _finished(call: Call, results: tuple[Buffer, Buffer]) -> Gradients:
    if not call.x.size:
        for part in results:
            primitives.fill_as_empty(call.where.place, part, defined=True)
    return Gradients(call.finish(), results[0].array, results[1].array)


def batch(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, running_mean: Any, running_var: Any, training: bool,
    unbiased: bool, eps: float, channel_axis: int, out: Any, dtype: Any, backend: str | None, where: Any, weights: Any,
) -> Gradients:  # fmt: skip
    """Backward of batch normalization, in training and in inference."""
    function = "batch_norm_backward"
    on = device.begin(x, backend, function)
    refuse(function, where=where, weights=weights)
    source = on.take(x, function, "x")
    axis = arguments.channel_index(source, channel_axis, function)
    channels = source.shape[axis]
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    scale = parameter(on, weight, (channels,), function, "weight")
    stats_shape = kept_shape(source.shape, (axis,))
    found = given_statistics(on, mean, rstd, stats_shape, function)
    layout = channels_of(source.shape, axis)
    if training and unbiased:
        arguments.check_count(layout.count(1, 1), function)
    elif not training and found is None:
        if running_mean is None or running_var is None:
            raise ValueError(
                f"{function}: mean and rstd, or running_mean and running_var, are needed unless training=True"
            )
        centre = statistic(on, running_mean, (channels,), function, "running_mean")
        var = statistic(on, running_var, (channels,), function, "running_var")
        check_same_dtype(function, running_mean=centre, running_var=var)
        found = primitives.given_statistics(on.place, centre, var, rule.eps)
    call, upstream = _begin(on, dy, source, out, dtype, function, (scale, *(found[:2] if found else ())))
    results = _sums_like(on, (channels,), scale, call)
    if source.size:
        if training or found is None:
            statistics = found or channel_statistics(on, source, layout, 1, 1, rule)
            _of_channels(call, upstream, layout, 1, 1, rule, scale, statistics, results)
        else:
            _of_given(call, upstream, layout, rule, scale, found, results)
    return _finished(call, results)


def _of_given(
    call: Call, dy: Buffer, layout: Channels, rule: Rule, weight: Buffer | None, found: Statistics,
    results: tuple[Buffer, Buffer],
) -> None:  # fmt: skip
    """Write dx where the statistics did not come from x: dy, scaled."""
    place, view, whose = call.where.place, layout.view(1), layout.whose(1)
    owned = Parameters(weight, None, "column" if layout.last else "run")
    scaled = Rule(measure=Measure.SQUARES, eps=rule.eps)
    primitives.affine(place, dy, call.y, view, found, whose, owned, scaled)
    parts = gradients.dots(place, Gradient(call.x, dy, call.y), view, rule, found, whose)
    _channel_sums(call.where, layout, 1, parts, results)
