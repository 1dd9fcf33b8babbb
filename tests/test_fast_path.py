"""The fast path for plain calls, and for copies that are: the same bits as the general path, which has the rest."""

import re
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from cases import CASES, build, dtype_of, outcome

import fastnorm
from fastnorm import tuning

Array = np.ndarray[Any, Any]

OPS = ("layer_norm", "rms_norm", "l2_normalize", "batch_norm", "normalize", "group_norm", "instance_norm")
OPS += ("pixel_norm", "standardize", "min_max_scale", "max_abs_scale", "weight_norm", "clip_by_value", "lp_normalize")
SELECTED = [index for index, case in enumerate(CASES) if case.op in OPS]


@pytest.mark.parametrize("index", SELECTED, ids=lambda index: CASES[index].name)
def test_the_bits_are_those_of_the_general_path(index: int, kernels: str) -> None:
    case = CASES[index]
    args, kwargs = build(case, np.random.default_rng(index))
    function = getattr(fastnorm, case.op)
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            plain = outcome(case, function(*args, **kwargs))
            general = outcome(case, function(*args, **kwargs, backend="cython"))
        assert plain.dtype == general.dtype
        assert plain.tobytes() == general.tobytes()


def sample(*shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


VECTOR = sample(32)
POSITIVE = np.abs(VECTOR)


def _instance_norm(x: Any, **keywords: Any) -> Array:
    weight = VECTOR[:6].astype(x.dtype.newbyteorder("="))
    return fastnorm.instance_norm(x, weight, weight, **keywords)


PLAIN: dict[str, tuple[Any, tuple[int, ...]]] = {
    "layer_norm": (lambda x, **k: fastnorm.layer_norm(x, sample(x.shape[-1], dtype=x.dtype), **k), (5, 6)),
    "rms_norm": (fastnorm.rms_norm, (2, 3, 6)),
    "l2_normalize": (fastnorm.l2_normalize, (5, 384)),
    "group_norm": (lambda x, **k: fastnorm.group_norm(x, 3, **k), (2, 6, 5)),
    "group_norm of rows": (lambda x, **k: fastnorm.group_norm(x, 4, VECTOR.astype(x.dtype), **k), (7, 32)),
    "instance_norm": (_instance_norm, (2, 6, 5)),
    "batch_norm": (lambda x, **k: fastnorm.batch_norm(x, VECTOR[:6], POSITIVE[:6], VECTOR[:6], **k), (2, 6, 5, 4)),
    "batch_norm third": (
        lambda x, **k: fastnorm.batch_norm(x, VECTOR[:6], POSITIVE[:6], channel_axis=2, **k), (2, 5, 6, 4)
    ),
    "batch_norm features": (lambda x, **k: fastnorm.batch_norm(x, VECTOR, POSITIVE, **k), (7, 32)),
    "normalize": (lambda x, **k: fastnorm.normalize(x, VECTOR, POSITIVE, None, VECTOR, **k), (7, 32)),
    "l2_normalize down": (lambda x, **k: fastnorm.l2_normalize(x, axis=1, **k), (3, 20, 5)),
    "pixel_norm": (fastnorm.pixel_norm, (2, 6, 5, 4)),
    "standardize": (fastnorm.standardize, (90, 6)),
    "min_max_scale": (fastnorm.min_max_scale, (90, 6)),
    "max_abs_scale": (fastnorm.max_abs_scale, (90, 6)),
    "weight_norm": (lambda x, **k: fastnorm.weight_norm(x, np.abs(sample(len(x), dtype=x.dtype)), **k), (7, 3, 5)),
    "clip_by_value": (lambda x, **k: fastnorm.clip_by_value(x, -0.5, 0.75, **k), (7, 33)),
}  # fmt: skip
each_plain = pytest.mark.parametrize("name", PLAIN)


@each_plain
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_calls_are_served(name: str, dtype: Any, kernels: str, calls: list[bool]) -> None:
    function, shape = PLAIN[name]
    x = sample(*shape, dtype=dtype)
    y = function(x)
    out = np.empty_like(x)
    assert function(x, out=out) is out
    np.testing.assert_array_equal(out, y)
    in_place = x.copy()
    assert function(in_place, out=in_place) is in_place
    np.testing.assert_array_equal(in_place, y)
    assert calls
    assert all(calls)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    assert y.flags.writeable


@pytest.mark.parametrize("convention", ["torch", "keras", "onnx", "flax"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7, 33), 1),
        ((4, 6, 5), 1),
        ((1, 6, 50), 1),
        ((3, 2, 70001), 1),
        ((4, 5, 6), -1),
        ((2, 6, 1, 1), 1),
        ((2500, 130), 1),
        ((46, 1, 9), 1),
        ((24, 1, 4000), 1),
        ((300000, 1), 1),
    ],
)
def test_training_updates_the_running_statistics_as_the_general_path(
    shape: tuple[int, ...], axis: int, dtype: Any, convention: Any, kernels: str, calls: list[bool]
) -> None:
    x, channels = sample(*shape, dtype=dtype), shape[axis]
    weight, bias = sample(channels, dtype=dtype), sample(channels, dtype=dtype)
    for running in (np.float32, np.float64, None):
        states = []
        for keywords in ({}, {"backend": "cython"}, {"out": np.empty_like(x)}):
            mean = None if running is None else sample(channels, dtype=running)
            var = None if running is None else np.abs(sample(channels, dtype=running))
            y = fastnorm.batch_norm(
                x, mean, var, weight, bias, training=True, channel_axis=axis, convention=convention, **keywords
            )
            states.append((y.tobytes(), mean is not None and mean.tobytes(), var is not None and var.tobytes()))
        assert states[0] == states[1] == states[2]
    assert calls
    assert all(calls)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(40, 23, 531), (48, 44, 520), (12, 250, 301)], ids=["caches", "past the caches", "short images"]
)
def test_channels_that_take_turns_in_the_cache_have_the_bits_of_the_general_path(
    shape: tuple[int, ...], dtype: Any, kernels: str, calls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "STREAM_BYTES", 0)
    x, dy = sample(*shape, dtype=dtype), sample(*shape, dtype=dtype)[::-1].copy()
    weight, bias = sample(shape[1], dtype=dtype), sample(shape[1], dtype=dtype)
    x[3, 11] *= 1024  # its rows' first elements are far from the channel's mean
    given = fastnorm.batch_norm(x, training=True, return_stats=True)[1]._asdict()
    for threads in (1, 2):
        with fastnorm.config(num_threads=threads):
            plain, general = (
                [
                    fastnorm.batch_norm(x, None, None, weight, bias, training=True, **keywords),
                    *fastnorm.batch_norm_backward(dy, x, weight, training=True, **keywords),
                    *fastnorm.batch_norm_backward(dy, x, weight, training=True, **given, **keywords),
                ]
                for keywords in ({}, {"backend": "cython"})
            )
        assert [found.tobytes() for found in plain] == [expected.tobytes() for expected in general]
    assert all(calls)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "axis"), [((2500, 130), 0), ((40_000, 9), 0), ((3, 20_000, 2), 1)], ids=["tall", "few", "few in items"]
)
def test_lines_side_by_side_pass_by_pass_have_the_bits_of_the_general_path(
    shape: tuple[int, ...], axis: int, dtype: Any, kernels: str, calls: list[bool]
) -> None:
    x, weight = sample(*shape, dtype=dtype), sample(shape[axis], dtype=dtype)
    of_lines = sample(shape[-1], dtype=dtype)
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            plain, general = (
                [
                    fastnorm.layer_norm(x, axis=axis, **keywords),
                    fastnorm.layer_norm(x, weight, weight, axis=axis, **keywords),
                    fastnorm.rms_norm(x, axis=axis, **keywords),
                    fastnorm.standardize(x, axis=axis, **keywords),
                    fastnorm.instance_norm(x.reshape(-1, *shape[-2:]), of_lines, channel_axis=-1, **keywords),
                ]
                for keywords in ({}, {"backend": "cython"})
            )
        assert [found.tobytes() for found in plain] == [expected.tobytes() for expected in general]
    assert all(calls)


