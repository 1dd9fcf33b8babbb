"""Statistics along any axes of arrays on a device: `fastnorm.stats` with the device's kernels."""

from dataclasses import dataclass
from typing import Any

from fastnorm import arguments, device
from fastnorm.backends.cuda import primitives
from fastnorm.backends.cuda.buffers import Buffer, Shape
from fastnorm.backends.cuda.merging import Pool
from fastnorm.device import Device
from fastnorm.device_norms.calls import refuse
from fastnorm.plan import Plan, dropped_shape, plan_reduction
from fastnorm.recipe import Rule


@dataclass(frozen=True, slots=True)
class DeviceMoments:
    """Mean and variance of lines on a device: float64, of the kind of x; an array of shape () for a whole array."""

    mean: Any
    var: Any
    std: Any
    m2: Any
    count: int


def pool_of(plan: Plan, chunks: int) -> Pool:
    """Return which parts of the lines of a plan, (outer, chunks, inner), are those of a statistic."""
    outer, _, inner = plan.view
    if plan.pool is None:
        return Pool(outer, inner, 1, 1, chunks, chunks * inner, 1, 0, 0, inner)
    items, joined, rest = plan.pool
    if inner == 1:
        return Pool(items, rest, joined, 1, chunks, joined * rest * chunks, chunks, rest * chunks, 0, 1)
    return Pool(outer, items // outer, 1, joined, chunks, chunks * inner, joined, 0, 1, inner)


def planned(source: Buffer, axis: Any, keepdims: bool, function: str) -> tuple[Plan, Shape]:
    """Return the plan of a reduction, and the shape of its results.

    Raises
    ------
    TypeError
        The axes are not some that the device's kernels can take as they lie.
    """
    axes = arguments.axis_indices(axis, source.ndim, function)
    plan = plan_reduction(source.shape, axes)
    if plan.order is not None:
        raise TypeError(
            f"{function}: axis {axis!r} of an array of shape {source.shape} is not served on a CUDA device: "
            "transpose it, so that the axes lie together"
        )
    return plan, plan.stats_shape if keepdims else dropped_shape(source.shape, axes)


def moments(
    x: Any, axis: Any, keepdims: bool, ddof: Any, weights: Any, where: Any, algorithm: str, backend: str | None
) -> Any:
    """Return mean and variance: `stats.moments.moments` on a device."""
    function = "moments"
    on = device.begin(x, backend, function)
    refuse(function, weights=weights, where=where, algorithm=None if algorithm == "auto" else algorithm)
    source = on.take(x, function, "x")
    plan, shape = planned(source, axis, keepdims, function)
    divisor = max(plan.count - arguments.number(ddof, function, "ddof"), 0.0)
    mean, m2 = _mean_and_m2(on, source, plan)
    var, std = on.place.numbers(mean.size), on.place.numbers(mean.size)
    if mean.size:
        primitives.spread(on.place, m2, var, std, divisor)
    mean_there, var_there, std_there, m2_there = (part.array.reshape(shape) for part in (mean, var, std, m2))
    return DeviceMoments(mean_there, var_there, std_there, m2_there, plan.count)


def _mean_and_m2(on: Device, source: Buffer, plan: Plan) -> tuple[Buffer, Buffer]:
    if source.size:
        rule = Rule()
        parts = primitives.moments(on.place, source, plan.view, rule)
        pool = pool_of(plan, parts.chunks)
        found = primitives.merge(on.place, parts, pool, rule, plan.count, rooted=False)
        return found.mean, found.rstd
    lines = plan.view[0]
    mean, m2 = on.place.numbers(lines), on.place.numbers(lines)
    for part in (mean, m2):
        primitives.fill_as_empty(on.place, part, defined=False)
    return mean, m2


def extrema(x: Any, axis: Any, keepdims: bool, backend: str | None) -> tuple[Any, Any]:
    """Return the least and the largest elements: `stats.extrema.extrema` on a device."""
    function = "extrema"
    on = device.begin(x, backend, function)
    source = on.take(x, function, "x")
    plan, shape = planned(source, axis, keepdims, function)
    if plan.count == 0:
        raise ValueError(f"{function}: a line without elements has no extrema, got shape {source.shape}")
    low, high = (on.place.empty(shape, source.storage) for _ in range(2))
    if source.size:
        parts = primitives.extremes(on.place, source, plan.view)
        primitives.merge_extremes(on.place, parts, pool_of(plan, parts.chunks), low, high)
    return low.array, high.array
