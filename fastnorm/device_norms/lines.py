"""Norms whose lines are one axis, or the trailing ones."""

from math import prod
from typing import Any

from fastnorm import arguments, device
from fastnorm.backends.cuda import primitives
from fastnorm.backends.cuda.buffers import Buffer
from fastnorm.backends.cuda.merging import Pool
from fastnorm.backends.cuda.primitives import Fused, Parameters, Statistics, View, Whose
from fastnorm.device import Device
from fastnorm.device_norms.calls import (
    activation_name,
    addition,
    begin,
    parameters,
    refuse,
    results,
    shaped,
    statistics_of,
    summed,
)
from fastnorm.plan import plan_reduction
from fastnorm.recipe import Rule


def lines(
    function: str, x: Any, weight: Any, bias: Any, axis: Any, rule: Rule, out: Any, dtype: Any, return_stats: bool,
    backend: str | None, residual: Any = None, return_residual: bool = False, activation: Any = None,
    quantize: str | None = None,
) -> Any:  # fmt: skip
    """Normalise lines that are one axis, or the trailing ones: `norms.lines.normalize_lines` on a device."""
    where = device.begin(x, backend, function)
    refuse(function, quantize=quantize)
    source = where.take(x, function, "x")
    axes = arguments.trailing_axes(axis, source.ndim, function)
    shape = tuple(source.shape[a] for a in axes)
    scale, shift = parameters(where, weight, bias, shape, function)
    applied = activation_name(activation, function)
    storage = device.storage_of(dtype, source.storage, function)
    added = addition(where, residual, return_residual, source, storage, function)
    call = begin(where, source, out, dtype, function, (scale, shift, added.residual))
    plan = plan_reduction(source.shape, axes)
    found = statistics_of(where, source, prod(plan.stats_shape)) if return_stats else None
    if source.size:
        owned = Parameters(scale, shift, "position")
        done = plan.view[2] == 1 and primitives.normalize(
            where.place, source, call.y, plan.view[0], owned, rule, Fused(added.residual, added.total, applied), found
        )
        if not done:
            total = summed(call, added)
            found = line_statistics(where, total, plan.view, rule)
            whose = Whose(plan.view[0], plan.view[0])
            primitives.affine(where.place, total, call.y, plan.view, found, whose, owned, rule, applied)
    stats = shaped(found, plan.stats_shape) if return_stats and found is not None else None
    return results(call, stats, added)


def line_statistics(where: Device, x: Buffer, view: View, rule: Rule) -> Statistics:
    """Return the statistics of each line of a view."""
    outer, length, inner = view
    parts = primitives.moments(where.place, x, view, rule)
    k = parts.chunks
    pool = Pool(outer, inner, 1, 1, k, k * inner, 1, 0, 0, inner)
    return primitives.merge(where.place, parts, pool, rule, length)
