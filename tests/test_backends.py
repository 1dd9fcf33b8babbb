"""Conformance: every primitive of every compiled backend against the reference, and against each other to the bit."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import CASES, build, outcome
from kernel_data import assert_same_bits, lines, strange_lines, weights
from variants import BY_NUMPY, implementation

import fastnorm
from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.backends.reference import Reference
from fastnorm.recipe import Affine, Measure, Moments, Rule, line_terms, reciprocal_root

Array = np.ndarray[Any, Any]

# Around the borders of a bundle, a block, a chunk, a tile and of several of each.
ROW_VIEWS = [(1, 1, 1), (5, 1, 1), (2, 31, 1), (7, 33, 1), (3, 96, 1), (2, 4096, 1), (3, 4097, 1), (1, 65536, 1)]
ROW_VIEWS += [(2, 65537, 1), (1, 2 * 65536 + 4099, 1)]
COLUMN_VIEWS = [(1, 1, 2), (4, 1, 5), (3, 5, 3), (1, 8, 33), (1, 63, 32), (2, 65, 17), (1, 1024, 40), (2, 1025, 5)]
COLUMN_VIEWS += [(2, 300, 257), (1, 2113, 33), (3, 9, 513)]
VIEWS = [*ROW_VIEWS, *COLUMN_VIEWS]
each_view = pytest.mark.parametrize("view", VIEWS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def coefficients(view: tuple[int, int, int]) -> Affine:
    outer, _, inner = view
    rng = np.random.default_rng(1)
    hi = rng.standard_normal((outer, inner)).astype(np.float32).astype(np.float64)
    return Affine(hi, hi * 2.0**-26, np.exp(rng.standard_normal((outer, inner))), rng.standard_normal((outer, inner)))


RULES = [
    Rule(eps=1e-5),
    Rule(eps=0.0, ddof=0.5),
    Rule(measure=Measure.SQUARES, eps=1e-6),
    Rule(measure=Measure.SQUARES, eps=1e-12, floor=True, summed=True),
]


def normalizations(view: tuple[int, int, int], dtype: Any) -> Iterator[tuple[Any, ...]]:
    """Yield (weight, bias, per_position, segments) in every form that the engine uses."""
    outer, reduce, inner = view
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    yield one, zero, False, 1
    yield *weights(reduce, dtype), True, 1
    yield *weights(outer * inner, dtype), False, 1
    if outer > 1:
        yield *weights(inner, dtype), False, 1
    if inner == 1 and reduce % 3 == 0:
        yield *weights(3, dtype), False, 3
        yield *weights(3 * outer, dtype), False, 3


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


def primitives(backend: Reference, x: Array) -> Iterator[tuple[str, Array]]:
    """Yield everything that a backend makes of x."""
    for measure in Measure:
        for name, part in zip(Moments._fields, backend.moments(x, measure), strict=True):
            yield f"moments, {measure.name}, {name}", part
    for name, part in zip(("least", "largest"), backend.extrema(x), strict=True):
        yield f"extrema, {name}", part
    y = np.empty_like(x)
    backend.affine(x, y, coefficients(x.shape))
    yield "affine", y.copy()
    backend.affine(x, y, coefficients((1, *x.shape[1:])))
    yield "affine, one set of coefficients", y.copy()
    backend.affine(x, y, coefficients(x.shape), *weights(x.shape[1], x.dtype))
    yield "affine, weight a position", y.copy()
    for rule in RULES:
        for number, (weight, bias, per_position, segments) in enumerate(normalizations(x.shape, x.dtype.type)):
            if rule is not RULES[0] and not per_position:
                continue
            stats = backend.normalize(x, y, weight, bias, per_position, segments, rule, True)
            assert stats is not None
            options = f"per_position={per_position}, segments={segments}"
            label = f"normalize {number}, {rule}, {weight.size} weights, {options}"
            yield label, y.copy()
            yield f"{label}: mean", stats.hi + stats.lo
            yield f"{label}: m2", stats.m2
            y.fill(np.nan)
            assert backend.normalize(x, y, weight, bias, per_position, segments, rule, False) is None
            yield f"{label}: without statistics", y.copy()


# Against the reference


def chain(view: tuple[int, int, int], dtype: Any) -> int:
    """Return how many roundings the longest chain of additions in a block has."""
    if view[2] > 1:
        return 8 + 3 + 7  # groups, their tree, the rest of a block
    lanes = 128 // np.dtype(dtype).itemsize
    return min(view[1], 4096) // lanes + 1 + lanes.bit_length()


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


def kinds(view: tuple[int, int, int], dtype: Any) -> Iterator[tuple[str, Array]]:
    """Yield `lines`, of many elements a few kinds; not the subnormal ones, whose mean is a pair of float32."""
    for kind, x in lines(view, dtype):
        if kind != "subnormal" and (x.size < 20000 or kind in ("normal", "far from zero", "ramp", "constant")):
            yield kind, x


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


def test_merge_is_the_formula_of_the_recipe_to_the_bit(compiled: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (3, 2, 1), (2, 5, 7), (1, 40, 3)):
        parts = Moments(rng.standard_normal(shape), rng.standard_normal(shape) * 1e-8, rng.random(shape))
        for count, last in ((64, 64), (64, 5), (1, 1)):
            actual = registry.load(compiled).merge(parts, count, last)
            for one, other in zip(actual, Reference().merge(parts, count, last), strict=True):
                np.testing.assert_array_equal(one, other)


# Against each other, to the bit


@each_view
@each_dtype
def test_all_compiled_backends_and_thread_counts_give_the_same_bits(
    view: tuple[int, int, int], dtype: Any, compiled_labels: list[str], threads_for_all: None
) -> None:
    backends = [(label, implementation(label)) for label in compiled_labels]
    for source in (lines, strange_lines):
        for kind, x in source(view, dtype):
            with fastnorm.config(num_threads=1):
                expected = dict(primitives(backends[0][1], x))
            for label, backend in backends:
                for threads in (1, 2, 3, 8) if view[1] * view[2] < 40000 else (1, 3):
                    with fastnorm.config(num_threads=threads):
                        for name, part in primitives(backend, x):
                            assert_same_bits(part, expected[name], f"{label}, {threads} threads, {kind}: {name}")


COMPOSED = [
    index for index, case in enumerate(CASES) if case.dtype in ("float32", "float64") and case.op not in BY_NUMPY
]


@pytest.mark.parametrize("index", COMPOSED, ids=lambda index: CASES[index].name)
def test_which_backend_served_with_how_many_threads_does_not_show(
    index: int,
    compiled_labels: list[str],
    serve: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    threads_for_all: None,
) -> None:
    case = CASES[index]
    args, kwargs = build(case, np.random.default_rng(index))

    def served(label: str, threads: int, lines_per_thread: float) -> Array:
        monkeypatch.setattr(tuning, "LINES_PER_THREAD", lines_per_thread)
        with fastnorm.config(backend=serve(label), num_threads=threads):
            return outcome(case, getattr(fastnorm, case.op)(*args, **kwargs))

    expected = served(compiled_labels[0], 1, 1)
    for label in compiled_labels:
        for threads in (1, 2, 3, 8):
            for lines_per_thread in (0, 10**9) if threads > 1 else (1,):  # fused; statistics first
                message = f"{label}, {threads} threads, {lines_per_thread} lines a thread"
                assert_same_bits(served(label, threads, lines_per_thread), expected, message)
