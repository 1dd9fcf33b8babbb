"""Moments, extrema and the Welford state, against NumPy and SciPy."""

import copy
import pickle
import struct
import warnings
from math import fsum
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats

import fastnorm
from fastnorm.backends.textbook import ALGORITHMS
from fastnorm.stats.bounds import relative_error_bound

Array = np.ndarray[Any, Any]
NAMES = ("auto", *ALGORITHMS)
AXES = [None, 0, 1, -1, (0, 2), (1, 2), (0, 1, 2), (2, 0), ()]


def sample(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 3 + 5).astype(dtype)


# Moments


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("ddof", [0, 1, 0.5])
def test_moments_are_those_of_numpy(axis: Any, keepdims: bool, ddof: float, backend: str) -> None:
    x = sample(4, 6, 70)
    result = fastnorm.moments(x, axis=axis, keepdims=keepdims, ddof=ddof, backend=backend)
    mean = x.mean(axis=axis, keepdims=keepdims)
    count = x.size // mean.size
    assert np.shape(result.mean) == np.shape(result.m2) == mean.shape
    assert np.all(result.count == count)
    np.testing.assert_allclose(result.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(result.m2, x.var(axis=axis, keepdims=keepdims) * count, rtol=1e-12, atol=1e-13)
    if count > ddof:
        np.testing.assert_allclose(result.var, x.var(axis=axis, keepdims=keepdims, ddof=ddof), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(result.std, x.std(axis=axis, keepdims=keepdims, ddof=ddof), rtol=1e-12, atol=1e-13)


def test_moments_are_compared_as_objects() -> None:
    x = sample(3, 4)
    found = fastnorm.moments(x, axis=0)
    same = found
    assert found == same
    assert found != fastnorm.moments(x, axis=0)
    assert len({found, fastnorm.moments(x, axis=0)}) == 2


def test_moments_of_a_whole_array_are_scalars() -> None:
    for x in (sample(3, 4), [1, 2, 3], 5.0, np.float32(2)):
        result = fastnorm.moments(x)
        assert all(isinstance(part, np.float64) for part in (result.mean, result.var, result.std, result.m2))
    assert fastnorm.moments(5).mean == 5
    assert fastnorm.moments(5).var == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [None, 0, (0, 2), -1], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_every_algorithm_is_right_on_easy_data(name: Any, axis: Any, dtype: Any) -> None:
    x = sample(4, 5, 33, dtype=dtype)
    result = fastnorm.moments(x, axis=axis, algorithm=name, ddof=1)
    wide = x.astype(np.float64)
    tolerance = {np.float32: 1e-4, np.int16: 1e-6 if name == "auto" else 1e-12, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(result.mean, wide.mean(axis), rtol=tolerance)
    np.testing.assert_allclose(result.var, wide.var(axis, ddof=1), rtol=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_every_algorithm_takes_short_lines(name: Any, length: int) -> None:
    x = sample(3, length)
    result = fastnorm.moments(x, axis=1, algorithm=name)
    np.testing.assert_allclose(result.mean, x.mean(1), rtol=1e-14)
    np.testing.assert_allclose(result.var, x.var(1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_weights_count_as_repetitions_do(name: Any) -> None:
    x = sample(5, 40)
    weights = np.random.default_rng(1).integers(0, 4, (5, 40))
    weights[0, :3] = 0
    result = fastnorm.moments(x, axis=1, weights=weights, algorithm=name, ddof=1)
    repeated = [np.repeat(line, count) for line, count in zip(x, weights, strict=True)]
    np.testing.assert_array_equal(result.count, weights.sum(1))
    np.testing.assert_allclose(result.mean, [line.mean() for line in repeated], rtol=1e-13)
    np.testing.assert_allclose(result.var, [line.var(ddof=1) for line in repeated], rtol=1e-12)


@pytest.mark.parametrize("axis", [None, 0, 1], ids=str)
def test_weighted_moments_against_numpy_average(axis: Any) -> None:
    x, weights = sample(6, 50), np.random.default_rng(2).random((6, 50))
    result = fastnorm.moments(x, axis=axis, weights=weights)
    mean = np.average(x, axis=axis, weights=weights, keepdims=True)
    np.testing.assert_allclose(result.mean, np.squeeze(mean), rtol=1e-13)
    np.testing.assert_allclose(result.var, np.average((x - mean) ** 2, axis=axis, weights=weights), rtol=1e-12)
    column = fastnorm.moments(x, axis=1, weights=weights[0])
    np.testing.assert_allclose(column.mean, np.average(x, axis=1, weights=weights[0]), rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [None, 0, (0, 1)], ids=str)
def test_where_leaves_out_even_what_is_no_number(name: Any, axis: Any) -> None:
    x = sample(6, 5, 4)
    where = np.random.default_rng(3).random(x.shape) < 0.7
    where[:2] = True
    damaged = np.where(where, x, np.where(x > 5, np.nan, np.inf))
    result = fastnorm.moments(damaged, axis=axis, where=where, algorithm=name)
    np.testing.assert_allclose(result.mean, x.mean(axis, where=where), rtol=1e-13)
    np.testing.assert_allclose(result.var, x.var(axis, where=where), rtol=1e-12)
    np.testing.assert_array_equal(result.count, where.sum(axis))


@pytest.mark.parametrize("name", NAMES)
def test_moments_of_nothing_are_nan_with_the_warning_of_numpy(name: Any, backend: str) -> None:
    for x, axis, shape in (
        (np.empty(0), None, ()),
        (np.empty((3, 0)), 1, (3,)),
        (np.empty((0, 2), np.float32), 0, (2,)),
    ):
        with pytest.warns(RuntimeWarning, match="mean of empty lines"):
            result = fastnorm.moments(x, axis=axis, algorithm=name, backend=backend)
        assert np.shape(result.mean) == np.shape(result.var) == shape
        assert np.isnan(result.mean).all()
        assert np.isnan(result.var).all()
        assert np.all(result.count == 0)
    with pytest.warns(RuntimeWarning, match="mean of empty lines"):
        result = fastnorm.moments([[1.0, 2.0], [3.0, 4.0]], axis=1, where=[[False], [True]], algorithm=name)
    np.testing.assert_array_equal(np.isnan(result.mean), [True, False])
    np.testing.assert_array_equal(np.isnan(result.var), [True, False])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no line at all: nothing to warn of
        assert fastnorm.moments(np.empty((0, 3)), axis=1, algorithm=name).mean.shape == (0,)


@pytest.mark.parametrize("ddof", [2, 2.5, 3])
def test_a_variance_is_never_negative_even_where_ddof_leaves_nothing(ddof: float) -> None:
    result = fastnorm.moments([1.0, 2.0], ddof=ddof)
    assert not result.var < 0
    assert not np.isfinite(result.std)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">u2", "<i4", ">i8", "u8", "?", ">f4", ">f8", "<f2"])
def test_moments_of_every_dtype_are_float64(dtype: str, backend: str) -> None:
    x = (sample(7, 300) * 5).astype(dtype)
    result = fastnorm.moments(x, axis=1, backend=backend)
    wide = x.astype(np.float64)
    assert result.mean.dtype == result.var.dtype == np.float64
    np.testing.assert_allclose(result.mean, wide.mean(1), rtol=1e-6)
    np.testing.assert_allclose(result.var, wide.var(1), rtol=1e-6)


def test_float16_and_bytes_do_not_overflow(backend: str) -> None:
    x = np.full(70000, 60000, np.float16)
    x[::2] = -60000
    result = fastnorm.moments(x, backend=backend)
    assert result.mean == 0
    np.testing.assert_allclose(result.var, 60000.0**2, rtol=2e-3)
    assert fastnorm.moments(np.full(10**5, 255, np.uint8), backend=backend).mean == 255


def test_the_naive_algorithm_loses_digits_on_shifted_data_and_the_others_do_not() -> None:
    x = sample(20000, dtype=np.float32) + np.float32(1e4)
    truth = x.astype(np.longdouble).var()
    error = {name: abs(float(fastnorm.moments(x, algorithm=name).var / truth) - 1) for name in NAMES}
    assert error["naive"] > 0.1
    assert error["auto"] < 1e-6
    assert error["compensated"] < 1e-6
    assert error["two_pass"] < 0.5, "the mean of its first pass has lost digits"
    assert all(error[name] < 1e-4 for name in NAMES if name not in ("naive", "two_pass"))


def test_the_naive_algorithm_may_give_a_negative_sum_of_squares_and_hides_it_not() -> None:
    x = np.float32(1e4) + np.float32(1e-3) * np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    signs = {np.sign(fastnorm.moments(x[k:], algorithm="naive").m2) for k in range(20)}
    assert -1 in signs


# Extrema


@pytest.mark.parametrize("axis", AXES[:-1], ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", ">f4", "u1", "i2", ">i4", "i8", "u8", "?"])
def test_extrema_are_those_of_numpy(axis: Any, dtype: str, backend: str) -> None:
    x = (sample(4, 6, 70) * 10 - 40).astype("i4" if dtype[-2:] not in ("f4", "f8", "f2") else dtype).astype(dtype)
    for keepdims in (False, True):
        low, high = fastnorm.extrema(x, axis=axis, keepdims=keepdims, backend=backend)
        np.testing.assert_array_equal(low, x.min(axis=axis, keepdims=keepdims))
        np.testing.assert_array_equal(high, x.max(axis=axis, keepdims=keepdims))
        assert np.asarray(low).dtype == np.asarray(high).dtype == x.dtype.newbyteorder("=")


@pytest.mark.parametrize("length", [1, 2, 31, 33, 1025, 4097, 65537])
@pytest.mark.parametrize("position", [0, 0.5, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_extrema_of_a_line_with_nan_are_nan(length: int, position: float, axis: int, backend: str) -> None:
    x = sample(3, length, dtype=np.float32)
    x[1, int((length - 1) * position)] = np.nan
    low, high = fastnorm.extrema(x if axis == 1 else np.ascontiguousarray(x.T), axis=axis, backend=backend)
    np.testing.assert_array_equal(low, x.min(1))
    np.testing.assert_array_equal(high, x.max(1))


def test_extrema_of_wide_integers_are_exact() -> None:
    x = np.array([2**62 + 1, 2**62 - 1, -(2**63), 2**63 - 1])
    assert fastnorm.extrema(x) == (-(2**63), 2**63 - 1)
    assert fastnorm.extrema(x[:2]) == (2**62 - 1, 2**62 + 1)
    assert fastnorm.extrema(np.array([2**64 - 1, 2**64 - 2], np.uint64)) == (2**64 - 2, 2**64 - 1)


# The Welford state


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_batches_give_the_moments_of_all(axis: int | None, backend: str) -> None:
    x = sample(60, 60)
    state = fastnorm.Welford(axis)
    with fastnorm.config(backend=backend):
        for part in np.split(x, [0, 1, 8, 40], axis=axis or 0):
            assert state.update(part) is state
    assert state.count == (x.size if axis is None else 60)
    np.testing.assert_allclose(state.mean, x.mean(axis), rtol=1e-13)
    np.testing.assert_allclose(state.var, x.var(axis), rtol=1e-12)
    np.testing.assert_allclose(state.std, x.std(axis), rtol=1e-12)
    np.testing.assert_allclose(state.variance(ddof=1), x.var(axis, ddof=1), rtol=1e-12)


def test_states_join_as_if_one_had_seen_all() -> None:
    x = sample(100, 3)
    one, other = fastnorm.Welford().update(x[:30]), fastnorm.Welford().update(x[30:])
    before = one.to_bytes()
    both = one | other
    assert one.to_bytes() == before
    assert both.count == 100
    np.testing.assert_allclose(both.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(both.var, x.var(0), rtol=1e-13)
    empty = fastnorm.Welford()
    assert (one | empty).to_bytes() == (empty | one).to_bytes() == before
    one |= other
    np.testing.assert_array_equal(one.mean, both.mean)


@pytest.mark.parametrize("state", [
    fastnorm.Welford(), fastnorm.Welford(None), fastnorm.Welford(-1, np.float32).update(sample(2, 3)),
    fastnorm.Welford().update(sample(10, 4, 5)), fastnorm.Welford(None).update(sample(10)),
    fastnorm.Welford().update(np.empty((0, 3))),
], ids=repr)  # fmt: skip
def test_states_survive_pickle_copy_and_bytes(state: fastnorm.Welford) -> None:
    for twin in (
        pickle.loads(pickle.dumps(state)),
        copy.deepcopy(state),
        fastnorm.Welford.from_bytes(state.to_bytes()),
    ):
        assert repr(twin) == repr(state)
        assert (twin.axis, twin.dtype, twin.count) == (state.axis, state.dtype, state.count)
        for name in ("mean", "var", "std"):
            np.testing.assert_array_equal(getattr(twin, name), getattr(state, name))
        twin.update(sample(3, *np.shape(state.mean)) if state.axis == 0 and np.shape(state.mean) else sample(2, 3))
        assert twin.count > state.count, "it goes on, and is a state of its own"


def test_dtype_is_that_of_the_answers_not_of_the_state() -> None:
    x = sample(1000, 2) + 1e6
    state = fastnorm.Welford(dtype="f4").update(x)
    assert state.mean.dtype == state.var.dtype == state.std.dtype == np.float32
    np.testing.assert_allclose(state.var, x.var(0), rtol=1e-6)


@pytest.mark.parametrize("values", [[np.inf, 1.0], [1.0, -np.inf, 2.0], [1e308, 1e308], [np.inf, -np.inf]], ids=str)
def test_a_batch_that_float64_cannot_square_has_the_mean_of_its_sum(values: list[float], backend: str) -> None:
    batch = np.array(values)[:, np.newaxis]
    with fastnorm.config(backend=backend):
        state = fastnorm.Welford().update(batch)
        found = fastnorm.moments(batch, axis=0)
    np.testing.assert_array_equal(state.mean, found.mean)
    np.testing.assert_array_equal(state.var, found.var)
    if len(values) > 2 or values[0] == np.inf:
        return
    np.testing.assert_array_equal(state.mean, [1e308])


@pytest.mark.parametrize(
    ("batches", "mean"),
    [
        ([[np.inf], [1.0]], np.inf), ([[1.0], [-np.inf], [2.0]], -np.inf), ([[np.inf], [np.inf]], np.inf),
        ([[np.inf], [-np.inf]], np.nan), ([[1.0, np.nan], [1.0]], np.nan), ([[1.7e308], [-1.7e308]], 0.0),
        ([[1.7e308], [1.7e308]], 1.7e308),
    ], ids=str,
)  # fmt: skip
def test_states_that_float64_cannot_join_have_the_mean_of_their_sum(batches: list[list[float]], mean: float) -> None:
    for order in (batches, batches[::-1]):
        state, joined = fastnorm.Welford(None), fastnorm.Welford(None)
        with np.errstate(all="raise"):
            for batch in order:
                state.update(batch)
                joined = joined | fastnorm.Welford(None).update(batch)
        np.testing.assert_array_equal([state.mean, joined.mean], mean)


@pytest.mark.parametrize("place", [0, -1])
def test_a_mean_far_from_the_first_batch_keeps_its_digits(place: int) -> None:
    values = list(np.random.default_rng(0).standard_normal(3000))
    values.insert(place if place == 0 else len(values), 1e10)
    state = fastnorm.Welford(None)
    for value in values:
        state.update(value)
    np.testing.assert_allclose(state.mean, fsum(values) / len(values), rtol=4 * 2.0**-53)


def test_subclasses_of_states_stay_what_they_are() -> None:
    class Own(fastnorm.Welford):
        pass

    assert type(Own() | fastnorm.Welford()) is Own
    assert type(Own.from_bytes(Own().to_bytes())) is Own


def test_a_state_without_batches_is_nan() -> None:
    state = fastnorm.Welford()
    assert state.count == 0
    assert np.isnan([state.mean, state.var, state.std]).all()
    one = fastnorm.Welford(None).update(3)
    assert (one.mean, one.var) == (3, 0)
    assert np.isnan(one.variance(ddof=1))


def test_errors_of_the_state_leave_it_as_it_was() -> None:
    state = fastnorm.Welford().update(sample(4, 3))
    before = state.to_bytes()
    for bad, error in ((sample(4, 2), ValueError), (sample(3), ValueError), (["a"], TypeError), (5.0, ValueError)):
        with pytest.raises(error, match=r"Welford\.update"):
            state.update(bad)
    with pytest.raises(ValueError, match=r"Welford\.__or__: the state has shape \(3,\), got \(2,\)"):
        state | fastnorm.Welford().update(sample(4, 2))
    with pytest.raises(ValueError, match=r"Welford\.__or__: the axes must be the same, got 0 and 1"):
        state | fastnorm.Welford(1).update(sample(3, 4))
    with pytest.raises(TypeError):
        state | 3
    assert state.to_bytes() == before
    for bad in ({"axis": 1.5}, {"axis": "0"}, {"dtype": "i4"}, {"dtype": complex}):
        with pytest.raises(TypeError, match="Welford"):
            fastnorm.Welford(**bad)
    shapeless = before[:13] + b"\0" + before[14:]
    for bad in (
        b"",
        b"FNW1",
        b"FNW2" + before[4:],
        before[:-1],
        before[:-8],
        before + bytes(8),
        before[:20],
        shapeless,
    ):
        with pytest.raises(ValueError, match=r"Welford\.from_bytes"):
            fastnorm.Welford.from_bytes(bad)


# SciPy


@pytest.mark.parametrize("axis", [0, 1, -1, None])
@pytest.mark.parametrize("ddof", [0, 1])
def test_against_scipy(axis: int | None, ddof: int, backend: str) -> None:
    x = sample(9, 7, 12)
    np.testing.assert_allclose(
        fastnorm.standardize(x, axis=axis, ddof=ddof, backend=backend), scipy.stats.zscore(x, axis, ddof), atol=1e-13
    )
    summary = scipy.stats.describe(x, axis, ddof)
    moments, extrema = fastnorm.moments(x, axis=axis, ddof=ddof), fastnorm.extrema(x, axis=axis)
    np.testing.assert_allclose(moments.mean, summary.mean, rtol=1e-13)
    np.testing.assert_allclose(moments.var, summary.variance, rtol=1e-12)
    np.testing.assert_array_equal(extrema, summary.minmax)
    norm = scipy.linalg.norm(x, axis=axis, keepdims=True)
    clipped = fastnorm.clip_by_norm(x, 1.0, axis=axis, backend=backend)
    np.testing.assert_allclose(clipped, x / norm, rtol=1e-13)
    if axis is None:
        return
    np.testing.assert_allclose(fastnorm.l2_normalize(x, axis=axis, backend=backend), x / norm, rtol=1e-13)
    for p in (1, 3, np.inf):
        norm = np.linalg.vector_norm(x, ord=p, axis=axis, keepdims=True)
        np.testing.assert_allclose(fastnorm.lp_normalize(x, p=p, axis=axis, backend=backend), x / norm, rtol=1e-13)


def test_spectral_norm_converges_to_the_largest_singular_value_of_scipy() -> None:
    w = sample(12, 20)
    result = fastnorm.spectral_norm(w, n_power_iterations=300)
    left, values, right = scipy.linalg.svd(w)
    np.testing.assert_allclose(result.sigma, values[0], rtol=1e-12)
    np.testing.assert_allclose(result.weight, w / values[0], rtol=1e-12)
    np.testing.assert_allclose(np.abs([result.u @ left[:, 0], result.v @ right[0]]), 1, rtol=1e-12)
    again = fastnorm.spectral_norm(w, result.u)
    np.testing.assert_allclose(again.sigma, values[0], rtol=1e-12)


def test_the_mixture_of_switchable_norm_is_the_softmax_of_scipy() -> None:
    x, logits = sample(4, 3, 10), np.array([0.3, -1.2, 2.0])
    shares = scipy.special.softmax(logits)
    _, stats = fastnorm.switchable_norm(x, logits, [-800.0, 0.0, -800.0], training=True, eps=0, return_stats=True)
    mean = sum(share * x.mean(axes, keepdims=True) for share, axes in zip(shares, (2, (1, 2), (0, 2)), strict=True))
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(stats.rstd[:, 0, 0], 1 / x.std((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_state_of_any_dtype_survives_as_bytes(dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has bfloat16, is not installed")
    state = fastnorm.Welford(dtype=dtype).update([[1.0, 2.0], [3.0, 5.0]])
    again = fastnorm.Welford.from_bytes(state.to_bytes())
    assert again.dtype == state.dtype
    np.testing.assert_array_equal(again.mean, state.mean)


def test_statistics_of_other_byte_orders(backend: str) -> None:
    half = sample(6, 40).astype(np.float16)
    for found in ("moments", "extrema"):
        one, other = (getattr(fastnorm, found)(x, axis=1, backend=backend) for x in (half, half.astype(">f2")))
        for name in ("mean", "m2") if found == "moments" else ("min", "max"):
            np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    single = sample(4, 50).astype(np.float32)
    for algorithm in ("naive", "welford", "two_pass"):
        one, other = (
            fastnorm.moments(x, axis=1, algorithm=algorithm, backend=backend) for x in (single, single.astype(">f4"))
        )
        np.testing.assert_array_equal(other.m2, one.m2)


def test_means_beside_lines_that_float64_cannot_square(backend: str) -> None:
    found = fastnorm.moments([[1e308, 1e308], [np.inf, 1.0], [1.0, 2.0]], axis=1, backend=backend)
    np.testing.assert_array_equal(found.mean, [1e308, np.inf, 1.5])


def test_digits_where_there_is_little_to_say() -> None:
    assert fastnorm.moments([1e308, -1e308]).digits == 0
    assert 0 <= fastnorm.Moments(mean=0.0, m2=1.0, count=10, algorithm="naive").digits < 17
    assert fastnorm.moments(np.float32([1, 2, 3]), algorithm="naive").roundoff == 2.0**-24


def test_the_bounds_of_the_algorithms() -> None:
    """docs/numerics.md has them; four times each, for the constants that they leave out."""
    n, kappa, u = 1000, 1e4, 2.0**-24
    e = n * u
    once = u + e * e
    bounds = {
        "auto": 16 * u + n / 64 * 2.0**-53, "naive": n * kappa**2 * u, "shifted": n * (n + 1) * u,
        "two_pass": e + (e * kappa) ** 2, "corrected_two_pass": e + e * (e * kappa) ** 2, "welford": n * kappa * u,
        "pairwise": 11 * kappa * u, "compensated": once + (kappa * once) ** 2,
    }  # fmt: skip
    for name, bound in bounds.items():
        np.testing.assert_allclose(relative_error_bound(name, n, kappa, u), 4 * bound, rtol=1e-12)
        assert relative_error_bound(name, n, np.array([kappa, np.nan]), u).shape == (2,)


def test_an_empty_batch_says_the_shape() -> None:
    state = fastnorm.Welford().update(np.empty((0, 3)))
    assert state.mean.shape == (3,)
    with pytest.raises(ValueError, match=r"the state has shape \(3,\), got \(2,\)"):
        state.update(np.ones((4, 2)))
    nothing = fastnorm.Welford.from_bytes(fastnorm.Welford().update(np.empty(0)).to_bytes())
    with pytest.raises(ValueError, match="the state has shape"):
        nothing.update(np.ones((4, 2)))


def test_states_keep_their_dtype_and_have_no_variance_beyond_their_count() -> None:
    assert (fastnorm.Welford(dtype="f4") | fastnorm.Welford()).dtype == np.float32
    assert np.isnan(fastnorm.Welford().update([[1.0], [3.0]]).variance(ddof=2))


@pytest.mark.parametrize("shape", [(2**40, 2**40), (1,) * 65, (2**40, 0, 2**40), None], ids=str)
def test_states_of_impossible_shapes_are_refused(shape: tuple[int, ...] | None) -> None:
    sizes = (3,) if shape is None else shape  # None: axes of a state that has no shape
    header = struct.pack("<4s?q?4sQB", b"FNW1", True, 0, shape is not None, b"f8", 0, len(sizes))
    with pytest.raises(ValueError, match=r"Welford\.from_bytes: these bytes are not a Welford state"):
        fastnorm.Welford.from_bytes(header + struct.pack(f"<{len(sizes)}Q", *sizes))
