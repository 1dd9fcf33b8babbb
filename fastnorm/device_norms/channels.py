"""Norms whose statistics and parameters go by channels: batch, instance and group normalization."""

from dataclasses import dataclass
from math import prod
from typing import Any

from fastnorm import arguments, device
from fastnorm.backends.cuda import primitives
from fastnorm.backends.cuda.buffers import Buffer, Shape
from fastnorm.backends.cuda.merging import Pool
from fastnorm.backends.cuda.primitives import Fused, Parameters, Running, Statistics, View, Whose
from fastnorm.device import Device
from fastnorm.device_norms.calls import (
    Addition,
    Call,
    activation_name,
    addition,
    begin,
    check_same_dtype,
    parameter,
    parameters,
    refuse,
    results,
    shaped,
    statistic,
    statistics_of,
    summed,
)
from fastnorm.engine import Stats
from fastnorm.plan import kept_shape
from fastnorm.recipe import Rule


@dataclass(frozen=True, slots=True)
class Channels:
    """An array with a batch axis and a channel axis: (batch, before, channels, after).

    With `after` = 1 channels are columns of the view (items, positions, channels), else a channel of an item has
    `before` rows of `after` elements.
    """

    batch: int
    before: int
    channels: int
    after: int

    @property
    def last(self) -> bool:
        """Whether neighbours in memory belong to different channels."""
        return self.after == 1

    def view(self, items: int) -> View:
        """Return the canonical view, for statistics of each item or, with `items` = 1, of the batch."""
        if self.last:
            return items, self.batch * self.before // items, self.channels
        return self.batch * self.before * self.channels, self.after, 1

    def whose(self, items: int) -> Whose:
        """Return which statistic, (items, channels), a row has."""
        return Whose(self.batch * self.before * self.channels // items, self.channels)

    def pool(self, items: int, per_group: int, chunks: int) -> Pool:
        """Return which parts of lines, (lines, chunks), are those of a group of channels."""
        groups = self.channels // per_group
        if self.last:
            return Pool(
                items, groups, 1, per_group, chunks, chunks * self.channels, per_group, 0, 1, self.channels,
            )  # fmt: skip
        blocks = self.batch * self.before // items
        row = self.channels * chunks
        return Pool(items, groups, blocks, per_group, chunks, blocks * row, per_group * chunks, row, chunks, 1)

    def count(self, items: int, per_group: int) -> int:
        """Return how many elements are behind a statistic."""
        return self.batch * self.before * self.after * per_group // items


def channels_of(shape: Shape, axis: int) -> Channels:
    """Return the layout of an array whose channels are `axis`."""
    return Channels(shape[0], prod(shape[1:axis]), shape[axis], prod(shape[axis + 1 :]))


def channel_statistics(
    where: Device, x: Buffer, layout: Channels, items: int, per_group: int, rule: Rule, running: Running | None = None
) -> Statistics:
    """Return statistics (items, channels), those of a group repeated for each of its channels."""
    parts = primitives.moments(where.place, x, layout.view(items), rule)
    pool = layout.pool(items, per_group, parts.chunks)
    count = layout.count(items, per_group)
    return primitives.merge(where.place, parts, pool, rule, count, per_group, running)


def groups(
    function: str, x: Any, num_groups: int | None, weight: Any, bias: Any, channel_axis: int, eps: float, out: Any,
    dtype: Any, return_stats: bool, backend: str | None, residual: Any, return_residual: bool, activation: Any,
    where: Any, weights: Any,
) -> Any:  # fmt: skip
    """Normalise groups of channels of each item; without `num_groups` each channel is one."""
    on = device.begin(x, backend, function)
    refuse(function, where=where, weights=weights)
    source = on.take(x, function, "x")
    axis = arguments.channel_index(source, channel_axis, function)
    channels = source.shape[axis]
    per_group = arguments.per_group(channels, num_groups, function)
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    scale, shift = parameters(on, weight, bias, (channels,), function)
    applied = activation_name(activation, function)
    storage = device.storage_of(dtype, source.storage, function)
    added = addition(on, residual, return_residual, source, storage, function)
    call = begin(on, source, out, dtype, function, (scale, shift, added.residual))
    layout = channels_of(source.shape, axis)
    stats_shape = kept_shape(source.shape, (0, axis))
    found = statistics_of(on, source, layout.batch * channels) if return_stats else None
    if source.size:
        rows = layout.batch * channels // per_group
        done = not layout.last and layout.before == 1 and primitives.normalize(
            on.place, source, call.y, rows, Parameters(scale, shift, "run", per_group), rule,
            Fused(added.residual, added.total, applied), found, per_group,
        )  # fmt: skip
        if not done:
            total = summed(call, added)
            found = channel_statistics(on, total, layout, layout.batch, per_group, rule)
            apply_channels(call, total, layout, layout.batch, found, scale, shift, rule, applied)
    stats = shaped(found, stats_shape) if return_stats and found is not None else None
    return results(call, stats, added)


def apply_channels(
    call: Call, x: Buffer, layout: Channels, items: int, found: Statistics, scale: Buffer | None,
    shift: Buffer | None, rule: Rule, activation: str | None,
) -> None:  # fmt: skip
    """Write y from statistics (items, channels), a weight and a bias a channel."""
    owned = Parameters(scale, shift, "column" if layout.last else "run")
    primitives.affine(
        call.where.place, x, call.y, layout.view(items), found, layout.whose(items), owned, rule, activation
    )


@dataclass(frozen=True, slots=True)
class Moving:
    """How running statistics move in training."""

    weight_of_old: float
    unbiased: bool


def batch(
    x: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, training: bool, moving: Moving, eps: float,
    channel_axis: int, out: Any, dtype: Any, return_stats: bool, backend: str | None, residual: Any,
    return_residual: bool, activation: Any, where: Any, weights: Any,
) -> Any:  # fmt: skip
    """Normalise each channel over the batch; in training the running statistics are moved on the device."""
    function = "batch_norm"
    on = device.begin(x, backend, function)
    refuse(function, where=where, weights=weights)
    source = on.take(x, function, "x")
    axis = arguments.channel_index(source, channel_axis, function)
    channels = source.shape[axis]
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    scale, shift = parameters(on, weight, bias, (channels,), function)
    layout = channels_of(source.shape, axis)
    stats_shape = kept_shape(source.shape, (axis,))
    if not training and (running_mean is None or running_var is None):
        raise ValueError(f"{function}: running_mean and running_var are needed unless training=True")
    mean = parameter(on, running_mean, (channels,), function, "running_mean")
    var = parameter(on, running_var, (channels,), function, "running_var")
    check_same_dtype(function, running_mean=mean, running_var=var)
    if training:
        for name, given, kept in (("running_mean", running_mean, mean), ("running_var", running_var, var)):
            if kept is not None and kept.array is not given:
                raise ValueError(f"{function}: {name} must be C-contiguous to be updated in place on a device")
        if moving.unbiased:
            arguments.check_count(layout.count(1, 1), function)
    applied = activation_name(activation, function)
    storage = device.storage_of(dtype, source.storage, function)
    added = addition(on, residual, return_residual, source, storage, function)
    call = begin(on, source, out, dtype, function, (scale, shift, mean, var, added.residual))
    if training:
        return _batch_in_training(
            call,
            layout,
            scale,
            shift,
            Running(mean, var, moving.weight_of_old, 1.0),
            moving,
            rule,
            stats_shape,
            return_stats,
            added,
        )
    assert mean is not None
    assert var is not None
    given = Statistics(mean, var, rooted=False)
    return _by_given(call, layout, given, scale, shift, rule, stats_shape if return_stats else None, added, applied)


def _by_given(
    call: Call, layout: Channels, given: Statistics, scale: Buffer | None, shift: Buffer | None, rule: Rule,
    stats_shape: Shape | None, added: Addition, activation: str | None,
) -> Any:  # fmt: skip
    """Normalise each channel by a mean and a variance that are there; `stats_shape` if statistics are wanted."""
    if call.x.size:
        apply_channels(call, summed(call, added), layout, 1, given, scale, shift, rule, activation)
    stats = None
    if stats_shape is not None:
        found = primitives.given_statistics(call.where.place, given.mean, given.rstd, rule.eps)
        stats = shaped(found, stats_shape)
    return results(call, stats, added)


def given(
    x: Any, mean: Any, var: Any, weight: Any, bias: Any, channel_axis: int, eps: float, out: Any, dtype: Any,
    return_stats: bool, backend: str | None,
) -> Any:  # fmt: skip
    """Normalise each channel by given statistics: `norms.given.normalize` on a device."""
    function = "normalize"
    on = device.begin(x, backend, function)
    source = on.take(x, function, "x")
    axis = arguments.axis_index(channel_axis, source.ndim, function, "channel_axis")
    before, channels, after = prod(source.shape[:axis]), source.shape[axis], prod(source.shape[axis + 1 :])
    rule = Rule(eps=arguments.number(eps, function, "eps", minimum=0))
    centre = statistic(on, mean, (channels,), function, "mean")
    spread = statistic(on, var, (channels,), function, "var")
    check_same_dtype(function, mean=centre, var=spread)
    scale, shift = parameters(on, weight, bias, (channels,), function)
    call = begin(on, source, out, dtype, function, (scale, shift, centre, spread))
    stats_shape = kept_shape(source.shape, (axis,)) if return_stats else None
    statistics = Statistics(centre, spread, rooted=False)
    nothing = Addition(None, None)
    layout = Channels(1, before, channels, after)
    return _by_given(call, layout, statistics, scale, shift, rule, stats_shape, nothing, None)


def _batch_in_training(
    call: Call, layout: Channels, scale: Buffer | None, shift: Buffer | None, running: Running, moving: Moving,
    rule: Rule, stats_shape: Shape, return_stats: bool, added: Addition,
) -> Any:  # fmt: skip
    stats: Stats | None = None
    if call.x.size:
        running = running._replace(divisor=float(layout.count(1, 1) - moving.unbiased))
        found = channel_statistics(call.where, call.x, layout, 1, 1, rule, running)
        apply_channels(call, call.x, layout, 1, found, scale, shift, rule, None)
        stats = shaped(found, stats_shape) if return_stats else None
    elif return_stats:
        stats = shaped(statistics_of(call.where, call.x, layout.channels), stats_shape)
    return results(call, stats, added)