def test_training_on_what_is_not_plain_changes_the_running_statistics_once(calls: list[bool]) -> None:
    x = sample(4, 6, 5)
    mean, var = np.zeros(6, np.float32), np.ones(6, np.float32)
    fastnorm.batch_norm(x, mean, var, training=True)
    expected = mean.copy(), var.copy()
    huge = x * np.float32(5e36)  # beyond float32 on the way: the general path does it all
    for data, scale in ((np.asfortranarray(x), 1.0), (huge, 5e36)):
        mean[...], var[...] = 0, 1
        calls.clear()
        fastnorm.batch_norm(data, mean, var, training=True, out=np.empty_like(data))
        assert calls == [False]
        np.testing.assert_allclose(mean / scale, expected[0], rtol=0, atol=2.0**-23)  # x itself is rounded
    one = x.copy()
    one[:, 4] *= np.float32(5e36)
    mean[...], var[...] = 0, 1
    calls.clear()
    y = fastnorm.batch_norm(one, mean, var, training=True)
    assert calls == [False]
    np.testing.assert_array_equal(y, fastnorm.batch_norm(one, training=True, backend="cython"))
    np.testing.assert_array_equal(np.delete(mean, 4), np.delete(expected[0], 4))
    mean[...] = 0
    frozen = var.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        fastnorm.batch_norm(x, mean, frozen, training=True)
    assert not mean.any()
    with pytest.raises(ValueError, match="more than one value"):
        fastnorm.batch_norm(x[:1, :, :1], mean, var, training=True)
    assert not mean.any()


NOT_COPIED = ("weight_norm", "clip_by_value")


@each_plain
def test_what_is_not_plain_is_served_as_a_copy_with_the_same_result(name: str, calls: list[bool]) -> None:
    function, shape = PLAIN[name]
    x = sample(*shape)
    expected = function(x)
    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1).reshape(shape)
    for other in (x.astype(">f4"), strided, unaligned):
        before = other.tobytes()
        calls.clear()
        np.testing.assert_array_equal(function(other), expected)
        assert not calls[0]
        if other.dtype.isnative:  # some have parameters of the same dtype
            assert calls[-1] == (name not in NOT_COPIED)
        calls.clear()
        out = np.empty_like(x)
        assert function(other, out=out) is out
        assert not any(calls), "a result that has its place already"
        np.testing.assert_array_equal(out, expected)
        assert other.tobytes() == before
    calls.clear()
    if x.ndim == 2:
        np.testing.assert_array_equal(np.asarray(function(x.view(np.matrix))), expected)
        assert not any(calls)
    read_only = x.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(function(read_only), expected)
    assert calls[-1], "read-only input is plain"


