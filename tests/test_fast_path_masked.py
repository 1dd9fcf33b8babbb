"""The fast path by masks: the bits of the general path, and whatever is not plain goes there."""

from typing import Any

import numpy as np
import pytest
from masked_cases import GROUPS, backward, each_norm, norm, options, sample

import fastnorm

Array = np.ndarray[Any, Any]

# (shape, channel axis): items of one position, few and many; more than COUNTED_ROWS, and than a tile of channels.
LAYOUTS = [((7, 6), 1), ((4, 6, 7), 1), ((3, 6, 4, 5), -3), ((1, 6, 40), 1), ((2, 6, 2500), 1), ((2, 6, 1, 1), 1)]
LAYOUTS += [((3, 4, 5, 6), -1), ((2, 70, 66), 2), ((1, 40, 6), -1), ((9, 1100, 6), 2), ((20, 12, 1, 3), 1)]
each_layout = pytest.mark.parametrize(("shape", "axis"), LAYOUTS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def mask_of(shape: tuple[int, ...], axis: int, shared: bool) -> Array:
    """Return a mask of all channels together, or of each, that leaves something of every channel."""
    mask = np.random.default_rng(3).random([1 if shared and a == axis % len(shape) else n for a, n in enumerate(shape)])
    mask[0] = mask[-1] = 0.0
    return mask < 0.7


def parts(found: Any) -> list[Array]:
    return [found] if isinstance(found, np.ndarray) else [part for one in found for part in parts(one)]


def assert_same(found: Any, right: Any) -> None:
    for one, other in zip(parts(found), parts(right), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


@each_norm
@each_layout
@each_dtype
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "of each channel"])
def test_the_bits_are_those_of_the_general_path(
    name: str, shape: tuple[int, ...], axis: int, dtype: Any, shared: bool, served: str, calls: list[bool]
) -> None:
    x, dy = sample(shape, dtype=dtype), sample(shape, seed=1, dtype=dtype)
    channels = shape[axis]
    weight, bias = np.linspace(-2, 2, channels, dtype=np.float32), np.linspace(1, 3, channels)
    keywords = options(name, axis, where=mask_of(shape, axis, shared))
    if name == "group_norm":
        keywords["num_groups"] = channels // GROUPS if channels % GROUPS == 0 else 1
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            for given in ({}, {"weight": weight, "bias": bias, "return_stats": True}):
                calls.clear()
                found = norm(name, x, **keywords, **given)
                out, in_place = np.empty_like(x), x.copy()
                assert parts(norm(name, x, **keywords, **given, out=out))[0] is out
                assert parts(norm(name, in_place, **keywords, **given, out=in_place))[0] is in_place
                assert calls == [True] * 3
                assert_same(found, norm(name, x, **keywords, **given, backend="cython"))
                assert_same([out, in_place], [parts(found)[0]] * 2)
            stats = found[1]._asdict()
            for given in ({}, {"weight": weight}, {"weight": weight, **stats}):
                calls.clear()
                found = backward(name, dy, x, **keywords, **given)
                out = np.empty_like(x)
                assert backward(name, dy, x, **keywords, **given, out=out).dx is out
                assert calls == [True] * 2
                assert_same(found, backward(name, dy, x, **keywords, **given, backend="cython"))
                assert_same(out, found.dx)


@each_dtype
@pytest.mark.parametrize("convention", ["torch", "keras", "onnx", "flax"])
def test_running_statistics_move_as_on_the_general_path(
    convention: Any, dtype: Any, served: str, calls: list[bool]
) -> None:
    for shape, axis in LAYOUTS:
        keywords = options("batch_norm", axis, where=mask_of(shape, axis, True), convention=convention)
        for running in (np.float32, np.float64):
            states = []
            for backend in ({}, {"backend": "cython"}):
                mean, var = np.linspace(0, 1, shape[axis], dtype=running), np.ones(shape[axis], running)
                calls.clear()
                y = fastnorm.batch_norm(sample(shape, dtype=dtype), mean, var, **keywords, **backend)
                assert all(calls)
                states.append([y, mean, var])
            assert_same(*states)


def _without(x: Array, channel: int) -> Array:
    mask = np.ones(x.shape, bool)
    mask[:, channel] = False
    return mask


def test_groups_of_which_nothing_counts_are_served(served: str, calls: list[bool]) -> None:
    x = sample((4, 6, 7))
    x[0], x[:, 2] = np.nan, np.inf
    mask = _without(x, 2)
    mask[0] = False
    for name in ("instance_norm", "group_norm"):
        keywords = options(name, where=mask, bias=np.arange(6.0))
        assert_same(norm(name, x, **keywords), norm(name, x, **keywords, backend="cython"))
        del keywords["bias"]
        dy = np.where(mask, sample(x.shape, seed=1), np.float32(0))
        found = backward(name, dy, x, **keywords)
        assert_same(found, backward(name, dy, x, **keywords, backend="cython"))
        assert (found.dx[0] == 0).all()
    assert all(calls)


