"""Conformance: the backward primitives of every compiled backend against the reference, within derived bounds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from kernel_data import lines, strange_lines, weights
from primitive_cases import ROW_VIEWS, RULES, chain, coefficients, each_dtype, each_view

from fastnorm import gradients
from fastnorm.backends import registry
from fastnorm.backends.reference import Reference
from fastnorm.plan import plan_channels
from fastnorm.recipe import Measure, Rule, line_terms, reciprocal_root

Array = np.ndarray[Any, Any]


def upstream(view: tuple[int, int, int], dtype: Any) -> Array:
    """Return a gradient to go backward from."""
    return (np.random.default_rng([*view, 1]).standard_normal(view) + 0.25).astype(dtype)


def gradient_forms(view: tuple[int, int, int], dtype: Any) -> Iterator[tuple[Any, ...]]:
    """Yield (weight, per_position, segments, parameters) in every form that the backward passes use, of rows."""
    outer, reduce, _ = view
    yield weights(reduce, dtype)[0], True, 1, True
    yield np.ones(1, dtype), False, 1, False
    yield np.ones(1, dtype), False, 1, True
    yield weights(outer, dtype)[0], False, 1, True
    if reduce % 3 == 0:
        yield np.ones(1, dtype), False, 3, True
        yield weights(3, dtype)[0], False, 3, True
        yield weights(3 * outer, dtype)[0], False, 3, True


def statistics(x: Array, rule: Rule) -> tuple[Array, Array]:
    """Return mean and rstd of lines, (outer, inner), as the reference finds them."""
    stats = Reference().moments(x, rule.measure)
    return stats.hi + stats.lo, reciprocal_root(stats.m2, x.shape[1], rule)


def kinds(view: tuple[int, int, int], dtype: Any) -> Iterator[tuple[str, Array]]:
    """Yield `lines`, of many elements a few kinds; not the subnormal ones, whose mean is a pair of float32."""
    for kind, x in lines(view, dtype):
        if kind != "subnormal" and (x.size < 20000 or kind in ("normal", "far from zero", "ramp", "constant")):
            yield kind, x


def backward_primitives(backend: Reference, x: Array) -> Iterator[tuple[str, Array]]:
    """Yield everything that a backend makes of x and the gradient of a result."""
    dy, dx = upstream(x.shape, x.dtype), np.empty_like(x)
    for count in (x.shape[0], 1):
        mean, rest, scale, slope = coefficients((count, *x.shape[1:]))
        for name, part in zip(("dy", "dy * (x - mean)"), backend.dots(x, dy, mean), strict=True):
            yield f"dots of {count} means, {name}", part
        backend.affine_grad(x, dy, dx, mean, scale, slope, rest)
        yield f"affine_grad of {count} lines", dx.copy()
    if x.shape[2] > 1:
        return
    for rule in RULES:
        mean, rstd = statistics(x, rule)
        found = mean[:, 0], rstd[:, 0]
        for number, (weight, per_position, segments, parameters) in enumerate(gradient_forms(x.shape, x.dtype.type)):
            if rule is not RULES[0] and number:
                continue
            for given in (None, found) if number < 2 else (None,):
                label = f"normalize_grad {number}, {rule}, given={given is not None}"
                sums = backend.normalize_grad(x, dy, dx, weight, per_position, segments, rule, given, parameters)
                yield label, dx.copy()
                assert (sums is not None) == parameters
                for name, part in zip(("dweight", "dbias"), sums or (), strict=False):
                    yield f"{label}: {name}", part


@each_view
@each_dtype
def test_dots_are_within_the_bound_of_their_chains(view: tuple[int, int, int], dtype: Any, compiled: str) -> None:
    """A deviation and a product are rounded, then as many additions as a chain has; the mean is kept as a pair."""
    backend, reference = registry.load(compiled), Reference()
    u, own = float(np.finfo(dtype).eps) / 2, view[1] * 2.0**-53
    units = (chain(view, dtype) + 3) * u + 2 * own
    dy = upstream(view, dtype)
    for kind, x in kinds(view, dtype):
        means = statistics(x, RULES[0])[0]
        for mean in (means, means[:1]):
            actual, expected = backend.dots(x, dy, mean), reference.dots(x, dy, mean)
            centre = np.tile(mean, (view[0] // len(mean), 1))[:, np.newaxis]
            size, product = np.abs(dy).astype(np.float64), np.abs(dy * (x - centre))
            allowed = (
                units * size.sum(axis=1),
                units * product.sum(axis=1) + (4 * u * u + 2.0**-52) * (size * np.abs(centre)).sum(axis=1),
            )
            for part, other, bound in zip(actual, expected, allowed, strict=True):
                assert part.dtype == np.float64
                assert part.shape == (view[0], view[2])
                assert (np.abs(part - other) <= bound).all(), kind


@each_view
@each_dtype
def test_affine_grad_has_the_roundings_of_its_operations(view: tuple[int, int, int], dtype: Any, compiled: str) -> None:
    """A coefficient, a deviation, a product and two additions: five roundings of each of the three terms at most."""
    backend, reference = registry.load(compiled), Reference()
    u = float(np.finfo(dtype).eps) / 2
    x, dy = np.random.default_rng(view).standard_normal(view).astype(dtype), upstream(view, dtype)
    for lines_of in (view[0], 1):
        mean, shift, scale, slope = coefficients((lines_of, *view[1:]))
        dx, wide = np.empty_like(x), np.empty(view)
        backend.affine_grad(x, dy, dx, mean, scale, slope, shift)
        reference.affine_grad(x.astype(np.float64), dy.astype(np.float64), wide, mean, scale, slope, shift)
        centre, a, k, e = (np.tile(p, (view[0] // lines_of, 1))[:, np.newaxis] for p in (mean, scale, slope, shift))
        terms = np.abs(a * dy) + np.abs(k) * (np.abs(x - centre) + u * np.abs(centre)) + np.abs(e)
        assert (np.abs(dx - wide) <= 5.001 * u * terms + 2.0**-51 * terms).all()


@pytest.mark.parametrize("view", ROW_VIEWS, ids=str)
@each_dtype
def test_normalize_grad_is_within_the_bound_of_its_sums(view: tuple[int, int, int], dtype: Any, compiled: str) -> None:
    """dx = rstd * (g - A - xhat * B); statistics and xhat as in the test of `normalize`, exact if they are given."""
    backend, reference = registry.load(compiled), Reference()
    outer, reduce, _ = view
    u, own = float(np.finfo(dtype).eps) / 2, reduce * 2.0**-53
    sums = (chain(view, dtype) + 4) * u + 2 * own
    dy = upstream(view, dtype)
    size = np.abs(dy[..., 0]).astype(np.float64)
    for kind, x in kinds(view, dtype):
        for rule in RULES:
            if kind == "constant" and rule.eps == 0:  # of equal numbers the reference's variance is not quite 0
                continue
            mean, rstd = statistics(x.astype(np.float64), rule)
            n = np.abs((x[..., 0] - mean) * rstd)
            for number, (weight, per_position, segments, parameters) in enumerate(gradient_forms(view, dtype)):
                if rule is not RULES[0] and number:
                    continue
                for given in (None, (mean[:, 0], rstd[:, 0])) if number < 2 else (None,):
                    dx, wide = np.empty_like(x), np.empty(view)
                    options = per_position, segments, rule, given, parameters
                    actual = backend.normalize_grad(x, dy, dx, weight, *options)
                    expected = reference.normalize_grad(
                        x.astype(np.float64), dy.astype(np.float64), wide, weight.astype(np.float64), *options
                    )
                    stat = 0 if given is not None else sums
                    of_xhat = (4 * u + 8 * stat) * n + 2 * stat * np.minimum(1, n.max(1, keepdims=True))
                    of_xhat = of_xhat + (u * u * 4 + 2.0**-52) * np.abs(mean) * rstd
                    w = np.abs(weight).astype(np.float64)
                    if not per_position and w.size > 1:
                        runs = w[np.arange(outer * segments) % w.size].reshape(outer, segments)
                        w = np.repeat(runs, reduce // segments, axis=1)
                    g = size * w
                    a, b = line_terms(
                        rule, g.sum(1, keepdims=True), (g * n).sum(1, keepdims=True), reduce, rstd
                    )  # fmt: skip
                    _, of_b = line_terms(rule, a, (g * (of_xhat + sums * n)).sum(1, keepdims=True), reduce, rstd)
                    allowed = (8 * stat + 5 * u + 4 * own) * (g + a + n * b) + sums * a + n * of_b + of_xhat * b
                    error = np.abs(dx - wide)[..., 0]
                    assert (error <= rstd * allowed * 1.001 + 1e-44).all(), (kind, rule, options)
                    assert (actual is not None) == parameters
                    if actual is None or expected is None:
                        continue
                    if per_position:  # float64 sums over the lines
                        bounds = (size * (of_xhat + 2 * u * n)).sum(0), outer * 2.0**-52 * size.sum(0)
                    else:
                        parts = size * (of_xhat + sums * n), sums * size
                        bounds = tuple(p.reshape(outer * segments, -1).sum(1) for p in parts)
                    for part, other, bound in zip(actual, expected, bounds, strict=True):
                        assert part.dtype == np.float64
                        assert part.shape == other.shape
                        assert (np.abs(part - other) <= bound * 1.001 + 1e-44).all(), (kind, rule, options)


@each_view
@each_dtype
def test_what_is_no_number_stays_in_its_line_going_backward(
    view: tuple[int, int, int], dtype: Any, compiled: str
) -> None:
    backend = registry.load(compiled)
    clean = np.random.default_rng(view).standard_normal(view).astype(dtype)
    expected = dict(backward_primitives(backend, clean))
    for kind, x in strange_lines(view, dtype):
        lines_hit = ~np.isfinite(x).all(axis=1)  # (outer, inner)
        for name, part in backward_primitives(backend, x):
            if part.shape == view:
                np.testing.assert_array_equal(
                    part.swapaxes(1, 2)[~lines_hit], expected[name].swapaxes(1, 2)[~lines_hit], err_msg=(kind, name)
                )
                assert not np.isfinite(part).all(axis=1)[lines_hit].any(), (kind, name)
            elif name.endswith("dy * (x - mean)"):
                np.testing.assert_array_equal(part[~lines_hit], expected[name][~lines_hit], err_msg=(kind, name))
                assert not np.isfinite(part[lines_hit]).any(), (kind, name)


@pytest.mark.parametrize("per_item", [True, False])
@pytest.mark.parametrize("channel_axis", [1, 2])
def test_channels_of_a_rule_without_a_mean(channel_axis: int, per_item: bool) -> None:
    """No norm of the library has such channels; whoever writes one need not look."""
    rng = np.random.default_rng(0)
    x, dy, weight = rng.standard_normal((3, 4, 5)) + 1, rng.standard_normal((3, 4, 5)), rng.standard_normal(5)
    weight, layout = weight[: x.shape[channel_axis]], plan_channels(x.shape, channel_axis)
    call, upstream = gradients.begin(dy, x, None, None, None, "test")
    rule = Rule(measure=Measure.SQUARES, eps=0.5)
    gradients.of_channels(call, upstream, layout, layout.plan(per_item=per_item), rule, weight, None, 1)
    axes = tuple(axis for axis in range(0 + per_item, 3) if axis != channel_axis)
    g = dy * np.expand_dims(weight, tuple(axis for axis in range(3) if axis != channel_axis))
    rstd = 1 / np.sqrt((x * x).mean(axes, keepdims=True) + 0.5)
    expected = rstd * (g - x * rstd * (g * x * rstd).mean(axes, keepdims=True))
    np.testing.assert_allclose(call.finish(), expected, rtol=1e-12, atol=1e-12)
