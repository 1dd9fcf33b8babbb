"""Every forward norm on every backend against the widest float, and the keywords that all of them share."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case, build, dtype_of, make_data, outcome, parts
from formulas import Parts, joined
from variants import serving

import fastnorm

Array = np.ndarray[Any, Any]

SINGLE, DOUBLE = 2.0**-24, 2.0**-53
# Half a unit in the last place, relative, and the least spacing of each result dtype.
PRECISION = {"float16": (2.0**-11, 2.0**-24), "bfloat16": (2.0**-8, 2.0**-133)}

# In float32 a normalised value has 2 roundings: d = x - centre, and the outer of two fused products with the scale.
# Both are pairs, whose rests are fused in. The contract, 4 units, leaves as many for statistics from float32 sums. In
# float64 these are no wider than the data: a chain of L additions adds L roundings at worst, and about their root if
# they are independent (Higham and Mary 2019). A lane of a row adds 4096 / 16 numbers; NumPy, the reference, a column.
LANE = 256


def roundings(case: Case, pieces: Parts, compute: np.dtype[Any], backend: str) -> float:
    """Return the error of a normalised value in units of the roundoff."""
    if compute != np.float64:
        return pieces.roundings
    chain = math.prod(case.shape) if backend == "reference" else LANE
    return pieces.roundings + (chain**0.5 if case.data == "normal" else chain)


def bound(pieces: Parts, y: Array, units: float, compute: np.dtype[Any], result: np.dtype[Any]) -> Array:
    """Return the largest error that the accuracy contract allows each element of y.

    With u the roundoff, n the normalised value, and y = n w + b: n has an error of `units` u max(1, |n|), which the
    weight scales; n w + b is rounded once where it is fused, u |y|, and where weight and scale are one number the bias
    is rounded first, by at most u |b| <= u (|n w| + |y|). A narrow result is rounded once more.
    """
    n = np.abs(pieces.normalized)
    error = units * np.maximum(1, n)
    if pieces.weight is not None or pieces.bias is not None:
        w = 1 if pieces.weight is None else np.abs(pieces.weight)
        error = (error + n) * w + np.abs(y)
    error = error * (DOUBLE if compute == np.float64 else SINGLE)
    half_unit, spacing = PRECISION.get(result.name, (0.0, 0.0))
    return error + half_unit * np.abs(y) + spacing / 2


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what the library computes in."""
    wide = dtype.itemsize > 4 or (dtype.kind in "iu" and dtype.itemsize > 2)
    return np.dtype(np.float64 if wide else np.float32)


