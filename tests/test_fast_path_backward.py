"""The fast path for plain backward calls: the bits of the general path, and whatever is not plain goes there."""

from typing import Any

import numpy as np
import pytest

import fastnorm

Array = np.ndarray[Any, Any]

LINES = [(5, 6), (2, 3, 33), (130, 768), (1, 70_001), (1000, 2), (7,)]
CHANNELS = [(4, 6, 5), (1, 6, 50), (2, 4, 3, 41), (2, 2, 70_001), (3, 256, 49)]
FEATURES = [(7, 33), (2500, 130), (3, 6, 1, 1)]
LAST = [(4, 5, 6), (2, 40, 40, 3), (1, 5, 2)]


def arguments(
    op: str, shape: tuple[int, ...], dtype: Any, axis: int, weighted: bool
) -> tuple[list[Any], dict[str, Any]]:
    """Return what the backward pass of a norm takes, with the statistics of the forward one."""
    rng = np.random.default_rng(sum(shape))
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    keywords: dict[str, Any] = {}
    forward: list[Any] = [x]
    if op == "group_norm":
        forward.append(2)
    if weighted:
        keywords["weight"] = rng.standard_normal(shape[axis]).astype(dtype)
    if op == "batch_norm":
        keywords["training"] = True
    if op in ("layer_norm", "rms_norm", "l2_normalize"):
        keywords |= {"axis": axis} if axis != -1 else {}
    elif axis != 1:
        keywords["channel_axis"] = axis
    _, stats = getattr(fastnorm, op)(*forward, **keywords, return_stats=True)
    return [dy, *forward], keywords | stats._asdict()


SIDE_BY_SIDE = [
    *((op, shape, -1) for op in ("group_norm", "instance_norm") for shape in (*LAST[:1], (2, 40, 6, 40), (1, 9, 2))),
    *((op, (3, 9100, 6), -1) for op in ("group_norm", "instance_norm")),  # nine chunks
    *(("pixel_norm", shape, 1) for shape in ((3, 7, 5), (2, 4, 3, 41), (1, 2100, 40), (5, 1, 3))),
    *(("l2_normalize", (3, 7, 5), axis) for axis in (0, 1)),
]
CALLS = [
    *((op, shape, -1) for op in ("layer_norm", "rms_norm", "l2_normalize") for shape in LINES),
    *((op, shape, 1) for op in ("batch_norm", "group_norm", "instance_norm") for shape in CHANNELS),
    *(("batch_norm", shape, 1) for shape in FEATURES),
    *(("batch_norm", shape, -1) for shape in LAST),
    *(("batch_norm", shape, 2) for shape in ((2, 3, 12, 7), (1, 3, 6, 5), (40, 5, 6, 1))),
]


def parts(found: Any) -> list[Array]:
    return [found] if isinstance(found, np.ndarray) else [part for part in found if part is not None]


@pytest.mark.parametrize(
    ("op", "shape", "axis", "dtype"),
    [(*call, kind) for kind in (np.float32, np.float64) for call in (*CALLS, *SIDE_BY_SIDE)]
    + [(*call, np.float16) for call in SIDE_BY_SIDE],
    ids=str,
)
def test_the_bits_are_those_of_the_general_path(
    op: str, shape: tuple[int, ...], axis: int, dtype: Any, kernels: str, calls: list[bool]
) -> None:
    backward = getattr(fastnorm, f"{op}_backward")
    for weighted in (False, True) if op not in ("l2_normalize", "pixel_norm") else (False,):
        args, keywords = arguments(op, shape, dtype, axis, weighted)
        again = {name: value for name, value in keywords.items() if name not in ("mean", "rstd")}
        for given in (keywords, again):
            for threads in (1, 3):
                with fastnorm.config(num_threads=threads):
                    calls.clear()
                    found = parts(backward(*args, **given))
                    out = np.empty_like(args[1])
                    assert parts(backward(*args, **given, out=out))[0] is out
                    assert calls == [True, True]
                    general = parts(backward(*args, **given, backend="cython"))
                assert out.tobytes() == found[0].tobytes()
                assert [part.tobytes() for part in found] == [part.tobytes() for part in general]
                assert {part.dtype for part in found} == {np.dtype(dtype)}


