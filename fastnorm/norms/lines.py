"""What norms have in common whose lines are one axis, or the trailing ones, of x: layer, RMS, L2, pixel, Lp."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine, gradients
from fastnorm.activations import check_activation
from fastnorm.device import is_device_array
from fastnorm.gradients import Gradients
from fastnorm.plan import plan_reduction
from fastnorm.recipe import Measure, Rule

Array = npt.NDArray[Any]


def normalize_lines(
    function: str, x: npt.ArrayLike, weight: npt.ArrayLike | None, bias: npt.ArrayLike | None, axis: Any, rule: Rule,
    out: Array | None, dtype: npt.DTypeLike | None, return_stats: bool, backend: str | None,
    residual: npt.ArrayLike | None = None, return_residual: bool = False, activation: Any = None,
    quantize: str | None = None,
) -> Any:  # fmt: skip
    """Check, plan and make a norm of lines, by its rule."""
    if is_device_array(x):
        from fastnorm.device_norms import lines as on_device  # imports Numba

        return on_device.lines(
            function, x, weight, bias, axis, rule, out, dtype, return_stats, backend,
            residual, return_residual, activation, quantize,
        )  # fmt: skip
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    axes = arguments.trailing_axes(axis, array.ndim, function)
    shape = tuple(array.shape[a] for a in axes)
    weight, bias = arguments.parameters(weight, bias, shape, function)
    addend = arguments.residual(residual, return_residual, array, function)
    applied = check_activation(activation, function, calls.compute_dtype(array, dtype, function))
    arguments.quantization(quantize, axes, array, out, dtype, function)
    plan = plan_reduction(array.shape, axes)
    narrow = addend is None and applied is None and quantize is None
    narrow = narrow or engine.fuses_narrow(plan.view, array, addend, backend, function)
    call = calls.begin(array, out, dtype, backend, function, (weight, bias, addend), narrow=narrow)
    call, fusion = engine.fuse(call, addend, applied, return_residual, plan if quantize else None)
    moments = None
    if array.size:
        moments = engine.normalize_positions(call, plan, rule, weight, bias, return_stats, fusion)
    stats = engine.stats_of(moments, plan.count, rule, plan.stats_shape) if return_stats else None
    return engine.results(call, stats, return_residual, fusion)


def lines_backward(
    function: str, dy: npt.ArrayLike, x: npt.ArrayLike, weight: npt.ArrayLike | None, mean: npt.ArrayLike | None,
    rstd: npt.ArrayLike | None, axis: Any, rule: Rule, out: Array | None, dtype: npt.DTypeLike | None,
    backend: str | None, parameters: bool = True,
) -> Gradients:  # fmt: skip
    """The same for its backward pass."""
    if is_device_array(x):
        from fastnorm.device_norms import gradients as on_device  # imports Numba

        return on_device.lines(
            function, dy, x, weight, mean, rstd, axis, rule, out, dtype, backend, parameters,
        )  # fmt: skip
    array = calls.take(x, function)
    axes = arguments.trailing_axes(axis, array.ndim, function)
    shape = tuple(array.shape[a] for a in axes)
    weight = arguments.parameter(weight, shape, function, "weight")
    plan = plan_reduction(array.shape, axes)
    needs_mean = rule.measure == Measure.VARIANCE
    given = gradients.given_statistics(mean, rstd, plan.stats_shape, function, needs_mean)
    narrow = plan.view[2] == 1 or not parameters  # else xhat is an array, which 16 bits would round
    call, upstream = gradients.begin(dy, array, out, dtype, backend, function, (weight,), narrow=narrow)
    sums = None
    if array.size:
        sums = gradients.of_lines(call, upstream, plan, rule, weight, given, parameters)
    elif parameters:
        sums = np.zeros(shape), np.zeros(shape)
    dx = call.finish()
    if sums is None:
        return Gradients(dx, None, None)
    dweight, dbias = (gradients.rounded(part.reshape(shape), weight, call.result) for part in sums)
    return Gradients(dx, dweight, dbias)