def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what a norm returns."""
    narrow_float = dtype.name in ("float16", "bfloat16")
    return dtype if narrow_float else compute_dtype(dtype)


@cache
def prepared(index: int) -> tuple[tuple[Any, ...], dict[str, Any], Parts, Array]:
    """Return arguments and truth of a case, the same for all backends."""
    case = CASES[index]
    args, kwargs = build(case, np.random.default_rng(index))
    pieces = parts(case, args, kwargs)
    return args, kwargs, pieces, joined(pieces)


def call(case: Case, args: tuple[Any, ...], kwargs: dict[str, Any], backend: str) -> Array:
    """Call the public function of a case on a backend, and return the array to compare."""
    with fastnorm.config(backend=serving(case.op, backend)):
        return outcome(case, getattr(fastnorm, case.op)(*args, **kwargs))


def test_names_of_cases_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: CASES[index].name)
def test_every_case_is_as_near_to_the_truth_as_derived(index: int, backend: str) -> None:
    case = CASES[index]
    args, kwargs, pieces, y = prepared(index)
    before = [array.tobytes() for array in args if isinstance(array, np.ndarray)]
    result = call(case, args, kwargs, backend)
    dtype = dtype_of(case.dtype)
    assert result.shape == y.shape
    assert result.dtype == result_dtype(dtype)
    compute = compute_dtype(dtype)
    allowed = bound(pieces, y, roundings(case, pieces, compute, backend), compute, result.dtype)
    ratio = float(np.max(np.abs(result.astype(np.longdouble) - y) / allowed, initial=0))
    assert ratio <= 1, f"{ratio:.2f} of the bound"
    assert before == [array.tobytes() for array in args if isinstance(array, np.ndarray)], "an argument was changed"


# out= and dtype=


# Every function that takes out=, on float32 (6, 4, 10).
WITH_OUT: dict[str, dict[str, Any]] = {
    "layer_norm": {"weight": np.float32([1, 2] * 5), "bias": np.float32([3, 4] * 5)},
    "rms_norm": {"axis": 1},
    "batch_norm": {"training": True, "weight": np.float32([1, 2, 3, 4])},
    "instance_norm": {},
    "group_norm": {"num_groups": 2, "channel_axis": -1},
    "switchable_norm": {"mean_weight": [1, 2, 3], "var_weight": [3, 2, 1], "training": True},
    "pixel_norm": {},
    "l2_normalize": {},
    "lp_normalize": {"p": 3, "axis": 1},
    "local_response_norm": {"size": 3},
    "normalize": {"mean": np.zeros(10), "var": np.ones(10)},
    "standardize": {},
    "min_max_scale": {"axis": (0, 2)},
    "max_abs_scale": {},
    "weight_norm": {"g": np.float32([1, 2, 3, 4, 5, 6])},
    "weight_standardize": {},
    "spectral_norm": {},
    "clip_by_value": {"low": -0.5, "high": 0.5},
    "clip_by_norm": {"max_norm": 2.0, "axis": 0},
}
SHAPE = (6, 4, 10)
each_op = pytest.mark.parametrize("op", WITH_OUT)


def sample(seed: int = 0) -> Array:
    return make_data(SHAPE, "float32", "normal", 2.0, np.random.default_rng(seed))


def served(op: str, x: Any, backend: str, **keywords: Any) -> Array:
    """Call a function of `WITH_OUT`, and return its array."""
    with fastnorm.config(backend=serving(op, backend)):
        result = getattr(fastnorm, op)(x, **WITH_OUT[op] | keywords)
    return result.weight if op == "spectral_norm" else result


@each_op
def test_out_receives_the_result(op: str, backend: str) -> None:
    x, out = sample(), np.full(SHAPE, np.nan, np.float32)
    expected = served(op, x, backend)
    assert served(op, x, backend, out=out) is out
    np.testing.assert_array_equal(out, expected)


@each_op
def test_out_may_be_x(op: str, backend: str) -> None:
    x = sample()
    expected = served(op, x.copy(), backend)
    assert served(op, x, backend, out=x) is x
    np.testing.assert_array_equal(x, expected)


@each_op
@pytest.mark.parametrize("distance", [1, 10, -3])
def test_out_that_overlaps_x_partly_gives_the_result_of_no_overlap(op: str, distance: int, backend: str) -> None:
    size = int(np.prod(SHAPE))
    memory = np.zeros(size + 20, np.float32)
    x, out = (memory[start : start + size].reshape(SHAPE) for start in (10, 10 + distance))
    x[...] = sample()
    expected = served(op, x.copy(), backend)
    served(op, x, backend, out=out)
    np.testing.assert_array_equal(out, expected)


@each_op
@pytest.mark.parametrize("arrange", [lambda a: a[..., ::-1], lambda a: a.transpose(2, 0, 1)], ids=["reversed", "moved"])
def test_out_may_have_any_strides_and_be_x_seen_in_another_order(op: str, arrange: Any, backend: str) -> None:
    x = sample()
    expected = served(op, x, backend)
    out = arrange(np.empty(arrange(np.empty(SHAPE)).shape, np.float32))
    out = out if out.shape == SHAPE else np.empty((4, 10, 6), np.float32).transpose(2, 0, 1)
    served(op, x, backend, out=out)
    np.testing.assert_array_equal(out, expected)
    mirrored = x.copy()
    served(op, mirrored, backend, out=mirrored[:, ::-1])
    np.testing.assert_array_equal(mirrored[:, ::-1], expected)


DOWN = {name: {"axis": 0} for name in ("layer_norm", "rms_norm", "standardize", "min_max_scale", "max_abs_scale")}
DOWN |= {"pixel_norm": {"channel_axis": 0}, "batch_norm": {"training": True}}


@pytest.mark.parametrize("op", DOWN)
@pytest.mark.parametrize("axis", [0, 1])
def test_out_may_be_a_matrix_of_which_every_view_has_two_dimensions(op: str, axis: int, backend: str) -> None:
    x = make_data((70, 21), "float32", "normal", 2.0, np.random.default_rng(0))
    options = DOWN[op] | ({} if op == "batch_norm" else dict.fromkeys(DOWN[op], axis))
    expected = getattr(fastnorm, op)(x, **options, backend=backend)
    out = np.zeros_like(x).view(np.matrix)
    assert getattr(fastnorm, op)(x, **options, backend=backend, out=out) is out
    np.testing.assert_array_equal(np.asarray(out), expected)


def test_out_that_overlaps_weight_and_bias_gives_the_result_of_no_overlap(backend: str) -> None:
    x, out = sample().reshape(24, 10), sample(1).reshape(24, 10)
    expected = fastnorm.layer_norm(x, out[0].copy(), out[9].copy(), backend=backend)
    fastnorm.layer_norm(x, out[0], out[9], out=out, backend=backend)
    np.testing.assert_array_equal(out, expected)


@each_op
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", ">f8"])
def test_dtype_is_that_of_the_result(op: str, dtype: str, backend: str) -> None:
    x, target = sample(), dtype_of(dtype)
    result = served(op, x, backend, dtype=target)
    assert result.dtype == target
    np.testing.assert_array_equal(served(op, x, backend, dtype=target, out=np.empty(SHAPE, target)), result)
    if target.itemsize == 8:  # computed in float64, too
        np.testing.assert_array_equal(result, served(op, x.astype(np.float64), backend))
    else:
        np.testing.assert_array_equal(result, served(op, x, backend).astype(target))


# return_stats=


@pytest.mark.parametrize(
    ("op", "centred"),
    [
        ("layer_norm", True),
        ("rms_norm", False),
        ("batch_norm", True),
        ("instance_norm", True),
        ("group_norm", True),
        ("switchable_norm", True),
        ("normalize", True),
        ("standardize", True),
        ("pixel_norm", False),
        ("l2_normalize", False),
        ("min_max_scale", True),
        ("max_abs_scale", False),
        ("lp_normalize", False),
        ("local_response_norm", False),
        ("weight_norm", False),
        ("weight_standardize", True),
        ("spectral_norm", False),
        ("clip_by_norm", False),
    ],
)
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_return_stats_gives_what_the_result_was_made_from(op: str, centred: bool, kind: str, backend: str) -> None:
    x = make_data(SHAPE, kind, "normal", 2.0, np.random.default_rng(3))
    keywords = WITH_OUT[op] | ({} if op in ("layer_norm", "rms_norm", "switchable_norm") else {"dtype": "float64"})
    keywords = {key: value for key, value in keywords.items() if key not in ("weight", "bias")}
    keywords |= {"g": np.ones(6)} if op == "weight_norm" else {}
    keywords["backend"] = serving(op, backend)
    y, stats = getattr(fastnorm, op)(x, **keywords, return_stats=True)
    plain = getattr(fastnorm, op)(x, **keywords)
    y, plain = (y.weight, plain.weight) if op == "spectral_norm" else (y, plain)
    np.testing.assert_array_equal(y, plain)
    assert stats.mean.dtype == stats.rstd.dtype == np.float64
    assert stats.mean.shape == stats.rstd.shape
    assert stats.mean.ndim == x.ndim, "the statistics broadcast against x"
    assert centred or not stats.mean.any()
    tolerance = 1e-13 if y.dtype == np.float64 else 2e-6
    np.testing.assert_allclose((x - stats.mean) * stats.rstd, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("axis", [-1, 1, 0, (1, 2), (0, 1, 2)])
def test_return_stats_of_layer_norm_has_the_mean_and_the_reciprocal_deviation(axis: Any, backend: str) -> None:
    x = sample()
    _, stats = fastnorm.layer_norm(x, axis=axis, eps=1e-3, return_stats=True, backend=backend)
    wide = x.astype(np.longdouble)
    mean = wide.mean(axis, keepdims=True)
    rstd = 1 / np.sqrt(((wide - mean) ** 2).mean(axis, keepdims=True) + np.longdouble(1e-3))
    assert stats.mean.shape == mean.shape
    np.testing.assert_allclose(stats.mean, mean.astype(np.float64), rtol=2 * SINGLE)
    np.testing.assert_allclose(stats.rstd, rstd.astype(np.float64), rtol=4 * SINGLE)


@pytest.mark.parametrize(("axis", "shape"), [(1, (6, 4, 1)), (-1, (6, 1, 10))])
def test_return_stats_of_norms_by_item_has_a_number_for_each_item_and_channel(
    axis: int, shape: tuple[int, ...], backend: str
) -> None:
    x = sample()
    for y, stats in (
        fastnorm.instance_norm(x, channel_axis=axis, return_stats=True, backend=backend),
        fastnorm.group_norm(x, 2, channel_axis=axis, return_stats=True, backend=backend),
        fastnorm.switchable_norm(
            x, [0, 0, 0], [0, 0, 0], training=True, channel_axis=axis, return_stats=True, backend=backend
        ),
    ):
        assert stats.mean.shape == stats.rstd.shape == shape
        np.testing.assert_allclose((x - stats.mean) * stats.rstd, y, rtol=2e-6, atol=2e-6)
    _, stats = fastnorm.batch_norm(x, training=True, channel_axis=axis, return_stats=True, backend=backend)
    assert stats.mean.shape == (1, *shape[1:])


def test_clip_by_value_with_an_open_end(backend: str) -> None:
    x = np.array([-np.inf, -3.0, 0.5, 7.0, np.nan], np.float32)
    for ends in ((None, 1), (-1, None), (None, None)):
        np.testing.assert_array_equal(fastnorm.clip_by_value(x, *ends, backend=backend), np.clip(x, *ends))


def test_clip_by_value_has_nothing_but_neutral_statistics() -> None:
    y, stats = fastnorm.clip_by_value(sample(), -1, 1, return_stats=True)
    np.testing.assert_array_equal(y, fastnorm.clip_by_value(sample(), -1, 1))
    assert stats.mean.shape == stats.rstd.shape == (1, 1, 1)
    assert (stats.mean.item(), stats.rstd.item()) == (0.0, 1.0)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_return_stats_of_weight_norm_has_the_reciprocal_lengths(axis: int | None, backend: str) -> None:
    v = sample()
    lengths = np.ones(1 if axis is None else SHAPE[axis])
    _, stats = fastnorm.weight_norm(v, lengths, axis=axis, return_stats=True, backend=backend)
    axes = tuple(a for a in range(3) if axis is None or a != axis % 3)
    expected = 1 / np.sqrt((v.astype(np.longdouble) ** 2).sum(axes, keepdims=True))
    assert stats.rstd.shape == expected.shape
    np.testing.assert_allclose(stats.rstd, expected.astype(np.float64), rtol=4 * SINGLE)


# Several results: clip_by_global_norm and fold_batch_norm


def test_out_of_clip_by_global_norm_may_be_the_arrays_in_any_order(backend: str) -> None:
    arrays = [sample(), sample(1)]
    expected, stats = fastnorm.clip_by_global_norm(arrays, 2.0, return_stats=True, backend=backend)
    assert stats.rstd.shape == ()
    np.testing.assert_allclose(arrays[1] * stats.rstd, expected.arrays[1], rtol=4 * SINGLE)
    np.testing.assert_allclose(2.0 / expected.global_norm, stats.rstd)
    swapped = [array.copy() for array in arrays]
    result = fastnorm.clip_by_global_norm(swapped, 2.0, out=swapped[::-1], backend=backend)
    assert result.arrays[0] is swapped[1]
    np.testing.assert_array_equal(swapped[1], expected.arrays[0])
    np.testing.assert_array_equal(swapped[0], expected.arrays[1])
    fastnorm.clip_by_global_norm(arrays, 2.0, out=arrays, backend=backend)
    np.testing.assert_array_equal(arrays, expected.arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_fold_batch_norm_writes_where_it_is_told(dtype: str) -> None:
    rng = np.random.default_rng(0)
    weight, bias, mean, gamma, beta = (rng.standard_normal(s).astype("f4") for s in ((6, 5), 6, 6, 6, 6))
    var = rng.random(6)
    numbers = (mean, var, gamma, beta)
    expected, stats = fastnorm.fold_batch_norm(weight, bias, *numbers, dtype=dtype, return_stats=True)
    assert expected.weight.dtype == expected.bias.dtype == dtype
    np.testing.assert_allclose(stats.rstd, 1 / np.sqrt(var[:, np.newaxis] + 1e-5))
    np.testing.assert_array_equal(stats.mean, mean[:, np.newaxis].astype(np.float64))
    out = (weight.astype(dtype), bias.astype(dtype))
    result = fastnorm.fold_batch_norm(weight, bias, *numbers, dtype=dtype, out=out)
    assert result.weight is out[0]
    assert result.bias is out[1]
    for ours, theirs in zip(out, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if dtype != "float64":
        single = fastnorm.fold_batch_norm(weight, bias, *numbers, dtype="float64")
        np.testing.assert_array_equal(result.weight, single.weight.astype(dtype))


def test_statistics_of_empty_arrays_have_the_shape_that_broadcasts(backend: str) -> None:
    nothing = np.empty((0, 5), np.float32)
    for y, stats in (
        fastnorm.weight_norm(nothing, np.empty(0), return_stats=True, backend=backend),
        fastnorm.weight_standardize(nothing, return_stats=True, backend=backend),
        fastnorm.lp_normalize(nothing, p=3, return_stats=True, backend=backend),
        fastnorm.clip_by_norm(nothing, 1.0, axis=1, return_stats=True, backend=backend),
    ):
        assert y.shape == (0, 5)
        assert stats.mean.shape == stats.rstd.shape == (0, 1)


@pytest.mark.parametrize("shape", [(7, 12), (1, 12), (300, 96), (5, 12, 1), (5, 1, 1, 12)])
@pytest.mark.parametrize("num_groups", [1, 3, 12])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_groups_of_single_values_are_rows(shape: tuple[int, ...], num_groups: int, dtype: str, backend: str) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    axis = int(np.argmax(shape[1:])) + 1
    channels = shape[axis]
    weight, bias = (rng.standard_normal(channels).astype(dtype) for _ in range(2))
    options = {"channel_axis": axis, "backend": backend}
    y, stats = fastnorm.group_norm(x, num_groups, weight, bias, return_stats=True, **options)
    found = fastnorm.group_norm_backward(dy, x, num_groups, weight, **options)
    given = fastnorm.group_norm_backward(dy, x, num_groups, weight, **stats._asdict(), **options)

    # The formulas, in the widest float.
    groups = (len(x), num_groups, channels // num_groups)
    wide, upstream, w = (part.astype(np.longdouble) for part in (x, dy, weight))
    lines = wide.reshape(groups)
    rstd = 1 / np.sqrt(lines.var(axis=2, keepdims=True) + np.longdouble(1e-5))
    xhat = (lines - lines.mean(axis=2, keepdims=True)) * rstd
    g = (upstream.reshape(len(x), channels) * w).reshape(groups)
    dx = rstd * (g - g.mean(axis=2, keepdims=True) - xhat * (g * xhat).mean(axis=2, keepdims=True))
    flat = xhat.reshape(len(x), channels)
    expected = flat * w + bias
    roundoff = float(np.finfo(dtype).eps) / 2
    # The contract of the norms, 4 units of max(1, |xhat|) times the weight, and the roundings of result and sum; in
    # float64 the reference's sums, of up to 96 elements, have roundings of their own.
    limit = roundoff * 8 * (np.maximum(1, np.abs(flat)) * np.maximum(1, np.abs(w)) + np.abs(bias) + np.abs(expected))
    assert (np.abs(y.reshape(expected.shape) - expected) <= limit).all()
    # Each term of a gradient, and of a sum of products, has a few roundings.
    spread = np.ones(groups[2]) if groups[2] == 1 else np.abs(g).max(axis=2, keepdims=True) * (1 + xhat**2)
    size = (rstd * (np.abs(g) + spread)).reshape(dx.shape)
    dweight, dbias = (upstream.reshape(flat.shape) * flat).sum(axis=0), upstream.reshape(flat.shape).sum(axis=0)
    terms = np.abs(upstream.reshape(flat.shape)) * (1 + np.abs(flat))
    for gradients in (found, given):
        assert gradients.dx.dtype == gradients.dweight.dtype == np.dtype(dtype)
        assert (np.abs(gradients.dx.reshape(groups) - dx) <= 16 * roundoff * size).all()
        for part, exact in ((gradients.dweight, dweight), (gradients.dbias, dbias)):
            assert (np.abs(part - exact) <= 4 * roundoff * terms.sum(axis=0)).all()


def test_groups_of_single_values_do_not_depend_on_the_batch(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float32)
    weight = np.linspace(-1, 1, 24, dtype=np.float32)
    y = fastnorm.group_norm(x, 4, weight, weight, backend=backend)
    dx = fastnorm.group_norm_backward(x[::-1], x, 4, weight, backend=backend).dx
    for rows in (slice(3, 4), slice(10, 27)):
        np.testing.assert_array_equal(fastnorm.group_norm(x[rows], 4, weight, weight, backend=backend), y[rows])
        part = fastnorm.group_norm_backward(x[::-1][rows], x[rows], 4, weight, backend=backend).dx
        np.testing.assert_array_equal(part, dx[rows])


def test_clipping_keeps_the_sign_of_zeros(backend: str) -> None:
    x = np.array([[-0.0, 3.0], [0.0, -4.0]], np.float32)
    for y in (fastnorm.clip_by_norm(x, 1.0, backend=backend), fastnorm.clip_by_norm(x, 1.0, axis=1, backend=backend)):
        np.testing.assert_array_equal(np.signbit(y), np.signbit(x))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_spectral_norm_has_the_same_bits_whatever_is_asked_for_besides(dtype: str) -> None:
    w = np.random.default_rng(0).standard_normal((64, 48)).astype(dtype)
    plain = fastnorm.spectral_norm(w).weight
    in_fortran_order = fastnorm.spectral_norm(np.asfortranarray(w)).weight
    assert in_fortran_order.flags.c_contiguous
    np.testing.assert_allclose(in_fortran_order, plain, rtol=1e-3 if dtype == "float16" else 1e-6)
    for keywords in ({"out": np.empty_like(w)}, {"dtype": dtype}, {"backend": "reference"}):
        np.testing.assert_array_equal(fastnorm.spectral_norm(w, **keywords).weight, plain)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 5, 33, 70_000, 140_003])
def test_clipping_by_value_leaves_what_is_within_its_bits(size: int, dtype: Any, backend: str) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(dtype)
    x[::7], x[1::11], x[2::13], x[3::17] = np.nan, -0.0, np.inf, -np.inf
    for low, high in ((-0.5, 0.5), (0.0, 1.0), (-0.0, 2.0), (-1.0, -0.0), (-np.inf, 0.0), (-1e300, 1e300)):
        with np.errstate(over="ignore"):
            least, most = dtype(low), dtype(high)
        expected, within = np.clip(x, least, most), ~((x < least) | (x > most))
        for keywords in ({"backend": backend}, {}, {"out": x.copy()}):
            y = fastnorm.clip_by_value(x, low, high, **keywords)
            np.testing.assert_array_equal(y, expected)
            assert y[within].tobytes() == x[within].tobytes()


@pytest.mark.parametrize("p", [3, 4, 8, 9, 2.5])
def test_powers_of_lp_norms(p: float, backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 20_000))
    expected = x / (np.abs(x) ** p).sum(axis=-1, keepdims=True) ** (1 / p)
    np.testing.assert_allclose(fastnorm.lp_normalize(x, p=p, backend=backend), expected, rtol=1e-13)
    single = fastnorm.lp_normalize(x.astype(np.float32), p=p, backend=backend)
    np.testing.assert_allclose(single, expected, rtol=1e-6, atol=1e-9)


def with_residual(norm: Any, x: Array, operand: Array, backend: str, **out: Array) -> Any:
    """Call a norm of (24, 10, 4) with another array that it reads."""
    if norm is fastnorm.batch_norm:
        return norm(x, np.zeros(10), np.ones(10), residual=operand, backend=backend, **out)
    if norm is fastnorm.group_norm:
        return norm(x, 5, residual=operand, backend=backend, **out)
    return norm(x, residual=operand, backend=backend, **out)


@pytest.mark.parametrize("norm", [fastnorm.layer_norm, fastnorm.batch_norm, fastnorm.group_norm])
def test_out_that_overlaps_a_residual_gives_the_result_of_no_overlap(norm: Any, backend: str) -> None:
    memory = np.random.default_rng(1).standard_normal((26, 10, 4)).astype(np.float32)
    x = sample().reshape(24, 10, 1).repeat(4, axis=2) + memory[:24]
    expected = with_residual(norm, x, memory[:24].copy(), backend)
    np.testing.assert_array_equal(with_residual(norm, x, memory[:24], backend, out=memory[1:25]), expected)


def test_axes_come_in_any_order(backend: str) -> None:
    x = sample()
    for axes in ((1, 2), (2, 1), (-1, 1)):
        y = fastnorm.layer_norm(x, axis=axes, backend=backend)
        np.testing.assert_array_equal(y, fastnorm.layer_norm(x.reshape(6, 40), backend=backend).reshape(SHAPE))
    found = fastnorm.moments(x, axis=(2, 0), algorithm="naive", backend=backend).mean
    np.testing.assert_array_equal(found, fastnorm.moments(x, axis=(0, 2), algorithm="naive", backend=backend).mean)


def test_statistics_of_lines_without_elements_are_nan(backend: str) -> None:
    _, stats = fastnorm.layer_norm(np.empty((3, 0)), return_stats=True, backend=backend)
    assert np.isnan(stats.mean).all()
    assert np.isnan(stats.rstd).all()
