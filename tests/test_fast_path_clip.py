"""The fast path of clipping by norm: the bits of the general path, and whatever is not plain goes there."""

from typing import Any

import numpy as np
import pytest

import fastnorm

Array = np.ndarray[Any, Any]

SHAPES = [((90, 6), 0), ((90, 6), -1), ((90, 6), None), ((7,), 0), ((3, 2100, 2), 1), ((2, 70_001), 1), ((), None)]
DTYPES = ["float32", "float64", "float16"]


def sample(*shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [0.75, 1e6, 3, 0])
def test_one_array(
    shape: tuple[int, ...], axis: int | None, dtype: str, max_norm: float, kernels: str, calls: list[bool]
) -> None:
    x = np.array(sample(*shape, dtype=dtype))
    x.reshape(-1)[:1] = -0.0
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            calls.clear()
            found = fastnorm.clip_by_norm(x, max_norm, axis=axis)
            in_place = x.copy()
            assert fastnorm.clip_by_norm(in_place, max_norm, axis=axis, out=in_place) is in_place
            # Of zeros in float64, or a scale of 0 in float32, the general path knows more.
            assert all(calls) or max_norm == 0 or dtype == "float64"
            expected = fastnorm.clip_by_norm(x, max_norm, axis=axis, backend="cython")
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes() == in_place.tobytes()
        if max_norm == 1e6:
            assert found.tobytes() == x.tobytes(), "within the limit nothing changes, the sign of 0 included"


@pytest.mark.parametrize("max_norm", [0.75, 1e6, 0])
def test_several_arrays(max_norm: float, kernels: str, calls: list[bool]) -> None:
    arrays = [sample(5, 6), sample(70_001, dtype="float64"), sample(3, 4, 9, dtype="float16"), sample(300, 200)]
    arrays += [np.zeros((2, 3), np.float32), np.asarray(sample())]
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            calls.clear()
            found, norm = fastnorm.clip_by_global_norm(arrays, max_norm)
            in_place = [array.copy() for array in arrays]
            clipped = fastnorm.clip_by_global_norm(tuple(in_place), max_norm, out=in_place)
            assert all(a is b for a, b in zip(clipped.arrays, in_place, strict=True))
            assert calls == [max_norm > 0] * 2, "a scale of 0 has no two parts in float32"
            expected = fastnorm.clip_by_global_norm(arrays, max_norm, backend="cython")
        assert type(norm) is float
        assert norm == clipped.global_norm == expected.global_norm
        assert norm == pytest.approx(np.sqrt(sum(np.sum(np.float64(a) ** 2) for a in arrays)), rel=2.0**-22)
        for one, other, general in zip(found, in_place, expected.arrays, strict=True):
            assert one.dtype == general.dtype
            assert one.tobytes() == other.tobytes() == general.tobytes()


def test_the_norm_of_many_is_the_general_paths(calls: list[bool]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(rng.integers(1, 50)) * 10.0 ** rng.integers(-60, 60) for _ in range(200)]
    found, expected = fastnorm.clip_by_global_norm(arrays, 1.0), fastnorm.clip_by_global_norm(iter(arrays), 1.0)
    assert calls == [True, False]
    assert found.global_norm == expected.global_norm
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found.arrays, expected.arrays, strict=True))


@pytest.mark.parametrize("size", [1e-200, 1e200, 0.0, np.inf, np.nan])
def test_what_float64_cannot_square_goes_the_general_way(size: float, calls: list[bool]) -> None:
    x, limit = np.array([3.0, 4.0]) * size, size / 2 if np.isfinite(size) else 1.0
    for arrays in ([x], [x, np.zeros(3)]):
        norm = fastnorm.clip_by_global_norm(arrays, limit).global_norm
        np.testing.assert_allclose(norm, 5 * size, rtol=1e-15)
    fastnorm.clip_by_norm(x, limit)
    assert not any(calls)


