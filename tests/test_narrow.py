"""float16 and bfloat16: the bits of the float32 call, rounded once, whatever the shape, the layout and the threads."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import dtype_of
from kernel_data import assert_bits
from narrow_cases import (
    CHANNEL_NORMS,
    CHANNELS,
    COLUMN_NORMS,
    COLUMNS,
    ROW_NORMS,
    ROWS,
    Array,
    Norm,
    Shape,
    assert_rounded,
    data,
    each_dtype,
    parts,
    rounded,
    strange_rows,
    variances,
    vector,
    wide,
)

import fastnorm


def assert_norm(norm: Norm, x: Array, served: str, **options: Any) -> None:
    """A plain call and one by the general path give the bits of the float32 call."""
    expected = norm(wide(x), **options)
    dtype = x.dtype.newbyteorder("=")
    assert_rounded(norm(x, **options), expected, dtype, f"plain, {x.shape}")
    assert_rounded(norm(x, **options, backend=served), expected, dtype, f"general, {x.shape}")


# Every norm, every border


@each_dtype
@pytest.mark.parametrize("name", ROW_NORMS)
def test_rows(name: str, dtype: str, served: str) -> None:
    for shape in ROWS:
        assert_norm(ROW_NORMS[name], data(shape, dtype), served)


@each_dtype
@pytest.mark.parametrize("name", COLUMN_NORMS)
def test_columns(name: str, dtype: str, served: str) -> None:
    for shape in COLUMNS:  # these have no fast path
        x = data(shape, dtype)
        assert_rounded(COLUMN_NORMS[name](x), COLUMN_NORMS[name](wide(x)), x.dtype, str(shape))


@each_dtype
@pytest.mark.parametrize("width", [1, 2, 128, 129, 257])
def test_a_column_that_is_alone_in_its_tile_has_the_bits_of_its_neighbours(width: int, dtype: str, served: str) -> None:
    for length in (2, 65, 512):
        x = data((20, length, width), dtype)
        expected = fastnorm.layer_norm(wide(x), axis=1, return_stats=True)
        assert_rounded(fastnorm.layer_norm(x, axis=1, return_stats=True, backend=served), expected, x.dtype)


def _channels(dtype: str) -> Iterator[tuple[Array, int]]:
    for shape in CHANNELS:
        x = data(shape, dtype)
        yield x, 1
        if x.ndim > 2:
            yield np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1


@each_dtype
@pytest.mark.parametrize("name", CHANNEL_NORMS)
def test_channels(name: str, dtype: str, served: str) -> None:
    for x, axis in _channels(dtype):
        assert_norm(lambda x, axis=axis, **k: CHANNEL_NORMS[name](x, axis, **k), x, served)


FEW_ROWS: list[Shape] = [(5, 33), (300, 1), (7, 2049), (1, 65537)]
FEW_COLUMNS: list[Shape] = [(3, 65, 33), (2, 65, 257), (1, 1025, 129), (1, 512, 3)]
FEW_CHANNELS: list[Shape] = [(2, 4, 33), (3, 1, 70001), (3, 6, 1025), (300, 6)]


def _few(dtype: str) -> Iterator[tuple[str, Norm, Array]]:
    """A few shapes of every norm."""
    for name, norm in ROW_NORMS.items():
        for shape in FEW_ROWS:
            yield f"{name}, rows", norm, data(shape, dtype)
    for name, norm in COLUMN_NORMS.items():
        for shape in FEW_COLUMNS:
            yield f"{name}, columns", norm, data(shape, dtype)
    for name, norm in CHANNEL_NORMS.items():
        for shape in FEW_CHANNELS:
            x = data(shape, dtype)
            yield f"{name}, channels", lambda x, norm=norm, **k: norm(x, 1, **k), x
            last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            yield f"{name}, channels last", lambda x, norm=norm, **k: norm(x, -1, **k), last


@each_dtype
def test_statistics_are_float64_and_those_of_the_float32_call(dtype: str, served: str) -> None:
    for name, norm, x in _few(dtype):
        expected = norm(wide(x), return_stats=True)
        assert_rounded(norm(x, return_stats=True), expected, x.dtype, f"{name}, {x.shape}")
        assert_rounded(norm(x, return_stats=True, backend=served), expected, x.dtype, f"{name}, {x.shape}")


@each_dtype
def test_running_statistics_are_updated_as_by_the_float32_call(dtype: str, served: str) -> None:
    for running in (np.float32, np.float64, dtype_of(dtype)):
        for shape in FEW_CHANNELS:
            x = data(shape, dtype)
            states = []
            for array, options in ((wide(x), {}), (x, {}), (x, {"backend": served})):
                mean, var = vector(shape[1]).astype(running), variances(shape[1]).astype(running)
                fastnorm.batch_norm(array, mean, var, training=True, **options)
                states.append((mean.tobytes(), var.tobytes()))
            assert states[0] == states[1] == states[2], (running, shape)


@each_dtype
@pytest.mark.parametrize(
    ("shapes", "axis"), [(ROWS, -1), (ROWS, 0), (ROWS, None), (COLUMNS, 1), (COLUMNS, (0, 1))],
    ids=["rows", "columns", "all", "columns of items", "columns of all"],
)  # fmt: skip
def test_moments_and_extrema(shapes: list[Shape], axis: Any, dtype: str, served: str) -> None:
    for shape in shapes:
        x = data(shape, dtype)
        copy = wide(x)
        expected, found = (fastnorm.moments(array, axis=axis, backend=served) for array in (copy, x))
        for name in ("mean", "var", "std", "m2", "count"):
            assert_rounded(getattr(found, name), getattr(expected, name), np.float32, f"{name}, {shape}")
        assert_rounded(fastnorm.moments(x, axis=axis).var, expected.var, np.float32, str(shape))
        assert_rounded(
            tuple(fastnorm.extrema(x, axis=axis)), tuple(fastnorm.extrema(copy, axis=axis)), x.dtype, str(shape)
        )


@each_dtype
def test_welford_and_masks(dtype: str, served: str) -> None:
    batches = [data((n, 37), dtype) for n in (1, 64, 1025, 3000)]
    for axis in (0, None):
        narrow, single = fastnorm.Welford(axis=axis), fastnorm.Welford(axis=axis)
        for batch in batches:
            narrow.update(batch)
            single.update(wide(batch))
        assert narrow.count == single.count
        for name in ("mean", "var", "std"):
            assert_rounded(getattr(narrow, name), getattr(single, name), np.float64)
    x = data((4, 6, 33), dtype)
    where = np.arange(33) % 3 > 0
    assert_rounded(
        fastnorm.moments(x, axis=-1, where=where).var, fastnorm.moments(wide(x), axis=-1, where=where).var, np.float64
    )
    for norm in (fastnorm.instance_norm, lambda x, **k: fastnorm.group_norm(x, 2, **k)):
        assert_rounded(norm(x, where=where), norm(wide(x), where=where), x.dtype)


# Layouts


LAYOUT_NORMS: dict[str, tuple[Shape, Norm]] = {
    "layer_norm": ((9, 77), lambda x, **k: fastnorm.layer_norm(x, vector(77), **k)),
    "layer_norm, long": ((2, 65537), fastnorm.layer_norm),
    "layer_norm, columns": ((65, 130), lambda x, **k: fastnorm.layer_norm(x, axis=0, **k)),
    "rms_norm": ((3, 2049), fastnorm.rms_norm),
    "standardize": ((1025, 7), fastnorm.standardize),
    "min_max_scale": ((1025, 7), fastnorm.min_max_scale),
    "batch_norm, training": ((6, 5, 33), lambda x, **k: fastnorm.batch_norm(x, training=True, **k)),
    "batch_norm, features": ((70, 130), lambda x, **k: fastnorm.batch_norm(x, training=True, **k)),
    "batch_norm, inference": (
        (6, 5, 33), lambda x, **k: fastnorm.batch_norm(x, vector(5), variances(5), vector(5), **k)
    ),
    "normalize": ((70, 3), lambda x, **k: fastnorm.normalize(x, vector(3), variances(3), **k)),
    "group_norm": ((3, 6, 35), lambda x, **k: fastnorm.group_norm(x, 2, vector(6), vector(6), **k)),
    "instance_norm, last": ((3, 35, 6), lambda x, **k: fastnorm.instance_norm(x, channel_axis=-1, **k)),
    "clip_by_norm": ((9, 77), lambda x, **k: fastnorm.clip_by_norm(x, 1.5, axis=0, **k)),
}  # fmt: skip
each_layout_norm = pytest.mark.parametrize("name", LAYOUT_NORMS)


@each_dtype
@each_layout_norm
def test_views_of_any_strides(name: str, dtype: str, served: str) -> None:
    shape, norm = LAYOUT_NORMS[name]
    x = data(shape, dtype)
    unaligned = np.frombuffer(b"\0" + x.tobytes() + b"\0", np.uint8)[1:-1].view(x.dtype).reshape(shape)
    assert not unaligned.flags.aligned
    assert not x.flags.writeable
    shifted = np.empty(x.size + 1, x.dtype)[1:].reshape(shape)
    shifted[...] = x
    views = [
        unaligned, shifted, np.repeat(x, 2, axis=-1)[..., ::2], np.asfortranarray(x), np.flip(x, 0), np.flip(x),
        x.swapaxes(0, 1).copy().swapaxes(0, 1), np.concatenate([x, x], axis=-1)[..., : shape[-1]],
    ]  # fmt: skip
    if dtype == "float16":
        views.append(x.astype(">f2"))
    for view in views:
        assert_norm(norm, view, served)


@each_dtype
@each_layout_norm
def test_out(name: str, dtype: str, served: str) -> None:
    shape, norm = LAYOUT_NORMS[name]
    x = data(shape, dtype)
    expected = rounded(norm(wide(x)), x.dtype)
    for options in ({}, {"backend": served}):
        outs = [np.full(shape, 7, x.dtype), np.full((*shape, 2), 7, x.dtype)[..., 0], np.asfortranarray(x)]
        outs.append(np.full(x.nbytes + 1, 7, np.uint8)[1:].view(x.dtype).reshape(shape))
        for out in outs:
            assert norm(x, out=out, **options) is out
            assert_bits(np.ascontiguousarray(out), expected)
        in_place = x.copy()
        assert norm(in_place, out=in_place, **options) is in_place
        assert_bits(in_place, expected)
        flipped = np.flip(x).copy()
        norm(np.flip(flipped), out=np.flip(flipped), **options)
        assert_bits(np.flip(flipped).copy(), expected)
        for elements in (1, 7, 40):
            for first, second in ((0, elements), (elements, 0)):
                memory = np.empty(x.size + elements, x.dtype)
                source, target = (memory[k : k + x.size].reshape(shape) for k in (first, second))
                source[...] = x
                norm(source, out=target, **options)
                assert_bits(target.copy(), expected, f"{first} {second}")


def test_out_over_the_parameters_of_the_fast_path(served: str) -> None:
    block = data((12, 10), "float16").copy()
    expected = rounded(fastnorm.layer_norm(wide(block), wide(block[0]), wide(block[1])), np.float16)
    assert_bits(fastnorm.layer_norm(block, block[0], block[1], out=block), expected)


@each_dtype
@each_layout_norm
def test_a_result_of_another_dtype(name: str, dtype: str, served: str) -> None:
    shape, norm = LAYOUT_NORMS[name]
    x = data(shape, dtype)
    copy = wide(x)
    sources = [x, copy, x.astype(">f2")] if dtype == "float16" else [x, copy]
    for other in (np.dtype(np.float32), np.dtype(np.float16), np.dtype(">f2"), dtype_of("bfloat16")):
        expected = rounded(norm(copy), other)
        for options in ({}, {"backend": served}, {"out": np.empty(shape, other)}):
            for source in sources:
                assert_bits(norm(source, dtype=other, **options), expected, f"{source.dtype} to {other}")
    assert_bits(norm(x, dtype=np.float64), norm(x.astype(np.float64)))


PARAMETERS: list[tuple[str | None, str | None]] = [
    (weight, bias)
    for weight in (None, "float16", "bfloat16", "float32", "float64", "int8")
    for bias in (None, "float16", "bfloat16", "float32", "float64")
]


@each_dtype
def test_parameters_of_any_dtype(dtype: str, served: str) -> None:
    def given(length: int, kinds: tuple[str | None, str | None]) -> list[Array | None]:
        return [None if kind is None else vector(length, seed, kind) for seed, kind in enumerate(kinds)]

    for kinds in PARAMETERS:
        for shape, channels, norm in (
            ((9, 77), 77, fastnorm.layer_norm),
            ((2, 65537), 65537, fastnorm.layer_norm),
            ((65, 9), 65, lambda x, *p, **k: fastnorm.layer_norm(x, *p, axis=0, **k)),
            ((6, 4, 33), 4, lambda x, *p, **k: fastnorm.group_norm(x, 2, *p, **k)),
            ((6, 33, 4), 4, lambda x, *p, **k: fastnorm.group_norm(x, 2, *p, channel_axis=-1, **k)),
            ((6, 4, 33), 4, fastnorm.instance_norm),
            ((6, 4, 33), 4, lambda x, *p, **k: fastnorm.batch_norm(x, None, None, *p, training=True, **k)),
            ((6, 4, 33), 4, lambda x, *p, **k: fastnorm.batch_norm(x, vector(4), variances(4), *p, **k)),
            ((6, 4), 4, lambda x, *p, **k: fastnorm.normalize(x, vector(4), variances(4), *p, **k)),
        ):
            parameters = given(channels, kinds)
            assert_norm(lambda x, norm=norm, p=parameters, **k: norm(x, *p, **k), data(shape, dtype), served)
        weight = given(77, kinds)[:1]
        assert_norm(lambda x, p=weight, **k: fastnorm.rms_norm(x, *p, **k), data((9, 77), dtype), served)
    statistics = [vector(4, 0, dtype), variances(4).astype(dtype_of(dtype))]
    for x in (data((6, 4, 33), dtype), data((6, 4), dtype)):
        assert_norm(lambda x, **k: fastnorm.batch_norm(x, *statistics, **k), x, served)


# Threads


THREADED: dict[str, tuple[Shape, Norm]] = {
    "rows": ((301, 257), ROW_NORMS["layer_norm, weight and bias"]),
    "short rows": ((70_001, 3), ROW_NORMS["rms_norm, weight"]),
    "long rows": ((5, 65_537), ROW_NORMS["layer_norm, weight and bias"]),
    "few rows": ((2, 60_000), ROW_NORMS["layer_norm, weight and bias"]),
    "one row": ((1, 3 * 65_536 + 5), ROW_NORMS["rms_norm, weight"]),
    "one row of extremes": ((1, 3 * 65_536 + 5), ROW_NORMS["min_max_scale"]),
    "columns": ((1, 300, 513), COLUMN_NORMS["layer_norm, weight and bias"]),
    "long columns": ((2, 1025, 129), COLUMN_NORMS["standardize"]),
    "extremes of columns": ((2, 1025, 129), COLUMN_NORMS["min_max_scale"]),
    **{
        name: ((9, 6, 2049), lambda x, norm=norm, **k: norm(x, 1, **k))
        for name, norm in CHANNEL_NORMS.items()
    },
    **{
        f"{name}, last": ((9, 2049, 6), lambda x, norm=norm, **k: norm(x, -1, **k))
        for name, norm in CHANNEL_NORMS.items()
    },
}  # fmt: skip


@each_dtype
@pytest.mark.parametrize("name", THREADED)
def test_threads_do_not_show(name: str, dtype: str, served: str, threads_for_all: None) -> None:
    shape, norm = THREADED[name]
    x = data(shape, dtype)
    expected = rounded(norm(wide(x)), x.dtype)
    for threads in (1, 2, 3):
        with fastnorm.config(num_threads=threads):
            assert_bits(norm(x), expected, f"{threads} threads")
            assert_bits(norm(x, backend=served), expected, f"{threads} threads, general")


# Numbers at the ends of the range


@each_dtype
@pytest.mark.parametrize("columns", [3, 40, 2049, 5000])
def test_strange_numbers_in_rows(dtype: str, columns: int, served: str) -> None:
    x = strange_rows(dtype, columns)
    norms = dict(ROW_NORMS)
    for eps in (0.0, 1e-30):
        norms[f"layer_norm, eps={eps}"] = lambda x, eps=eps, **k: fastnorm.layer_norm(x, vector(columns), eps=eps, **k)
        norms[f"rms_norm, eps={eps}"] = lambda x, eps=eps, **k: fastnorm.rms_norm(x, eps=eps, **k)
        norms[f"l2_normalize, eps={eps}"] = lambda x, eps=eps, **k: fastnorm.l2_normalize(x, eps=eps, **k)
    for norm in norms.values():
        assert_norm(norm, x, served)
        for row in x[:, np.newaxis]:
            assert_norm(norm, row, served)


@each_dtype
@pytest.mark.parametrize("length", [3, 40, 513, 1200])
def test_strange_numbers_in_columns(dtype: str, length: int, served: str) -> None:
    x = np.ascontiguousarray(strange_rows(dtype, length).T)[np.newaxis]
    norms = dict(COLUMN_NORMS)
    norms["layer_norm, eps=0"] = lambda x, **k: fastnorm.layer_norm(x, vector(length), axis=1, eps=0, **k)
    norms["rms_norm, eps=0"] = lambda x, **k: fastnorm.rms_norm(x, axis=1, eps=0.0, **k)
    for norm in norms.values():
        assert_norm(norm, x, served)
        for column in range(x.shape[2]):
            assert_norm(norm, np.ascontiguousarray(x[:, :, column : column + 1]), served)


@each_dtype
@pytest.mark.parametrize("length", [3, 40, 2049])
def test_strange_numbers_in_channels(dtype: str, length: int, served: str) -> None:
    x = np.stack([strange_rows(dtype, length), data((24, length), dtype)])
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for norm in CHANNEL_NORMS.values():
        for eps in (1e-5, 0.0):
            options = {} if norm is CHANNEL_NORMS["pixel_norm"] else {"eps": eps}
            assert_norm(lambda x, norm=norm, **k: norm(x, 1, **k), x, served, **options)
            assert_norm(lambda x, norm=norm, **k: norm(x, -1, **k), last, served, **options)
            for channel in range(24):
                one = np.ascontiguousarray(x[:, channel : channel + 1])
                assert_norm(lambda x, norm=norm, **k: norm(x, 1, **k), one, served, **options)


@each_dtype
def test_what_is_beyond_the_largest_number_becomes_infinite(dtype: str, served: str) -> None:
    for factor in (5e4, 3e38):
        for shape in ((4, 77), (2, 65537)):
            x, weight = data(shape, dtype), np.full(shape[1], factor, np.float32)
            assert_norm(lambda x, w=weight, **k: fastnorm.layer_norm(x, w, **k), x, served)
            assert dtype != "float16" or np.isinf(fastnorm.layer_norm(x, weight)).any()
        x, weight = data((4, 5, 33), dtype), np.full(5, factor, np.float32)
        assert_norm(lambda x, w=weight, **k: fastnorm.group_norm(x, 5, w, **k), x, served)
        assert_norm(lambda x, w=weight, **k: fastnorm.batch_norm(x, None, None, w, training=True, **k), x, served)
        for small in (1e-9, 1e-30):
            given = vector(5), np.full(5, small)
            assert_norm(lambda x, g=given, w=weight, **k: fastnorm.batch_norm(x, *g, w, eps=0.0, **k), x, served)


# One answer for all instruction sets


def test_every_instruction_set_gives_the_same_bits(cython_labels: list[str], serve: Callable[[str], str]) -> None:
    for dtype in ("float16", "bfloat16"):
        for name, norm, x in _few(dtype):
            results = [parts(norm(x, return_stats=True, backend=serve(label))) for label in cython_labels]
            for other in results[1:]:
                for found, expected in zip(other, results[0], strict=True):
                    assert_bits(found, expected, f"{name}, {x.shape}")
