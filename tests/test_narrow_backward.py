"""Backward passes of float16 and bfloat16: dx has the bits of the float32 call, rounded once; sums are float64.

The float32 call takes the float64 copy of a weight, which is the same number, so that it returns the sums unrounded.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import dtype_of, named
from kernel_data import assert_bits
from narrow_cases import (
    CHANNELS,
    COLUMNS,
    MIXTURE,
    ROWS,
    Array,
    Shape,
    data,
    each_dtype,
    rounded,
    strange_rows,
    variances,
    vector,
    wide,
)

import fastnorm

# The backward pass and its forward one, by (x, options); `axis` is that of the parameters.
Backward = tuple[str, dict[str, Any]]

ROW_NORMS: dict[str, Backward] = {
    "layer_norm": ("layer_norm", {}),
    "rms_norm": ("rms_norm", {}),
    "l2_normalize": ("l2_normalize", {}),
    "pixel_norm": ("pixel_norm", {"channel_axis": -1}),
}
COLUMN_NORMS: dict[str, Backward] = {
    "layer_norm": ("layer_norm", {"axis": 1}),
    "rms_norm": ("rms_norm", {"axis": 1}),
    "l2_normalize": ("l2_normalize", {"axis": 1}),
    "pixel_norm": ("pixel_norm", {"channel_axis": 1}),
}
CHANNEL_NORMS: dict[str, Backward] = {
    "batch_norm, training": ("batch_norm", {"training": True}),
    "batch_norm, inference": ("batch_norm", {}),
    "instance_norm": ("instance_norm", {}),
    "group_norm, one group": ("group_norm", {"num_groups": 1}),
    "group_norm, two channels each": ("group_norm", {"num_groups": None}),
    "group_norm, each channel": ("group_norm", {"num_groups": -1}),
    "switchable_norm": ("switchable_norm", {"training": True}),
    "pixel_norm": ("pixel_norm", {}),
}
WEIGHTLESS = ("l2_normalize", "pixel_norm")


def channel_options(op: str, options: dict[str, Any], channels: int, axis: int) -> dict[str, Any]:
    """Complete the options of a norm of channels."""
    options = {**options, "channel_axis": axis}
    if op == "batch_norm" and "training" not in options:
        options |= {"running_mean": vector(channels, 4), "running_var": variances(channels)}
    if op == "switchable_norm":
        options |= dict(zip(("mean_weight", "var_weight"), MIXTURE, strict=True))
    if op == "group_norm":
        options["num_groups"] = {None: channels // (2 - channels % 2), -1: channels}.get(options["num_groups"], 1)
    return options


def statistics(op: str, x: Array, options: dict[str, Any]) -> dict[str, Array]:
    """Return mean and rstd of the forward pass, by name."""
    stats: dict[str, Array] = getattr(fastnorm, op)(x, **options, return_stats=True)[1]._asdict()
    return stats


def assert_backward(
    op: str, dy: Array, x: Array, options: dict[str, Any], weight: Array | None, served: str, message: str = ""
) -> None:
    """A plain call and one by the general path have the gradients of the float32 call."""
    function = getattr(fastnorm, f"{op}_backward")
    exact, given, kind = dict(options), dict(options), x.dtype.newbyteorder("=")
    if weight is not None:
        given["weight"], exact["weight"] = weight, weight.astype(np.float64)
    expected = named(function(wide(dy), wide(x), **exact))
    for more in ({}, {"backend": served}):
        found = named(function(dy, x, **given, **more))
        assert set(found) == set(expected)
        where = f"{op} {message} {x.shape} {more}"
        assert_bits(found["dx"], rounded(expected["dx"], kind), where)
        for name in ("dweight", "dbias"):
            if name not in found:
                continue
            if weight is not None:
                assert_bits(found[name], rounded(expected[name], weight.dtype), f"{where} {name}")
            else:
                assert found[name].dtype == kind, where
        if "dmean_weight" in found:
            for name in ("dmean_weight", "dvar_weight"):
                assert_bits(found[name], expected[name], f"{where} {name}")


def upstream(x: Array, dtype: str) -> Array:
    return data(x.shape, dtype, 7)


# Every norm, every border


@each_dtype
@pytest.mark.parametrize("name", ROW_NORMS)
def test_rows(name: str, dtype: str, served: str) -> None:
    op, options = ROW_NORMS[name]
    for shape in ROWS:
        x = data(shape, dtype)
        stats = statistics(op, wide(x), options)
        assert_backward(op, upstream(x, dtype), x, options, None, served)
        weight = None if op in WEIGHTLESS else vector(shape[1], 1, "float64")
        assert_backward(op, upstream(x, dtype), x, options | stats, weight, served, "given")
        if op not in WEIGHTLESS:
            assert_backward(op, upstream(x, dtype), x, options, vector(shape[1], 2, dtype), served)


@each_dtype
@pytest.mark.parametrize("name", COLUMN_NORMS)
def test_columns(name: str, dtype: str, served: str) -> None:
    op, options = COLUMN_NORMS[name]
    for shape in COLUMNS[::-2]:
        x = data(shape, dtype)
        assert_backward(op, upstream(x, dtype), x, options, None, served)
        if shape[2] in (3, 129):
            stats = statistics(op, wide(x), options)
            assert_backward(op, upstream(x, dtype), x, options | stats, None, served, "given")
            if op not in WEIGHTLESS:
                assert_backward(op, upstream(x, dtype), x, options, vector(shape[1], 1, "float64"), served)


def _channels(shapes: list[Shape], dtype: str) -> Iterator[tuple[Array, int]]:
    for shape in shapes:
        x = data(shape, dtype)
        yield x, 1
        if x.ndim > 2:
            yield np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1


def _channel_weights(op: str, channels: int, dtype: str) -> list[Array | None]:
    if op in WEIGHTLESS:
        return [None]
    return [None, vector(channels, 1, "float64"), vector(channels, 2, dtype)]


@each_dtype
@pytest.mark.parametrize("name", CHANNEL_NORMS)
def test_channels(name: str, dtype: str, served: str) -> None:
    op, options = CHANNEL_NORMS[name]
    for x, axis in _channels(CHANNELS, dtype):
        chosen = channel_options(op, options, x.shape[axis], axis)
        weights = _channel_weights(op, x.shape[axis], dtype)[-1 if x.size > 100_000 else 0 :]
        for weight in weights:
            assert_backward(op, upstream(x, dtype), x, chosen, weight, served)
        if op != "switchable_norm" and "running_mean" not in chosen:
            stats = statistics(op, wide(x), chosen)
            assert_backward(op, upstream(x, dtype), x, chosen | stats, weights[-1], served, "given")


FEW_ROWS: list[Shape] = [(5, 33), (300, 2), (7, 2049), (1, 21846)]
FEW_CHANNELS: list[Shape] = [(2, 4, 33), (3, 6, 1025), (300, 6)]


def _few(dtype: str) -> Iterator[tuple[str, Array, dict[str, Any], Array | None]]:
    """Yield a few calls of every norm: its name, x, its options and a weight."""
    for op, options in ROW_NORMS.values():
        for shape in FEW_ROWS:
            yield op, data(shape, dtype), options, None if op in WEIGHTLESS else vector(shape[1], 1, "float64")
    for op, options in COLUMN_NORMS.values():
        yield op, data((3, 65, 33), dtype), options, None if op in WEIGHTLESS else vector(65, 1, "float64")
    for op, options in CHANNEL_NORMS.values():
        for x, axis in _channels(FEW_CHANNELS, dtype):
            channels = x.shape[axis]
            weight = None if op in WEIGHTLESS else vector(channels, 1, "float64")
            yield op, x, channel_options(op, options, channels, axis), weight


# Layouts, dtypes, out


@each_dtype
def test_views_of_any_strides(dtype: str, served: str) -> None:
    for op, x, options, weight in _few(dtype):
        dy = upstream(x, dtype)
        unaligned = np.frombuffer(b"\0" + x.tobytes() + b"\0", np.uint8)[1:-1].view(x.dtype).reshape(x.shape)
        pairs = [
            (dy, unaligned), (np.asfortranarray(dy), x), (dy, np.asfortranarray(x)), (np.flip(dy), np.flip(x)),
            (np.repeat(dy, 2, axis=-1)[..., ::2], np.repeat(x, 2, axis=-1)[..., ::2]),
        ]  # fmt: skip
        if dtype == "float16":
            pairs.append((dy.astype(">f2"), x.astype(">f2")))
        for other_dy, other_x in pairs:
            assert_backward(op, other_dy, other_x, options, weight, served)


@each_dtype
def test_out(dtype: str, served: str) -> None:
    for op, x, options, weight in _few(dtype):
        dy, given = upstream(x, dtype), options if weight is None else options | {"weight": weight}
        function = getattr(fastnorm, f"{op}_backward")
        expected = named(function(wide(dy), wide(x), **given))
        expected["dx"] = rounded(expected["dx"], x.dtype)
        for more in ({}, {"backend": served}):
            outs = [np.full(x.shape, 7, x.dtype), np.full((*x.shape, 2), 7, x.dtype)[..., 0]]
            outs += [x.copy(), dy.copy()]
            for number, out in enumerate(outs):
                found = named(function(out if number == 3 else dy, out if number == 2 else x, **given, out=out, **more))
                assert found["dx"] is out
                for name, part in found.items():
                    assert_bits(np.ascontiguousarray(part), expected[name], f"{op} {name} {number}")


@each_dtype
def test_dy_and_results_of_another_dtype(dtype: str, served: str) -> None:
    for op, x, options, weight in _few(dtype):
        dy, given = upstream(x, dtype), options if weight is None else options | {"weight": weight}
        function = getattr(fastnorm, f"{op}_backward")
        expected = named(function(wide(dy), wide(x), **given))["dx"]
        pairs = [(dy, x), (dy.astype(">f2"), x.astype(">f2"))] if dtype == "float16" else [(dy, x)]
        for other in (np.dtype(np.float32), np.dtype(np.float16), np.dtype(">f2"), dtype_of("bfloat16")):
            for more in ({}, {"backend": served}):
                for pair in pairs:
                    found = named(function(*pair, **given, dtype=other, **more))["dx"]
                    assert_bits(found, rounded(expected, other), f"{op} {other}")
        for other_dy in (wide(dy), dy.astype(np.float64)):
            for more in ({}, {"backend": served}):
                found = named(function(other_dy, x, **given, **more))["dx"]
                assert_bits(found, rounded(expected, x.dtype), op)


def test_parameters_without_a_weight_have_the_dtype_of_x(served: str) -> None:
    """Rounded from float64: those of the float32 call with a weight of ones, which multiplies nothing."""
    for dtype in ("float16", "bfloat16"):
        x, ones = data((4, 6, 35), dtype), np.ones(6)
        dy = upstream(x, dtype)
        for options in ({}, {"backend": served}):
            for found, expected in (
                (fastnorm.batch_norm_backward(dy, x, training=True, **options),
                 fastnorm.batch_norm_backward(wide(dy), wide(x), ones, training=True)),
                (fastnorm.group_norm_backward(dy, x, 3, **options),
                 fastnorm.group_norm_backward(wide(dy), wide(x), 3, ones)),
                (fastnorm.layer_norm_backward(dy, x, **options),
                 fastnorm.layer_norm_backward(wide(dy), wide(x), np.ones(35))),
            ):  # fmt: skip
                for part, other in zip(found, expected, strict=True):
                    assert_bits(part, rounded(other, x.dtype))


# Threads, and numbers at the ends of the range


def gradients(op: str, dy: Array, x: Array, given: dict[str, Any], **more: Any) -> dict[str, Array]:
    return named(getattr(fastnorm, f"{op}_backward")(dy, x, **given, **more))


@each_dtype
def test_threads_do_not_show(dtype: str, served: str, threads_for_all: None) -> None:
    shapes: list[Shape] = [(9, 6, 2049)]
    calls = [
        *((op, x, channel_options(op, options, x.shape[axis], axis), vector(6, 1, "float64"))
          for op, options in CHANNEL_NORMS.values() for x, axis in _channels(shapes, dtype)),
        *((op, data(shape, dtype), options, vector(shape[1], 1, "float64"))
          for op, options in ROW_NORMS.values() for shape in ((301, 257), (50_001, 3), (3, 21_846), (2, 70_001))),
    ]  # fmt: skip
    for op, x, options, weight in calls:
        given = options if op in WEIGHTLESS else options | {"weight": weight}
        dy = upstream(x, dtype)
        expected = gradients(op, wide(dy), wide(x), given)
        expected["dx"] = rounded(expected["dx"], x.dtype)
        for threads in (1, 2, 3):
            with fastnorm.config(num_threads=threads):
                for more in ({}, {"backend": served}):
                    for name, part in gradients(op, dy, x, given, **more).items():
                        assert_bits(part, expected[name], f"{op} {x.shape} {threads} threads {more}")


@each_dtype
@pytest.mark.parametrize("length", [3, 40, 5000])
def test_strange_numbers(length: int, dtype: str, served: str) -> None:
    x = strange_rows(dtype, length)
    dy = upstream(x, dtype)
    for source, gradient in ((x, dy), (dy, x)):
        for op, options in ROW_NORMS.values():
            weight = None if op in WEIGHTLESS else vector(length, 1, "float64")
            assert_backward(op, gradient, source, options, weight, served)
            assert_backward(op, gradient, source, options | {"eps": 0.0}, weight, served, "eps=0")
        columns, upward = (np.ascontiguousarray(part.T)[np.newaxis] for part in (source, gradient))
        for op, options in COLUMN_NORMS.values():
            assert_backward(op, upward, columns, options, None, served)
            assert_backward(op, upward, columns, options | {"eps": 0.0}, None, served, "eps=0")
        images, backwards = (np.stack([part, data(x.shape, dtype)]) for part in (source, gradient))
        for op, options in CHANNEL_NORMS.values():
            weight = None if op in WEIGHTLESS else vector(24, 1, "float64")
            for axis in (1, -1):
                pair = (np.ascontiguousarray(np.moveaxis(part, 1, axis)) for part in (backwards, images))
                assert_backward(op, *pair, channel_options(op, options, 24, axis), weight, served)


def test_every_instruction_set_gives_the_same_bits(cython_labels: list[str], serve: Callable[[str], str]) -> None:
    for dtype in ("float16", "bfloat16"):
        for op, x, options, weight in _few(dtype):
            given = options if weight is None else options | {"weight": weight}
            first, *others = [
                gradients(op, upstream(x, dtype), x, given, backend=serve(label)) for label in cython_labels
            ]
            for found in others:
                for name, part in found.items():
                    assert_bits(part, first[name], f"{op} {x.shape} {name}")


def test_a_gradient_that_is_wider_than_x_is_not_rounded_first(backend: str) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((4, 40)).astype(np.float16), rng.standard_normal((4, 40)).astype(np.float32)
    found = fastnorm.layer_norm_backward(dy, x, backend=backend)
    exact = fastnorm.layer_norm_backward(dy, x.astype(np.float32), backend=backend)
    np.testing.assert_array_equal(found.dx, exact.dx.astype(np.float16))
    np.testing.assert_array_equal(found.dbias, exact.dbias.astype(np.float16))