X = sample((4, 6, 7))
MASK = mask_of(X.shape, 1, True)
ELSEWHERE: dict[str, dict[str, Any]] = {
    "lines that are nearly constant": {"x": np.where(X[:, :, :1] == X, 0.7, np.nextafter(0.7, 1))},
    "16 bits": {"x": X.astype(np.float16)},
    "a list": {"x": X.tolist()},
    "one channel": {"x": X[:, :1].copy(), "num_groups": 1},
    "an infinity": {"x": np.concatenate([np.full_like(X[:1], np.inf), X[1:]])},
    "a scale out of range": {"weight": np.full(6, 1e-38)},
    "a mean out of range": {"x": X + np.float32(1e32)},
    "a mask of one axis": {"where": MASK[0, 0]},
    "a mask of all": {"where": True},
    "a mask of one item": {"where": MASK[:1]},
    "a mask in a list": {"where": MASK.tolist()},
    "a mask that is a view": {"where": np.repeat(MASK, 2, axis=2)[:, :, ::2]},
    "weights": {"weights": np.ones(7)},
    "another dtype": {"dtype": np.float16},
    "eps as a whole number": {"eps": 1},
}
COPIED: dict[str, dict[str, Any]] = {
    "whole numbers": {"x": (X * 10).astype(np.int32)},
    "a view": {"x": np.repeat(X, 2, axis=2)[:, :, ::2]},
    "a dtype": {"dtype": np.float64},
}


@each_norm
@pytest.mark.parametrize("case", ELSEWHERE)
def test_other_calls_go_the_general_way(name: str, case: str, served: str, calls: list[bool]) -> None:
    given = dict(ELSEWHERE[case])
    x = given.pop("x", X)
    if name != "group_norm":
        given.pop("num_groups", None)
    keywords = {**options(name, where=MASK), **given}
    found = norm(name, x, **keywords)
    assert not any(calls)
    assert_same(found, norm(name, x, **keywords, backend="cython"))


@each_norm
@pytest.mark.parametrize("case", COPIED)
def test_what_is_converted_is_served_as_a_copy(name: str, case: str, served: str, calls: list[bool]) -> None:
    given = dict(COPIED[case])
    x = given.pop("x", X)
    keywords = {**options(name, where=MASK), **given}
    found = norm(name, x, **keywords)
    assert calls[-1]
    assert_same(found, norm(name, x, **keywords, backend="cython"))


@pytest.mark.parametrize("backward_too", [False, True])
def test_a_channel_that_has_too_little_is_an_error(backward_too: bool, served: str) -> None:
    mask = _without(X, 3)
    for left, convention, enough in ((0, "keras", False), (1, "keras", True), (1, "torch", False), (2, "torch", True)):
        mask[0, 3, :left] = True
        mean, var = np.zeros(6), np.ones(6)

        def call(mask: Array = mask, mean: Array = mean, var: Array = var, convention: Any = convention) -> None:
            if backward_too:
                fastnorm.batch_norm_backward(X, X, training=True, where=mask, convention=convention)
            else:
                fastnorm.batch_norm(X, mean, var, training=True, where=mask, convention=convention)

        if enough:
            call()
        else:
            with pytest.raises(ValueError, match=f"got {left} that where and weights count"):
                call()
            assert (mean == 0).all()
            assert (var == 1).all()


@each_norm
def test_what_is_read_has_been_read_before_it_is_written_over(name: str, served: str, calls: list[bool]) -> None:
    memory = np.zeros(X.size + 6, np.float32)
    out, weight = memory[: X.size].reshape(X.shape), memory[X.size - 3 : X.size + 3]
    weight[:] = np.linspace(1, 2, 6)
    keywords = options(name, where=MASK)
    right = norm(name, X, **keywords, weight=weight.copy())
    assert_same(norm(name, X, **keywords, weight=weight, out=out), right)
    assert calls == [True, True]


def test_groups_must_be_a_number_with_a_mask_too(served: str) -> None:
    unnumbered: Any = None
    for call in (fastnorm.group_norm, lambda *rest, **keywords: fastnorm.group_norm_backward(X, *rest, **keywords)):
        with pytest.raises(TypeError, match="num_groups must be an int, got NoneType"):
            call(X, unnumbered, where=MASK)
