"""Conformance: the primitives of every compiled backend against the reference, within bounds that are derived."""

from typing import Any

import numpy as np
from kernel_data import lines, strange_lines, weights
from primitive_cases import RULES, chain, coefficients, each_dtype, each_view, normalizations

from fastnorm.backends import registry
from fastnorm.backends.reference import Reference
from fastnorm.recipe import Measure, Moments


@each_view
@each_dtype
def test_moments_are_within_the_bound_of_the_algorithm(view: tuple[int, int, int], dtype: Any, compiled: str) -> None:
    """With L roundings in a chain, a deviation rounded once and its square twice, sums of squares are off by (L + 3) u.

    At most a factor of 4 is cancelled when the sum is moved to the mean, in which the sum of deviations, squared, has
    its part: 16 (L + 3) u. The mean is off by (L + 3) u times the mean deviation from the shift, less than 2 sigma.
    """
    backend, reference = registry.load(compiled), Reference()
    u = float(np.finfo(dtype).eps) / 2
    own = view[1] * 2.0**-53  # the reference's
    factor = (chain(view, dtype) + 3) * u
    for kind, x in lines(view, dtype):
        for measure in Measure:
            actual, expected = backend.moments(x, measure), reference.moments(x, measure)
            m2 = expected.m2
            mean = expected.hi + expected.lo
            # Of a constant line the reference's mean is not exact, nor is, in float32, that of subnormal numbers.
            least = view[1] * (2.0**-52 * mean) ** 2 + 1e-80
            error = np.abs(actual.m2 - m2)
            assert (error <= (16 * factor + own) * m2 + least).all(), (kind, measure)
            error = np.abs((actual.hi - expected.hi) + (actual.lo - expected.lo))
            sigma = np.sqrt(m2 / view[1])
            allowed = (2 * factor + own) * sigma + 2.0**-52 * np.abs(mean) + 1e-45
            assert (error <= allowed).all(), (kind, measure)
            if measure != Measure.VARIANCE:
                assert not actual.hi.any()
                assert not actual.lo.any()


@each_view
@each_dtype
def test_extrema_are_exact(view: tuple[int, int, int], dtype: Any, compiled: str) -> None:
    for source in (lines, strange_lines):
        for kind, x in source(view, dtype):
            low, high = registry.load(compiled).extrema(x)
            np.testing.assert_array_equal(low, x.min(axis=1), err_msg=kind)
            np.testing.assert_array_equal(high, x.max(axis=1), err_msg=kind)


@each_view
@each_dtype
def test_affine_has_the_roundings_of_its_operations(view: tuple[int, int, int], dtype: Any, compiled: str) -> None:
    backend, reference = registry.load(compiled), Reference()
    u = float(np.finfo(dtype).eps) / 2
    numbers = coefficients(view)
    for weight, bias in ((None, None), weights(view[1], dtype)):
        x = np.random.default_rng(view).standard_normal(view).astype(dtype)
        y = np.empty_like(x)
        wide = np.empty(view)
        backend.affine(x, y, numbers, weight, bias)
        reference.affine(x.astype(np.float64), wide, numbers, weight, bias)
        hi, lo, scale, shift = (part[:, np.newaxis] for part in numbers)
        product = np.abs(x - hi) * scale
        addend = np.abs(lo * scale) if weight is not None else np.abs(shift - lo * scale)
        # d = x - centre is rounded, the addend when it becomes a number of the storage type and when the rest of the
        # product is added, the result; with a weight, that is rounded once more. (What is left of the scale after two
        # parts is u^2 of it.)
        allowed = 1.001 * u * (product + 2 * addend + product * u)
        if weight is None:
            allowed = allowed + u * np.abs(wide)
        else:
            allowed = (allowed + u * (product + addend)) * np.abs(weight)[:, np.newaxis] + u * np.abs(wide)
        assert (np.abs(y - wide) <= allowed + 2.0**-52 * (product + addend + np.abs(wide))).all()


@each_view
@each_dtype
def test_normalize_is_within_the_bound_of_its_statistics(view: tuple[int, int, int], dtype: Any, compiled: str) -> None:
    """Statistics as in the test of moments, half of the error of m2 in rstd; then the roundings of `affine`."""
    backend, reference = registry.load(compiled), Reference()
    u = float(np.finfo(dtype).eps) / 2
    factor = (chain(view, dtype) + 3) * u + view[1] * 2.0**-53
    for kind, x in lines(view, dtype):
        if kind == "subnormal":  # the centre is a pair of float32
            continue
        for rule in RULES:
            for weight, bias, per_position, segments in normalizations(view, dtype):
                if rule is not RULES[0] and not per_position:
                    continue
                y, plain, wide = np.empty_like(x), np.empty(view), np.empty(view)
                backend.normalize(x, y, weight, bias, per_position, segments, rule, False)
                one, zero = np.ones(1), np.zeros(1)
                reference.normalize(x.astype(np.float64), plain, one, zero, False, 1, rule, False)
                reference.normalize(
                    x.astype(np.float64), wide, weight.astype(np.float64), bias.astype(np.float64), per_position,
                    segments, rule, False,
                )  # fmt: skip
                n = np.abs(plain)
                error = (4 * u + 8 * factor) * n + 2 * factor * np.minimum(1, n.max(1, keepdims=True))
                largest = max(1.0, float(np.abs(weight).max()))
                assert (np.abs(y - wide) <= (error + u * n) * largest + u * np.abs(wide)).all(), (kind, rule, segments)


def test_merge_is_the_formula_of_the_recipe_to_the_bit(compiled: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (3, 2, 1), (2, 5, 7), (1, 40, 3)):
        parts = Moments(rng.standard_normal(shape), rng.standard_normal(shape) * 1e-8, rng.random(shape))
        for count, last in ((64, 64), (64, 5), (1, 1)):
            actual = registry.load(compiled).merge(parts, count, last)
            for one, other in zip(actual, Reference().merge(parts, count, last), strict=True):
                np.testing.assert_array_equal(one, other)