@each_plain
def test_settings_and_keywords_are_obeyed(name: str, calls: list[bool]) -> None:
    function, shape = PLAIN[name]
    x = sample(*shape)
    for backend in ("reference", "cython", "numba"):
        with fastnorm.config(backend=backend):
            function(x)
    assert not any(calls)
    calls.clear()
    function(x, backend="cython")
    function(x, dtype="float16")
    assert not calls, "not even asked"


@each_plain
@pytest.mark.parametrize("kind", ["int8", "uint16", "bool", "int64", "float16", "float64"])
def test_what_is_converted_has_the_bits_of_the_general_path(
    name: str, kind: str, kernels: str, calls: list[bool]
) -> None:
    function, shape = PLAIN[name]
    x = np.abs(sample(*shape) * 20).astype(kind)
    transposed = np.asfortranarray(x)
    for other, keywords in ((x, {}), (x, {"dtype": "float64"}), (x, {"dtype": ">f8"}), (transposed, {})):
        calls.clear()
        try:
            found = function(other, **keywords)
        except (TypeError, ValueError) as error:
            with pytest.raises(type(error), match=re.escape(str(error))):
                function(other, **keywords, backend="cython")
            continue
        right = function(other, **keywords, backend="cython")
        assert found.dtype == right.dtype
        assert found.flags.c_contiguous
        assert found.tobytes() == right.tobytes()


def test_large_arrays_are_not_copied_before_all_is_checked() -> None:
    endless = np.broadcast_to(np.float32(0), (10**7, 10**7))
    with pytest.raises(ValueError, match="weight must have shape"):
        fastnorm.layer_norm(endless, np.ones(3))
    with pytest.raises(ValueError, match="running_mean and running_var are needed"):
        fastnorm.batch_norm(endless)


NORMS_OF_LINES = (fastnorm.layer_norm, fastnorm.rms_norm)