INFERENCE = [(shape, 1) for shape in (*CHANNELS, *FEATURES)] + [(shape, -1) for shape in LAST]


@pytest.mark.parametrize(("shape", "axis"), INFERENCE, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_inference_has_the_bits_of_the_general_path(
    shape: tuple[int, ...], axis: int, dtype: Any, kernels: str, calls: list[bool]
) -> None:
    (dy, x), statistics = arguments("batch_norm", shape, dtype, axis, False)
    del statistics["training"]
    running = {"running_mean": statistics["mean"].ravel(), "running_var": statistics["rstd"].ravel().astype("f") ** 2}
    if axis != 1:
        running["channel_axis"] = axis
    x[0].flat[0] = np.inf  # passes into dweight, not into dx
    for weight in (None, np.linspace(-2, 2, shape[axis]), np.linspace(0, 1, shape[axis], dtype=np.float32)):
        for given in (statistics, running):
            for threads in (1, 3):
                with fastnorm.config(num_threads=threads):
                    calls.clear()
                    found = fastnorm.batch_norm_backward(dy, x, weight, **given)
                    assert calls == [True]
                    general = fastnorm.batch_norm_backward(dy, x, weight, **given, backend="cython")
                for part, expected in zip(found, general, strict=True):
                    assert part.dtype == expected.dtype
                    np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize(
    "keywords", [{"running_var": [4.0, 1e-32, 1.0]}, {"running_var": [4.0, 1e34, 1.0]}, {"weight": [1.0, 1e37, 1.0]}]
)
def test_inference_beyond_the_range_of_float32_goes_the_general_way(
    keywords: dict[str, Any], calls: list[bool]
) -> None:
    dy, x = np.random.default_rng(0).standard_normal((2, 5, 3, 40)).astype(np.float32)
    given = {"running_mean": [0.0, 1.0, 2.0], "running_var": [1.0, 2.0, 3.0], "eps": 0.0} | keywords
    found = fastnorm.batch_norm_backward(dy, x, **given)
    assert calls == [False]
    expected = fastnorm.batch_norm_backward(dy.astype(np.float64), x.astype(np.float64), **given)
    for part, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, exact, rtol=2.0**-20)


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm", "l2_normalize"])
@pytest.mark.parametrize("axis", [(-1,), (1, 2), (-1, -2), (0, 1, 2), (2, 1, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lines_of_several_axes_have_the_bits_of_the_general_path(
    op: str, axis: tuple[int, ...], dtype: Any, kernels: str, calls: list[bool]
) -> None:
    rng = np.random.default_rng(0)
    dy, x = rng.standard_normal((2, 4, 5, 6)).astype(dtype)
    shape = x.shape[-len(axis) :]
    backward = getattr(fastnorm, f"{op}_backward")
    for weight in [None] if op == "l2_normalize" else [None, rng.standard_normal(shape).astype(np.float32)]:
        keywords: dict[str, Any] = {"axis": axis} if weight is None else {"axis": axis, "weight": weight}
        _, stats = getattr(fastnorm, op)(x, **keywords, return_stats=True)
        for given in ({}, stats._asdict()):
            calls.clear()
            found = parts(backward(dy, x, **keywords, **given))
            assert calls == [True]
            general = parts(backward(dy, x, **keywords, **given, backend="cython"))
            for part, expected in zip(found, general, strict=True):
                assert part.shape == expected.shape
                assert part.dtype == expected.dtype
                assert part.tobytes() == expected.tobytes()


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm", "l2_normalize", "batch_norm", "group_norm", "instance_norm"])
def test_what_is_not_plain_goes_the_general_way_with_the_same_result(op: str, calls: list[bool]) -> None:
    axis, shape = (1, (4, 6, 5)) if op in ("batch_norm", "group_norm", "instance_norm") else (-1, (4, 3, 6))
    args, keywords = arguments(op, shape, np.float32, axis, op != "l2_normalize")
    backward = getattr(fastnorm, f"{op}_backward")
    expected = [part.tobytes() for part in parts(backward(*args, **keywords))]
    dy, x, *rest = args
    calls.clear()

    def check(dy: Any, x: Any, **more: Any) -> None:
        found = parts(backward(dy, x, *rest, **(keywords | more)))
        assert [np.ascontiguousarray(part, "f4").tobytes() for part in found] == expected

    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    check(dy, strided)
    check(strided * 0 + dy, x.astype(">f4"))
    check(dy.astype(np.float64), x)
    check(dy.tolist(), x)
    check(dy, x, rstd=keywords["rstd"].astype(np.float32).astype(np.float64) * 0 + keywords["rstd"].tolist())
    for argument in (dy, x):
        kept = argument.copy()
        check(dy, x, out=argument)
        argument[...] = kept
    assert calls.count(True) == 1, "float64 statistics in a new array alone are plain"
    calls.clear()
    check(dy, x, backend="cython")
    check(dy, x, dtype="float32")
    assert not calls, "not even asked"
    with fastnorm.config(backend="cython"):
        check(dy, x)
    assert not any(calls)


@pytest.mark.parametrize("name", ["mean", "rstd"])
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_statistics_that_dx_is_written_over_are_read_first(op: str, name: str) -> None:
    x, dy = np.random.default_rng(0).standard_normal((2, 40, 64))
    backward = getattr(fastnorm, f"{op}_backward")
    statistics = getattr(fastnorm, op)(x, return_stats=True)[1]._asdict()
    expected = backward(dy, x, **statistics).dx
    out = np.empty((40, 64))
    shared = out.reshape(-1)[:40].reshape(40, 1)
    shared[...] = statistics[name]
    np.testing.assert_array_equal(backward(dy, x, **statistics | {name: shared}, out=out).dx, expected)


def test_one_channel_beyond_the_range_of_float32(calls: list[bool]) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((4, 64, 50)).astype(np.float32) for _ in range(2))
    served = fastnorm.batch_norm_backward(dy, x, training=True)
    x[:, 40] *= np.float32(1e25)
    found = fastnorm.batch_norm_backward(dy, x, training=True)
    assert calls == [True, False]
    for part, other, axis in zip(found, served, (1, 0, 0), strict=True):  # the other channels have the fast path's bits
        np.testing.assert_array_equal(np.delete(part, 40, axis), np.delete(other, 40, axis))
    for part, general in zip(found, fastnorm.batch_norm_backward(dy, x, training=True, backend="cython"), strict=True):
        np.testing.assert_array_equal(part, general)


def test_zeros_have_the_same_sign_where_a_weight_is_0(calls: list[bool], served: str) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((4, 6, 5)).astype(np.float32) for _ in range(2))
    weight = np.float32([0, -0.0, 1, 0, -0.0, 2])
    dy[:, 0], dy[:, 1] = np.abs(dy[:, 0]), -np.abs(dy[:, 1])
    for data, upstream in ((x, dy), (-x, dy), (x, np.zeros_like(dy))):
        found = fastnorm.batch_norm_backward(upstream, data, weight, training=True)
        general = fastnorm.batch_norm_backward(upstream, data, weight, training=True, backend=served)
        assert [part.tobytes() for part in found] == [part.tobytes() for part in general]
    assert all(calls)


def test_sums_of_zeros_have_no_sign(served: str) -> None:
    dy, x = np.array([[[3.0, 1, 1], [1, 0, 0]]]), np.array([[[1.0, 2, 4], [1, 2, 4]]])
    for op, options in (("instance_norm", {}), ("batch_norm", {"training": True}), ("layer_norm", {})):
        for sign in (1, -1):
            for kind in (np.float32, np.float64):
                given = (sign * dy).astype(kind), x.astype(kind)
                backward = getattr(fastnorm, f"{op}_backward")
                found = backward(*given, eps=np.inf, **options)
                general = backward(*given, eps=np.inf, **options, backend=served)
                assert [part.tobytes() for part in found] == [part.tobytes() for part in general]
    x, dy = np.array([[[-1.0, 1], [1, 1]]]), np.array([[[-1.0, 1], [-5, 1]]])
    for op in ("pixel_norm", "l2_normalize"):
        options = {"axis": 1} if op == "l2_normalize" else {}
        backward = getattr(fastnorm, f"{op}_backward")
        found = backward(dy, x, eps=np.inf, **options)
        assert found.tobytes() == backward(dy, x, eps=np.inf, **options, backend=served).tobytes()


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_training_beyond_the_range_of_float32_goes_the_general_way(scale: float, calls: list[bool]) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((4, 6, 5)).astype(np.float32) for _ in range(2))
    data = x * np.float32(scale)
    found = fastnorm.batch_norm_backward(dy, data, training=True, eps=0.0)
    assert calls == [False]
    expected = fastnorm.batch_norm_backward(dy.astype(np.float64), data.astype(np.float64), training=True, eps=0.0)
    for part, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, exact, rtol=2.0**-22, atol=2.0**-22 * np.abs(exact).max())


