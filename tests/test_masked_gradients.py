"""Gradients of norms by the statistics of some elements: where= and weights= of the backward passes."""

from typing import Any

import numpy as np
import pytest
from masked_cases import (
    ROUNDOFF,
    along,
    backward,
    counting,
    each_kind,
    each_layout,
    each_norm,
    exact,
    norm,
    options,
    sample,
)

import fastnorm

Array = np.ndarray[Any, Any]


@each_norm
@each_layout
@each_kind
def test_gradients_are_the_limits_of_differences(
    name: str, shape: tuple[int, ...], axis: int, kind: str, backend: str
) -> None:
    x, dy = sample(shape, dtype=np.float64), sample(shape, 1, np.float64) - 3
    given, counts = counting(kind, shape, 5)
    weight = np.linspace(-2, 2, 6)
    spread = along(weight, axis, x.ndim)

    def loss(values: Array) -> Any:
        return (exact(name, values, counts, axis).xhat * spread * dy).sum()

    with fastnorm.config(backend=backend):
        found = backward(name, dy, x, weight=weight, **options(name, axis), **given)
    step = 1e-5
    expected = np.zeros(x.size)
    chosen = np.random.default_rng(6).permutation(x.size)[:25]
    for i in chosen:
        moved = [x.copy() for _ in range(2)]
        moved[0].flat[i] += step
        moved[1].flat[i] -= step
        expected[i] = (loss(moved[0]) - loss(moved[1])) / (moved[0].flat[i] - moved[1].flat[i])
    # Differences are off by step^2 / 6 times the third derivative, of the order of rstd^3 sum |g| (1 + xhat^2), and by
    # the roundings of what is subtracted, a few of each term.
    right = exact(name, x, counts, axis)
    terms = np.abs(spread * dy * (1 + right.xhat**2)).sum()
    limit = float(step**2 * right.rstd.max() ** 3 * terms + 16 * np.finfo(np.longdouble).eps * terms / step)
    np.testing.assert_allclose(found.dx.ravel()[chosen], expected[chosen], rtol=0, atol=limit)
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    # float64 sums of at most 60 products of the order of 10.
    np.testing.assert_allclose(found.dweight, (dy * right.xhat).sum(axes).astype(float), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.dbias, dy.sum(axes), rtol=1e-12, atol=1e-12)


def formula(name: str, dy: Array, x: Array, counts: Array, axis: int, weight: Array) -> tuple[Array, Array]:
    """Return dx by the formula, in the widest float, and the sum of the magnitudes of its terms."""
    right = exact(name, x, counts, axis)
    g = along(weight, axis, x.ndim) * dy.astype(np.longdouble)
    dx, size = np.zeros_like(g), np.zeros_like(g)
    for number in np.unique(right.line):
        mine = right.line == number
        total = right.total[mine][0]
        if total == 0:
            continue
        up, xhat, w, rstd = g[mine], right.xhat[mine], counts[mine], right.rstd[mine]
        dx[mine] = rstd * (up - w * (up.sum() + xhat * (up * xhat).sum()) / total)
        size[mine] = rstd * (
            np.abs(up) + w * (np.abs(up).sum() + np.abs(xhat) * np.abs(up * xhat).sum()) / total
        )  # fmt: skip
    return dx, size