@pytest.mark.parametrize("norm", NORMS_OF_LINES)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 5, 6), (1, 2)),
        ((4, 5, 6), (-1, 1)),
        ((4, 5, 6), (0, -1, 1)),
        ((4, 5, 6), None),
        ((40, 3, 1), (2, 1)),
        ((2, 300, 250), (1, 2)),
        ((4, 40, 6), 1),
        ((9, 40), 0),
        ((2, 96, 7, 50), 1),
        ((3, 2100, 2), 1),
        ((5, 6, 1), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lines_of_any_axes_with_parameters(
    norm: Any, shape: tuple[int, ...], axis: Any, dtype: str, kernels: str, calls: list[bool]
) -> None:
    x = sample(*shape, dtype=dtype)
    axes = range(len(shape)) if axis is None else sorted(a % len(shape) for a in np.atleast_1d(axis))
    for of in ("float32", "float64"):
        weight, bias = sample(*(shape[a] for a in axes), dtype=of), sample(*(shape[a] for a in axes), dtype=of)[::-1]
        for parameters in ((), (weight,), (weight, np.ascontiguousarray(bias))):
            for threads in (1, 3):
                with fastnorm.config(num_threads=threads):
                    calls.clear()
                    found = norm(x, *parameters, axis=axis)
                    expected = norm(x, *parameters, axis=axis, backend="cython")
                assert threads == 3 or calls == [True]
                assert found.dtype == expected.dtype
                assert found.tobytes() == expected.tobytes()
                if axis is not None and not isinstance(axis, int):
                    calls.clear()
                    stats = norm(x, *parameters, axis=axis, return_stats=True)[1]
                    general = norm(x, *parameters, axis=axis, return_stats=True, backend="cython")[1]
                    assert threads == 3 or calls == [True]
                    for part, wanted in zip(stats, general, strict=True):
                        assert part.shape == wanted.shape
                        np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("norm", NORMS_OF_LINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_with_others_between(norm: Any, dtype: str, kernels: str, calls: list[bool]) -> None:
    block = sample(6, 5, 3, 72, dtype=dtype)
    rows = [block[:, 0, 0], block[:, :, 1], block[:, :, 2, :33], block[::2, 0, 0, 40:], block[:, 3:, :, :7][:, 0, 1]]
    rows += [block.reshape(90, 72)[:, :64], sample(300, 700, dtype=dtype)[:, 9:], block[0, 0, :, :2]]
    for x in rows:
        assert not x.flags.c_contiguous
        weight = sample(x.shape[-1], dtype=dtype)
        for parameters in ((), (weight, weight)):
            for threads in (1, 3):
                with fastnorm.config(num_threads=threads):
                    calls.clear()
                    found = norm(x, *parameters)
                assert threads == 3 or calls == [True]
                assert found.flags.c_contiguous
                assert found.tobytes() == norm(np.ascontiguousarray(x), *parameters, backend="cython").tobytes()


def test_rows_that_no_single_stride_separates_have_the_same_result(calls: list[bool]) -> None:
    block = sample(6, 5, 3, 72)
    others = [block[:, :, 0, ::2], block[:, 1:, :2], block[::-1, 0, 0], np.broadcast_to(block[0, 0, 0], (4, 72))]
    others += [
        np.broadcast_to(block[:, 0, :1], (6, 3, 72)),
        np.lib.stride_tricks.sliding_window_view(block[0, 0, 0], 8),
    ]
    others += [block[:, 0, 0].astype(">f4"), block.transpose(3, 0, 1, 2)[:, 0], block[:, 0, 0].astype("f2")[:, 1:]]
    for x in others:
        calls.clear()
        found = fastnorm.layer_norm(x)
        assert not calls[0]
        np.testing.assert_array_equal(found, fastnorm.layer_norm(np.ascontiguousarray(x, x.dtype.newbyteorder("="))))
    out = np.empty((6, 72), np.float32)
    assert fastnorm.layer_norm(block[:, 0, 0], out=out) is out
    np.testing.assert_array_equal(out, fastnorm.layer_norm(block[:, 0, 0]))
    inside = block[:, 0, 0]
    expected = fastnorm.layer_norm(inside)
    assert fastnorm.layer_norm(inside, out=inside) is inside
    np.testing.assert_array_equal(inside, expected)


@pytest.mark.parametrize("axis", [(), (0, 2), (1, 1), (1.0,), (True,), "1", 3, (1, 2, 3), (-4, 1), (2**70,)], ids=str)
def test_wrong_axes_still_get_their_message(axis: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="axis"):
        fastnorm.layer_norm(sample(2, 3, 4), axis=axis)


AXES = [((90, 6), 0), ((90, 6), -1), ((90, 6), None), ((7,), 0), ((3, 2100, 2), 1), ((2500, 33), 0), ((4, 1, 9), 1)]
AXES += [((2, 70_001), 1), ((140_000,), None), ((1, 3), -2)]


@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_statistics_and_scalers_along_any_axis(
    shape: tuple[int, ...], axis: int | None, dtype: str, kernels: str, calls: list[bool]
) -> None:
    ranges = {"feature_range": (-2.5, 7)}
    for kind in ("normal", "zeros of both signs", "not a number"):
        x = sample(*shape, dtype=dtype)
        if kind == "zeros of both signs":
            x = np.where(x > 0, x.dtype.type(0), -x.dtype.type(0))
        if kind == "not a number":
            x.reshape(-1)[x.size // 2] = np.nan
        for threads in (1, 3):
            with fastnorm.config(num_threads=threads):
                calls.clear()
                plain, general = (
                    [
                        fastnorm.standardize(x, axis=axis, **keywords),
                        fastnorm.min_max_scale(x, axis=axis, **ranges, **keywords),
                        fastnorm.max_abs_scale(x, axis=axis, **keywords),
                        *fastnorm.extrema(x, axis=axis, **keywords),
                        *astuple(fastnorm.moments(x, axis=axis, ddof=1, **keywords)),
                    ]
                    for keywords in ({}, {"backend": "cython"})
                )
            for found, expected in zip(plain, general, strict=True):
                assert type(found) is type(expected)
                np.testing.assert_array_equal(found, expected)  # which of two zeros is the least is left open
                assert np.shape(found) == np.shape(expected)
            if kind == "normal" and threads == 1 and dtype != "float16":
                assert calls == [True] * 5


def test_what_statistics_and_scalers_do_not_take_gets_its_message() -> None:
    x = sample(5, 6)
    with pytest.raises(TypeError, match="feature_range must be a pair of numbers, got None"):
        fastnorm.min_max_scale(x, feature_range=None)
    with pytest.raises(ValueError, match="feature_range must be ascending"):
        fastnorm.min_max_scale(x, feature_range=(1, 0))
    with pytest.raises(ValueError, match="ddof must be below the 5 elements of a line, got 5"):
        fastnorm.standardize(x, ddof=5)
    with pytest.raises(TypeError, match="channel_axis must be an int"):
        fastnorm.pixel_norm(x, channel_axis=(1,))
    with pytest.raises(ValueError, match="axis"):
        fastnorm.moments(x, axis=2)
    with pytest.raises(TypeError, match="positional-only"):
        fastnorm.extrema(x=x)


def _trained(x: Array, weight: Any, **keywords: Any) -> Any:
    return fastnorm.batch_norm(x, None, None, weight, weight, training=True, **keywords)


LINES = [(4, 48), (2, 3, 5), (3, 131), (4, 9, 8), (1, 70_001), (9, 2, 33)]


def _statistics(channels: int) -> tuple[Array, Array]:
    return sample(channels), np.abs(sample(channels, dtype=np.float64))


def _given(x: Array, weight: Any, channel_axis: int = 1, **keywords: Any) -> Any:
    given = _statistics(x.shape[channel_axis])
    return fastnorm.batch_norm(x, *given, weight, weight, channel_axis=channel_axis, **keywords)


CHANNELS = [(4, 48, 3), (2, 6, 5, 7), (3, 12, 131), (1, 6, 70_001), (40, 6, 5, 5)]
WITH_STATISTICS: dict[str, tuple[Any, int, list[tuple[int, ...]]]] = {
    "layer_norm": (lambda x, weight, **k: fastnorm.layer_norm(x, weight, **k), -1, LINES),
    "rms_norm": (lambda x, weight, **k: fastnorm.rms_norm(x, weight, **k), -1, LINES),
    "group_norm": (lambda x, weight, **k: fastnorm.group_norm(x, 3, weight, weight, **k), 1, CHANNELS),
    "instance_norm": (lambda x, weight, **k: fastnorm.instance_norm(x, weight, weight, **k), 1, CHANNELS),
    "batch_norm": (_trained, 1, [*CHANNELS, (7, 33), (2500, 130), (64, 6, 1)]),
    "batch_norm inference": (_given, 1, [*CHANNELS, (7, 33), (300, 130)]),
    "batch_norm inference, last": (lambda x, weight, **k: _given(x, weight, channel_axis=-1, **k), -1, CHANNELS),
    "normalize": (
        lambda x, weight, **k: fastnorm.normalize(x, *_statistics(x.shape[-1]), weight, **k), -1, [(7, 33), (4, 5, 6)]
    ),
    "batch_norm last": (lambda x, weight, **k: _trained(x, weight, channel_axis=-1, **k), -1, CHANNELS),
    "batch_norm third": (
        lambda x, weight, **k: _trained(x, weight, channel_axis=2, **k), 2, [(2, 3, 12, 7), (1, 3, 6, 5), (40, 5, 6, 1)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_STATISTICS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_statistics_are_those_of_the_general_path(name: str, dtype: str, kernels: str, calls: list[bool]) -> None:
    norm, axis, shapes = WITH_STATISTICS[name]
    for shape in shapes:
        x = sample(*shape, dtype=dtype) + np.ones((), dtype)
        for weight in (None, sample(shape[axis], dtype=dtype)):
            y, stats = norm(x, weight, return_stats=True, backend="cython")
            for threads in (1, 4):
                with fastnorm.config(num_threads=threads):
                    found, (mean, rstd) = norm(x, weight, return_stats=True)
                assert found.tobytes() == y.tobytes()
                assert mean.shape == rstd.shape == stats.mean.shape
                assert mean.dtype == rstd.dtype == np.float64
                np.testing.assert_array_equal(mean, stats.mean)
                np.testing.assert_array_equal(rstd, stats.rstd)
                # Lines that threads must share may go the general way, and those that a desk of 65,536 cannot hold.
                assert calls[-1] or threads > 1 or (dtype == "float16" and shape[-1] > 65_536)


@pytest.mark.parametrize(
    "shape", [(4, 3, 48), (2, 5, 7, 6), (3, 131, 12), (1, 70_001, 6), (40, 5, 5, 6), (2, 1100, 96)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_channels_that_are_last(shape: tuple[int, ...], dtype: str, kernels: str, calls: list[bool]) -> None:
    x, channels = sample(*shape, dtype=dtype) + np.ones((), dtype), shape[-1]
    parameters = sample(channels, dtype=dtype), sample(channels)
    for norm in (
        lambda *p, **k: fastnorm.group_norm(x, 3, *p, channel_axis=-1, **k),
        lambda *p, **k: fastnorm.group_norm(x, 1, *p, channel_axis=len(shape) - 1, **k),
        lambda *p, **k: fastnorm.instance_norm(x, *p, channel_axis=-1, **k),
    ):
        for given in ((), parameters[:1], parameters):
            for threads in (1, 4):
                with fastnorm.config(num_threads=threads):
                    calls.clear()
                    found = norm(*given)
                    expected = norm(*given, backend="cython")
                assert found.dtype == expected.dtype
                assert found.tobytes() == expected.tobytes()
                # Threads that share lines, and tiles of 16-bit floats, may go the general way.
                assert any(calls) or threads > 1 or dtype == "float16"
    huge = x.astype(np.float32) * np.float32(1e37)
    np.testing.assert_array_equal(
        fastnorm.group_norm(huge, 3, channel_axis=-1), fastnorm.group_norm(huge, 3, channel_axis=-1, backend="cython")
    )


@pytest.mark.parametrize("shape", [(4, 6), (32, 96), (7, 60, 1, 1), (2, 1, 6), (700, 1500), (1, 15_000), (1, 60_000)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_groups_of_single_values(shape: tuple[int, ...], dtype: str, kernels: str, calls: list[bool]) -> None:
    axis = 1 if shape[1] > 1 else -1
    x, channels = sample(*shape, dtype=dtype) + np.ones((), dtype), shape[axis]
    parameters = sample(channels, dtype=dtype), sample(channels)
    for given in ((), parameters[:1], parameters):
        for threads in (1, 4):
            with fastnorm.config(num_threads=threads):
                calls.clear()
                found = fastnorm.group_norm(x, 3, *given, channel_axis=axis)
                # A long weight without a bias goes the general way, and so do 16-bit floats.
                assert dtype == "float16" or channels > 16384 or any(calls)
                expected, stats = fastnorm.group_norm(
                    x, 3, *given, channel_axis=axis, return_stats=True, backend="cython"
                )
                assert found.tobytes() == expected.tobytes()
                if axis == 1:
                    calls.clear()
                    found, (mean, rstd) = fastnorm.group_norm(x, 3, *given, return_stats=True)
                    assert dtype == "float16" or channels > 16384 or any(calls)
                    assert found.tobytes() == expected.tobytes()
                    np.testing.assert_array_equal(mean, stats.mean, strict=True)
                    np.testing.assert_array_equal(rstd, stats.rstd, strict=True)
    if dtype == "float32":
        large = np.full(channels, 2.0**121, np.float32)  # beyond what vectors apply
        in_place = x.copy()
        expected = fastnorm.group_norm(x, 3, large, channel_axis=axis, backend="cython")
        found = fastnorm.group_norm(in_place, 3, large, channel_axis=axis, out=in_place)
        np.testing.assert_array_equal(found, expected)


# Rows of every length that is made in another way, more of them than are in flight.
@pytest.mark.parametrize("length", [1, 3, 8, 9, 40, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_rows_that_are_not_ordinary_beside_others_that_are(
    length: int, dtype: str, kernels: str, calls: list[bool]
) -> None:
    x = sample(21, length)
    x[2, 0], x[5, -1], x[17, 0] = np.nan, np.inf, -np.inf
    x[3], x[7], x[11] = 4.0, 0.0, -0.0
    if dtype not in ("float16",):
        x[13] *= np.float32(1e30)
        x[19] *= np.float32(1e-30)
    x = x.astype(dtype_of(dtype))
    weight = sample(length).astype(x.dtype)
    for norm in (fastnorm.layer_norm, fastnorm.rms_norm):
        for options in ({"return_stats": True}, {"residual": x}, {"activation": "silu", "return_stats": True}):
            with fastnorm.config(num_threads=1):
                found = norm(x, weight, eps=0.0, **options)
            expected = norm(x, weight, eps=0.0, **options, backend="cython")
            if "return_stats" in options:
                np.testing.assert_array_equal(found[1].mean, expected[1].mean)
                np.testing.assert_array_equal(found[1].rstd, expected[1].rstd)
                found, expected = found[0], expected[0]
            np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))
    assert all(calls)


@pytest.mark.parametrize("norm", [fastnorm.layer_norm, fastnorm.rms_norm])
def test_statistics_and_sum_come_in_their_order(norm: Any, kernels: str, calls: list[bool]) -> None:
    x, residual, out = sample(5, 40), sample(5, 40)[::-1].copy(), np.empty((5, 40), np.float32)
    options = {"residual": residual, "return_residual": True, "return_stats": True, "activation": "silu"}
    with fastnorm.config(num_threads=1):  # threads that share lines leave a residual to the general path
        y, stats, total = norm(x, out=out, **options)
    general = norm(x, backend="cython", **options)
    assert y is out
    assert isinstance(stats, type(general[1]))
    assert calls == [True]
    for part, expected in zip((y, *stats, total), (general[0], *general[1], general[2]), strict=True):
        assert part.tobytes() == expected.tobytes()


@pytest.mark.parametrize("norm", NORMS_OF_LINES)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, 40), -1), ((2, 3, 300), (1, 2)), ((4, 5, 7), None), ((9, 1), -1), ((300, 700), -1)],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_lines_are_quantised_as_on_the_general_path(
    norm: Any, shape: tuple[int, ...], axis: Any, dtype: str, kernels: str, calls: list[bool]
) -> None:
    x, residual = sample(*shape, dtype=dtype), sample(*shape, dtype=dtype)[::-1].copy()
    everything = {"residual": residual, "return_residual": True, "return_stats": True, "activation": "silu"}
    for options in ({}, {"activation": "relu"}, {"residual": residual}, {"return_stats": True}, everything):
        for threads in (1, 3):
            with fastnorm.config(num_threads=threads):
                calls.clear()
                found = norm(x, axis=axis, quantize="int8", **options)
                general = norm(x, axis=axis, quantize="int8", **options, backend="cython")
            assert calls[-1] or threads > 1, "lines that threads must share may go the general way"
            assert len(found) == len(general)
            assert (found[0].dtype, found[1].dtype) == (np.int8, np.float32)
            assert found[0].flags.c_contiguous
            for part, expected in zip(found, general, strict=True):
                assert np.shape(part) == np.shape(expected)
                np.testing.assert_array_equal(part, expected)


PIXELS = [((2, 61, 67, 3), -1), ((1, 5, 7, 3), -1), ((3, 1), -1), ((2, 3, 70001), 1), ((2, 3, 5, 7), 1)]


@pytest.mark.parametrize(("shape", "axis"), [*PIXELS, ((9, 300), 1), ((3, 70000, 4), -1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_pixels_of_bytes_and_few_channels(
    shape: tuple[int, ...], axis: int, dtype: str, kernels: str, calls: list[bool]
) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    channels = shape[axis]
    mean, var, weight = np.linspace(90, 130, channels), np.linspace(3000, 4000, channels), np.linspace(-1, 2, channels)
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            y = fastnorm.normalize(x, list(mean), tuple(var), weight, mean, channel_axis=axis)
            out = np.empty(shape, y.dtype)
            assert fastnorm.normalize(x, mean, var, weight, mean, channel_axis=axis, out=out) is out
            general = fastnorm.normalize(x, mean, var, weight, mean, channel_axis=axis, backend="cython")
        assert y.dtype == general.dtype == (np.float64 if dtype == "float64" else np.float32)
        assert y.tobytes() == out.tobytes() == general.tobytes()
    assert all(calls)
    for wrong in (["a"] * channels, [None] * channels, [[1.0]] * channels):
        with pytest.raises((TypeError, ValueError), match="normalize: mean"):
            fastnorm.normalize(x, wrong, var, channel_axis=axis)


# Rows on both sides of where threads share the channels instead, channels on both sides of what they take at once.
@pytest.mark.parametrize("shape", [(1, 25), (2, 512), (64, 513), (128, 1000), (129, 1000), (3, 5000)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "parameters"), [(np.float32, np.float32), (np.float32, np.float64), (np.float64, np.float32)]
)
def test_channels_of_few_rows(
    shape: tuple[int, int], dtype: Any, parameters: Any, kernels: str, calls: list[bool]
) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(dtype)
    mean, var, weight, bias = (rng.uniform(0.1, 2.0, shape[1]).astype(parameters) for _ in range(4))
    for vectors in ((weight, bias), (weight, None), (None, None)):
        general = fastnorm.batch_norm(x, mean, var, *vectors, backend="cython")
        calls.clear()
        for threads in (1, 2, 5):
            with fastnorm.config(num_threads=threads):
                assert fastnorm.batch_norm(x, mean, var, *vectors).tobytes() == general.tobytes()
        assert all(calls)


def test_a_channel_of_few_rows_beyond_the_range_of_float32(kernels: str) -> None:
    x, var = sample(8, 700), np.ones(700)
    var[600] = 1e-90
    for threads in (1, 2):
        with fastnorm.config(num_threads=threads):
            y = fastnorm.batch_norm(x, np.zeros(700), var, eps=0.0)
        np.testing.assert_array_equal(np.delete(y, 600, 1), np.delete(x, 600, 1))
        np.testing.assert_array_equal(y[:, 600], np.copysign(np.float32(np.inf), x[:, 600]))


def test_the_result_may_lie_over_the_statistics(kernels: str) -> None:
    out = np.abs(sample(8, 700, dtype=np.float64))
    # Channels that one thread takes have their statistics where another's results go.
    x, mean, var = sample(8, 700, dtype=np.float64), out.ravel()[600:1300], out.ravel()[2700:3400]
    expected = fastnorm.batch_norm(x, mean.copy(), var.copy())
    np.testing.assert_array_equal(fastnorm.batch_norm(x, mean, var, out=out), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-20, 5e4])
def test_every_16_bit_number_is_read_and_rounded_as_numpy_does(
    dtype: str, scale: float, kernels: str, calls: list[bool]
) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(dtype_of(dtype)).astype(np.float32)
    every = np.random.default_rng(0).permutation(every[np.abs(every) < 1e30])  # what is infinite spreads over its row
    x = every[: every.size // 61 * 61].reshape(-1, 61).astype(dtype_of(dtype))
    weight, bias = (np.linspace(a, b, 61).astype(np.float32) for a, b in ((scale, -scale), (0, scale * 1e-3)))
    for keywords in ({}, {"weight": weight}, {"weight": weight.astype(x.dtype), "bias": bias.astype(x.dtype)}):
        plain = fastnorm.layer_norm(x, eps=0.0, **keywords)
        general = fastnorm.layer_norm(x, eps=0.0, **keywords, backend="cython")
        assert plain.dtype == x.dtype
        assert plain.tobytes() == general.tobytes()
    assert all(calls)
    strange = x[:5].copy()
    strange[0, 3], strange[2, 0], strange[4, 60] = np.nan, np.inf, -np.inf
    y = fastnorm.rms_norm(strange)
    np.testing.assert_array_equal(y.astype(np.float32), fastnorm.rms_norm(strange, backend="cython").astype(np.float32))
    assert fastnorm.rms_norm(strange, out=strange) is strange
    np.testing.assert_array_equal(strange.astype(np.float32), y.astype(np.float32))


def test_outputs_begin_at_a_cache_line_and_keep_their_memory(kernels: str) -> None:
    for rows in (1, 100, 128, 500):
        outputs = [fastnorm.layer_norm(sample(rows, 77)) for _ in range(5)]
        for y in outputs:
            assert rows * 77 * 4 < 32768 or y.ctypes.data % 64 == 0
            np.testing.assert_array_equal(y, outputs[0])


def test_bad_arguments_still_get_their_message() -> None:
    x = sample(4, 6)
    for wrong, message in (
        ({"eps": -1.0}, "eps must be at least 0"),
        ({"eps": float("nan")}, "eps must be a number"),
        ({"weight": sample(5)}, "weight must have shape"),
        ({"bias": sample(6, 1)}, "bias must have shape"),
        ({"out": sample(4, 5)}, "out must have the shape"),
        ({"axis": 2}, "axis 2 is out of range"),
    ):
        with pytest.raises(ValueError, match=f"layer_norm: {message}"):
            fastnorm.layer_norm(x, **wrong)
    for out in ([1.0], 1, "no array", memoryview(b"1")):
        with pytest.raises(TypeError, match=r"batch_norm: out must be a numpy\.ndarray"):
            fastnorm.batch_norm(sample(2, 3, 4), training=True, out=out)
    with pytest.raises(ValueError, match="num_groups must divide"):
        fastnorm.group_norm(sample(2, 6, 5), 4)
    with pytest.raises(TypeError, match="num_groups must be an int"):
        fastnorm.group_norm(sample(2, 6, 5), 2.0)


def test_an_overlapping_out_gives_the_result_of_no_overlap(kernels: str) -> None:
    memory = np.zeros(80, np.float32)
    x, out = memory[:60].reshape(6, 10), memory[7:67].reshape(6, 10)
    x[...] = sample(6, 10)
    expected = fastnorm.layer_norm(x.copy())
    fastnorm.layer_norm(x, out=out)
    np.testing.assert_array_equal(out, expected)
    block = sample(12, 10)
    expected = fastnorm.layer_norm(block, block[0].copy(), block[1].copy())
    np.testing.assert_array_equal(fastnorm.layer_norm(block, block[0], block[1], out=block), expected)
    block = sample(12, 32)
    mean, var = block[0], np.abs(sample(32)) + 1
    expected = fastnorm.batch_norm(block, mean.copy(), var)
    np.testing.assert_array_equal(fastnorm.batch_norm(block, mean, var, out=block), expected)
    memory = np.zeros(400, np.uint8)
    pixels, out = memory[:96].reshape(32, 3), memory[:384].view(np.float32).reshape(32, 3)
    pixels[...] = np.random.default_rng(0).integers(0, 256, (32, 3))
    expected = fastnorm.normalize(pixels.copy(), [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    np.testing.assert_array_equal(fastnorm.normalize(pixels, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], out=out), expected)


# More elements than one thread serves, in fewer lines than there are threads.
FEW_LINES = [(1, 140_000), (3, 65_537), (2, 65_536 * 2 + 1), (1, 2, 70_001)]


@pytest.mark.parametrize("shape", FEW_LINES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", [0, 1, 2])
def test_threads_share_lines_that_are_few(
    shape: tuple[int, ...], dtype: Any, parameters: int, kernels: str, calls: list[bool]
) -> None:
    x = sample(*shape, dtype=dtype) + 3
    given = [sample(shape[-1], dtype=dtype) for _ in range(parameters)]
    for norm, vectors in ((fastnorm.layer_norm, given), (fastnorm.rms_norm, given[:1])):
        with fastnorm.config(num_threads=1):
            alone = norm(x, *vectors)
        with fastnorm.config(num_threads=4):
            del calls[:]
            np.testing.assert_array_equal(norm(x, *vectors), alone)
            assert calls == [True]
            np.testing.assert_array_equal(norm(x, *vectors, backend="cython"), alone)


@pytest.mark.parametrize("scale", [1e30, 1e-30, 0.0, np.nan])
def test_few_lines_beyond_the_range_of_float32(scale: float, kernels: str) -> None:
    x = sample(1, 140_000) * np.float32(scale)
    with fastnorm.config(num_threads=1):
        expected = fastnorm.layer_norm(x, eps=0.0), fastnorm.rms_norm(x, eps=0.0)
    with fastnorm.config(num_threads=4):
        for y, other in zip((fastnorm.layer_norm(x, eps=0.0), fastnorm.rms_norm(x, eps=0.0)), expected, strict=True):
            np.testing.assert_array_equal(y, other)


@pytest.mark.parametrize("x", [[[3.0], [np.nan], [np.inf], [1e38]], [[1e-45], [0.0], [-5.0]]], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lines_of_one_element(x: Any, dtype: Any, backend: str) -> None:
    lines = np.array(x, dtype)
    expected = np.where(np.isfinite(lines), 0.5, np.nan).astype(dtype)
    np.testing.assert_array_equal(
        fastnorm.layer_norm(lines, np.full(1, 2, dtype), np.full(1, 0.5, dtype), backend=backend), expected
    )


def test_training_may_write_over_a_weight_of_another_dtype(kernels: str) -> None:
    x = sample(8, 16, 300)
    x[:, -1] *= np.float32(1e-36)  # a channel for the general path, when others have been written
    memory = np.zeros(x.size // 2)
    weight = memory[:16]
    weight[...] = np.arange(1, 17)
    expected = fastnorm.batch_norm(x, weight=weight.copy(), training=True, eps=0.0)
    found = fastnorm.batch_norm(x, weight=weight, training=True, eps=0.0, out=memory.view(np.float32).reshape(x.shape))
    np.testing.assert_array_equal(found, expected)


def test_a_dtype_without_a_number_of_its_own_is_not_taken_for_bfloat16() -> None:
    scaled = pytest.importorskip("numpy._core._multiarray_umath")._get_sfloat_dtype()(1.0)
    x = np.arange(12.0).reshape(3, 4).astype(scaled)
    assert x.dtype.num == -1
    for function in (fastnorm.layer_norm, fastnorm.rms_norm, fastnorm.moments):
        with pytest.raises(TypeError, match="real number"):
            function(x)