def test_bad_arguments_still_get_their_message() -> None:
    dy = x = np.ones((4, 6, 5), np.float32)
    mean = np.zeros((1, 6, 1))
    for function, args, keywords, message in (
        (fastnorm.layer_norm_backward, (dy[:2], x), {}, "dy must have the shape of x"),
        (fastnorm.layer_norm_backward, (dy, x), {"eps": -1.0}, "eps must be at least 0"),
        (fastnorm.layer_norm_backward, (dy, x), {"mean": mean}, "mean and rstd must be given together"),
        (fastnorm.rms_norm_backward, (dy, x), {"mean": mean}, "mean and rstd must be given together"),
        (fastnorm.layer_norm_backward, (dy, x, np.ones(4, np.float32)), {}, "weight must have shape"),
        (fastnorm.layer_norm_backward, (dy, x), {"mean": mean, "rstd": mean}, "mean must have shape|rstd must have"),
        (fastnorm.layer_norm_backward, (dy, x), {"out": x[:2]}, "out must have the shape"),
        (fastnorm.group_norm_backward, (dy, x, 4), {}, "num_groups must divide"),
        (fastnorm.batch_norm_backward, (dy, x), {"training": True, "channel_axis": 0}, "channel_axis"),
        (fastnorm.batch_norm_backward, (dy[:1, :, :1], x[:1, :, :1]), {"training": True}, "more than one value"),
    ):
        with pytest.raises(ValueError, match=message):
            function(*args, **keywords)


def test_dx_may_go_where_the_statistics_are(kernels: str) -> None:
    (dy, x), statistics = arguments("batch_norm", (20, 6, 5), np.float32, 1, False)
    rstd = statistics["rstd"].copy()
    rstd[0, 5] = 2.0**60  # a channel for the general path, when others have been written
    expected = fastnorm.batch_norm_backward(dy, x, mean=statistics["mean"], rstd=rstd, training=True)
    memory = np.zeros(x.size // 2)
    mean = memory[:6].reshape(1, 6, 1)
    mean[...] = statistics["mean"]
    out = memory.view(np.float32).reshape(x.shape)
    found = fastnorm.batch_norm_backward(dy, x, mean=mean, rstd=rstd, training=True, out=out)
    for part, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, other)