@each_norm
@each_layout
@each_kind
@pytest.mark.parametrize("offset", [0, 1e4])
def test_float32_gradients(
    name: str, shape: tuple[int, ...], axis: int, kind: str, offset: float, backend: str
) -> None:
    x, dy = sample(shape) + np.float32(offset), sample(shape, 1) - 3
    given, counts = counting(kind, shape, 5)
    weight = np.linspace(-2, 2, 6, dtype=np.float32)
    with fastnorm.config(backend=backend):
        found, stats = (
            backward(name, dy, x, weight=weight, **options(name, axis), **given),
            norm(name, x, **options(name, axis), **given, return_stats=True)[1],
        )
        again = backward(name, dy, x, weight=weight, **options(name, axis), **given, **stats._asdict())
    expected, size = formula(name, dy, x, counts, axis, weight)
    # Each term has the rounding of g, of x less the mean, of their product, and those of sums in float32 lanes.
    assert (np.abs(found.dx - expected) <= 8 * ROUNDOFF * size).all()
    for ours, theirs in zip(again, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # What does not count has not touched the statistics: two products and their rounding to float32.
    left_out = counts == 0
    alone = (stats.rstd * along(weight, axis, x.ndim) * dy)[left_out]
    np.testing.assert_allclose(found.dx[left_out], alone, rtol=2 * ROUNDOFF)


@each_norm
@each_layout
def test_gradients_under_a_mask_of_true_are_those_without(
    name: str, shape: tuple[int, ...], axis: int, backend: str
) -> None:
    x, dy = sample(shape), sample(shape, 1) - 3
    weight = np.linspace(-2, 2, 6, dtype=np.float32)
    with fastnorm.config(backend=backend):
        plain = backward(name, dy, x, weight=weight, **options(name, axis))
        masked = backward(name, dy, x, weight=weight, **options(name, axis), where=np.True_)
    _, size = formula(name, dy, x, np.ones(shape), axis, weight)
    assert (np.abs(masked.dx - plain.dx) <= 16 * ROUNDOFF * size).all()  # each within half of that
    np.testing.assert_allclose(masked.dbias, plain.dbias, rtol=0, atol=4 * ROUNDOFF * np.abs(dy).sum())


@each_norm
@each_kind
def test_whatever_lies_under_the_mask_touches_no_gradient_of_others(name: str, kind: str, backend: str) -> None:
    x, dy = sample((4, 6, 7)), sample((4, 6, 7), 1)
    given, counts = counting(kind, x.shape)
    left_out = counts == 0
    ignored = np.where(left_out, np.float32(0), dy)
    weight = np.linspace(1, 2, 6, dtype=np.float32)
    with fastnorm.config(backend=backend):
        expected = backward(
            name, ignored, np.where(left_out, np.float32(0), x), weight=weight, **options(name), **given
        )
        for padding in (3e38, np.inf, np.nan):
            damaged = np.where(left_out, np.float32(padding), x)
            found = backward(name, ignored, damaged, weight=weight, **options(name), **given)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
            np.testing.assert_array_equal(found.dx[left_out], np.zeros(left_out.sum()))


@each_norm
def test_a_gradient_that_is_nan_reaches_what_counts_in_its_line_alone(name: str, backend: str) -> None:
    x, dy = sample((4, 6, 7)), sample((4, 6, 7), 1)
    given, counts = counting("both", x.shape)
    with fastnorm.config(backend=backend):
        expected = backward(name, dy, x, **options(name), **given).dx
        dy[1, 2, 3] = np.nan
        dx = backward(name, dy, x, **options(name), **given).dx
    line = exact(name, x, counts, 1).line
    reached = (line == line[1, 2, 3]) & (counts > 0)
    reached[1, 2, 3] = True
    np.testing.assert_array_equal(np.isnan(dx), reached)
    np.testing.assert_array_equal(dx[~reached], expected[~reached])


@each_norm
def test_a_gradient_goes_to_out(name: str, backend: str) -> None:
    x, dy = sample((4, 6, 7)), sample((4, 6, 7), 1)
    given, _ = counting("both", x.shape)
    with fastnorm.config(backend=backend):
        expected = backward(name, dy, x, **options(name), **given).dx
        for out in (np.empty_like(x), x.copy(), dy.copy()):
            mine = out if np.array_equal(out, x) else x
            upstream = out if np.array_equal(out, dy) else dy
            assert backward(name, upstream, mine, **options(name), **given, out=out).dx is out
            np.testing.assert_array_equal(out, expected)
