"""Backward passes, activations and int8 lines: every compiled backend against every other, to the bit."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from kernel_data import assert_bits, lines, strange_lines, weights
from variants import implementation

import fastnorm
from fastnorm.activations import FORMULAS, Activation, Scalar
from fastnorm.backends.reference import Reference
from fastnorm.recipe import Fusion, Measure, Rule

Array = np.ndarray[Any, Any]

# Around the borders of a bundle, a block, a chunk; of the rows whose sums are made together, 64 and 256.
ROW_VIEWS = [(5, 1, 1), (2, 31, 1), (7, 33, 1), (3, 96, 1), (2, 4096, 1), (3, 4097, 1), (2, 65537, 1)]
ROW_VIEWS += [(65, 6, 1), (300, 129, 1), (66000, 2, 1)]
# Around those of a tile, 128 float32 or 64 float64, too.
COLUMN_VIEWS = [(4, 1, 5), (3, 5, 3), (1, 8, 33), (2, 65, 17), (1, 1024, 40), (2, 1025, 5), (1, 2113, 33), (3, 9, 513)]
COLUMN_VIEWS += [(2, 6, inner) for inner in (15, 16, 31, 63, 64, 65, 127, 128, 129)]
each_view = pytest.mark.parametrize("view", [*ROW_VIEWS, *COLUMN_VIEWS], ids=str)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

RULES = [
    Rule(eps=1e-5),
    Rule(eps=0.0, ddof=0.5),  # with tiny and large numbers beyond the range of float32 coefficients
    Rule(measure=Measure.SQUARES, eps=1e-6),
    Rule(measure=Measure.SQUARES, eps=1e-12, floor=True, summed=True),
    Rule(measure=Measure.SQUARES, eps=1e3, floor=True, summed=True),  # a constant for most lines
]


def spaced(x: Array, gap: int) -> Array:
    """A copy of x whose lines, or rows of lines side by side, are `gap` elements apart."""
    outer, reduce, inner = x.shape
    room = np.full((outer, reduce + gap, 1) if inner == 1 else (outer, reduce + 1, inner + gap), np.nan, x.dtype)
    room[:, :reduce, :inner] = x
    return room[:, :reduce, :inner]


def gradients(backend: Reference, x: Array, dy: Array, dx: Array, rules: list[Rule]) -> Iterator[tuple[str, Array]]:
    """Yield all that a backend makes of x and dy, of every form that the library uses; dx is where it writes."""
    outer, reduce, inner = x.shape
    rng = np.random.default_rng(1)
    for count in {1, outer}:
        mean = rng.standard_normal((count, inner))
        sums, products = backend.dots(x, dy, mean)
        yield f"dots, {count} lines: sums", sums
        yield f"dots, {count} lines: products", products
        backend.affine_grad(x, dy, dx, mean, *(rng.standard_normal((count, inner)) for _ in range(3)))
        yield f"affine_grad, {count} lines", dx.copy()
    if inner > 1:
        return
    given = rng.standard_normal(outer), np.exp(rng.standard_normal(outer))
    given[1][::3] *= 1e20  # beyond the range of float32 coefficients
    forms = [(weights(reduce, x.dtype)[0], True, 1), (np.ones(1, x.dtype), False, 1)]
    if reduce % 3 == 0:
        forms += [(weights(3, x.dtype)[0], False, 3), (weights(3 * outer, x.dtype)[0] * x.dtype.type(1e20), False, 3)]
    for rule in rules:
        for statistics in (None, given):
            for number, (weight, per_position, segments) in enumerate(forms):
                label = f"normalize_grad, {rule}, form {number}, {'none' if statistics is None else 'given'}"
                found = backend.normalize_grad(x, dy, dx, weight, per_position, segments, rule, statistics, True)
                assert found is not None
                yield f"{label}: dx", dx.copy()
                yield f"{label}: products", found[0]
                yield f"{label}: sums", found[1]
                dx.fill(np.nan)
                assert (
                    backend.normalize_grad(x, dy, dx, weight, per_position, segments, rule, statistics, False) is None
                )
                yield f"{label}: dx alone", dx.copy()


@each_view
@each_dtype
def test_gradients_have_the_same_bits_on_all_compiled_backends_and_thread_counts(
    view: tuple[int, int, int], dtype: Any, compiled_labels: list[str], threads_for_all: None
) -> None:
    backends = [(label, implementation(label)) for label in compiled_labels]
    large = np.prod(view) > 30000
    rules = RULES[1:4:2] if large else RULES
    for source in (lines, strange_lines):
        for kind, x in source(view, dtype):
            if large and kind not in ("normal", "large", "inf"):
                continue
            upstream = np.random.default_rng([2, *view]).standard_normal(view).astype(dtype)
            if kind == "large":  # their sums of products overflow in float32
                upstream *= dtype(1e30)
            with np.errstate(all="ignore"), fastnorm.config(num_threads=1):
                expected = dict(gradients(backends[0][1], x, upstream, np.empty_like(x), rules))
            for label, backend in backends:
                for threads, gap in ((1, 0), (3, 5)) if large else ((1, 5), (2, 0), (3, 5), (8, 0)):
                    arrays = x, upstream, np.empty_like(x)
                    if gap > 0:
                        arrays = spaced(x, gap), spaced(upstream, gap + 2), spaced(x, gap - 2)
                    with np.errstate(all="ignore"), fastnorm.config(num_threads=threads):
                        for name, part in gradients(backend, *arrays, rules):
                            message = f"{label}, {threads} threads, {kind}, {gap} elements apart: {name}"
                            assert_bits(part, expected[name], message)


def test_what_lies_between_lines_is_left_alone(compiled: str) -> None:
    backend = implementation(compiled)
    for view in ((3, 33, 1), (2, 5, 33)):
        x = np.random.default_rng(view).standard_normal(view).astype(np.float32)
        dx = spaced(x, 5)
        coefficients = np.ones((4, view[0], view[2]))
        backend.affine_grad(x, x, dx, *coefficients)
        if view[2] == 1:
            backend.normalize_grad(x, x, dx, np.ones(33, np.float32), True, 1, RULES[0], None, False)
        room = dx.base
        assert room is not None
        assert np.isnan(room).sum() == room.size - x.size


# (op, shape, arguments after x, keywords); the weight is along the channels, or the last axis.
ROWS = [(op, shape, (), {}) for op in ("layer_norm", "rms_norm") for shape in ((6, 4097), (3, 5, 33), (300, 70))]
CHANNELS = [
    (op, shape, groups, {"channel_axis": axis, **keywords})
    for op, groups, keywords in (
        ("batch_norm", (), {"training": True}),
        ("batch_norm", (), {"running_mean": np.linspace(-1, 1, 12), "running_var": np.linspace(0.5, 2, 12)}),
        ("group_norm", (4,), {}),
        ("instance_norm", (), {}),
    )
    for shape, axis in (((3, 12, 40), 1), ((2, 12, 9, 9), 1), ((1030, 4, 12), -1), ((3, 5, 12, 7), 2))
]
LINES = [("pixel_norm", (2, 12, 9, 9), (), {}), ("pixel_norm", (5, 12), (), {})]
LINES += [("l2_normalize", (2, 12, 9, 9), (), {"axis": axis}) for axis in (1, -1)]


@pytest.mark.parametrize(("op", "shape", "args", "keywords"), [*ROWS, *CHANNELS, *LINES])
@each_dtype
def test_which_backend_served_a_backward_pass_does_not_show(
    op: str,
    shape: tuple[int, ...],
    args: tuple[int, ...],
    keywords: dict[str, Any],
    dtype: Any,
    compiled_labels: list[str],
    serve: Callable[[str], str],
    threads_for_all: None,
) -> None:
    weight = weights(shape[keywords.get("channel_axis", -1)], dtype)[:1]
    plain = np.random.default_rng(shape).standard_normal((2, *shape)).astype(dtype)
    for dy, x in (plain, (np.asfortranarray(part) for part in plain)):
        for parameters in ((),) if op in ("pixel_norm", "l2_normalize") else ((), weight):
            expected: list[Array | None] = []
            for label in compiled_labels:
                for threads in (1, 3):
                    with fastnorm.config(backend=serve(label), num_threads=threads):
                        found = getattr(fastnorm, f"{op}_backward")(dy, x, *args, *parameters, **keywords)
                    expected = expected or list(found)
                    for part, wanted in zip(found, expected, strict=True):
                        assert (part is None) == (wanted is None)
                        if part is not None and wanted is not None:
                            assert_bits(part, wanted, f"{label}, {threads} threads, {len(parameters)} weights")


def numbers(dtype: Any) -> Array:
    """Numbers of every size, and those around which formulas change."""
    borders = np.array([9.0, 87.0, 88.0, 200.0, 800.0], dtype)
    borders = np.concatenate([np.nextafter(borders, dtype(0)), borders, np.nextafter(borders, dtype(np.inf))])
    info = np.finfo(dtype)
    exponents = np.arange(20000) % (info.maxexp - info.minexp + info.nmant) + (info.minexp - info.nmant)
    sizes = np.ldexp(np.linspace(1, 2, 20000, endpoint=False).astype(dtype), exponents)
    special = np.array([0.0, np.inf, np.nan], dtype)
    one_sign = np.concatenate([borders, sizes, special, np.linspace(0, 12, 20000).astype(dtype)])
    return np.concatenate([one_sign, -one_sign])


@pytest.mark.parametrize("name", FORMULAS)
@each_dtype
def test_activations_have_the_same_bits(
    name: str, dtype: Any, compiled_labels: list[str], threads_for_all: None
) -> None:
    y = numbers(dtype)
    for size in (1, 31, 33, 8191, 8192, 8193, y.size):
        expected = None
        for label in compiled_labels:
            for threads in (1, 3):
                found = np.random.default_rng(size).permutation(y)[:size]
                with fastnorm.config(num_threads=threads):
                    implementation(label).after(Fusion(None, None, Activation(name)), found)
                expected = found if expected is None else expected
                assert_bits(found, expected, f"{label}, {threads} threads, {size} numbers")


@each_dtype
def test_functions_of_the_user_and_int8_lines_have_the_same_bits(
    dtype: Any, compiled_labels: list[str], threads_for_all: None
) -> None:
    numba = pytest.importorskip("numba", reason="scalar functions are compiled by numba")
    hard_swish = Scalar(numba.njit(lambda x: x * min(max(x + 3.0, 0.0), 6.0) / 6.0))
    for view in ((3, 33, 1), (300, 64, 1), (2, 9000, 1)):
        for source in (lines, strange_lines):
            for kind, addend in source(view, dtype):
                expected: list[Array] = []
                weight, bias = weights(view[1], dtype)
                residual = np.random.default_rng(3).standard_normal(view).astype(dtype)
                for label in compiled_labels:
                    for activation in (hard_swish, Activation("gelu")):
                        x, y, unread = (np.empty_like(addend) for _ in range(3))
                        quantized = np.empty(view, np.int8), np.empty((view[0], 1), np.float32)
                        with np.errstate(all="ignore"), fastnorm.config(num_threads=3):
                            for result, int8_lines in ((y, None), (unread, quantized)):
                                implementation(label).normalize_fused(
                                    Fusion(addend, residual, activation, int8_lines),
                                    x, result, weight, bias, True, 1, Rule(eps=1e-5), False,
                                )  # fmt: skip
                        expected += [x, y, *quantized] if label == compiled_labels[0] else []
                        place = 0 if activation is hard_swish else 4
                        for part, wanted in zip((x, y, *quantized), expected[place : place + 4], strict=True):
                            assert_bits(part, wanted, f"{label}, {kind}, {activation.name}")