def test_a_vanishing_array_beside_others(calls: list[bool]) -> None:
    arrays = [np.array([1e-200]), np.array([3.0, 4.0]), np.zeros(3)]
    found, norm = fastnorm.clip_by_global_norm(arrays, 1.0)
    assert calls == [True]
    assert norm == 5.0
    np.testing.assert_allclose(found[0], [2e-201], rtol=1e-15)
    np.testing.assert_allclose(found[1], [0.6, 0.8], rtol=1e-15)
    np.testing.assert_array_equal(found[2], 0.0)


def test_a_scale_beyond_float32(calls: list[bool]) -> None:
    arrays = [sample(40), sample(3, dtype="float64")]
    found, norm = fastnorm.clip_by_global_norm(arrays, 1e-40)
    assert calls == [False]
    np.testing.assert_allclose(found[1], arrays[1] * (1e-40 / norm), rtol=1e-15)


def test_what_is_not_plain_goes_the_general_way_with_the_same_result(calls: list[bool]) -> None:
    x, other = sample(5, 6), sample(7)
    expected = fastnorm.clip_by_global_norm([x, other], 1.0)
    calls.clear()
    strided, swapped = np.repeat(x, 2, axis=-1)[..., ::2], x.astype(">f4")
    for arrays in (iter([x, other]), [strided, other], {1: x, 2: other}.values(), [x, other.view(np.matrix)[0]]):
        found = fastnorm.clip_by_global_norm(arrays, 1.0)
        assert found.global_norm == expected.global_norm
        np.testing.assert_array_equal(found.arrays[0], expected.arrays[0])
    np.testing.assert_array_equal(fastnorm.clip_by_norm(swapped, 0.5), fastnorm.clip_by_norm(x, 0.5, backend="cython"))
    assert not any(calls)
    assert fastnorm.clip_by_global_norm([], 1.0) == ([], 0.0)
    assert fastnorm.clip_by_norm(np.empty((0, 3)), 1.0).shape == (0, 3)
    assert not any(calls)


def test_results_over_other_arrays_are_written_as_if_all_were_read_first() -> None:
    memory = sample(40)
    arrays = [memory[:20], memory[20:]]
    expected = [part.copy() for part in fastnorm.clip_by_global_norm(arrays, 1.0).arrays]
    swapped = memory[20:], memory[:20]  # each result where the other array lies
    found = fastnorm.clip_by_global_norm(arrays, 1.0, out=swapped)
    for part, array in zip(expected, found.arrays, strict=True):
        np.testing.assert_array_equal(array, part)


def test_bad_arguments_still_get_their_message() -> None:
    x, out = np.ones((4, 6), np.float32), np.zeros((4, 6), np.float32)
    for arguments, keywords, kind, message in (
        (([x], -1.0), {}, ValueError, "max_norm must be at least 0"),
        (([x], np.nan), {}, ValueError, "max_norm"),
        (([x], 1.0), {"out": out}, TypeError, "out must be a sequence"),
        (([x, x], 1.0), {"out": [out]}, ValueError, "one array for each of the 2 arrays"),
        (([x, x], 1.0), {"out": [out, out]}, ValueError, "must not share memory"),
        (([x, x + 1], 1.0), {"out": [out, np.zeros(3, np.float32)]}, ValueError, "shape of the result"),
        (([x, x + 1], 1.0), {"out": [out, np.zeros((4, 6))]}, TypeError, "dtype of the result"),
        (([x, np.full(3, np.inf)], 1.0), {"out": [out, np.zeros(3)], "error_if_nonfinite": True}, ValueError, "finite"),
    ):
        with pytest.raises(kind, match=message):
            fastnorm.clip_by_global_norm(*arguments, **keywords)
        assert not out.any(), "nothing is written before all is checked"
    with pytest.raises(ValueError, match="axis"):
        fastnorm.clip_by_norm(x, 1.0, axis=2)
    with pytest.raises(TypeError, match="max_norm must be a real number"):
        fastnorm.clip_by_norm(x, "1")
