"""The same bits at any position in a batch, any alignment, next to any neighbour, from any thread and any process."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytest
from processes import output

import fastnorm
from fastnorm import tuning

Array = np.ndarray[Any, Any]
Norm = Callable[..., Array]

# Norms whose items, x[k], do not depend on each other.
BY_ITEM: dict[str, Norm] = {
    "layer_norm": lambda x, **k: fastnorm.layer_norm(x, **k),
    "layer_norm, weights": lambda x, **k: fastnorm.layer_norm(x, np.arange(x.shape[-1]), np.ones(x.shape[-1]), **k),
    "layer_norm, lanes": lambda x, **k: fastnorm.layer_norm(x, axis=1, **k),
    "layer_norm, three axes": lambda x, **k: fastnorm.layer_norm(x, axis=(1, 2, 3), **k),
    "rms_norm": lambda x, **k: fastnorm.rms_norm(x, axis=2, **k),
    "rms_norm, weights": lambda x, **k: fastnorm.rms_norm(x, np.arange(x.shape[-1]), **k),
    "instance_norm": lambda x, **k: fastnorm.instance_norm(x, np.arange(6.0), **k),
    "instance_norm, last": lambda x, **k: fastnorm.instance_norm(x, channel_axis=-1, **k),
    "group_norm": lambda x, **k: fastnorm.group_norm(x, 3, np.arange(6.0), **k),
    "group_norm, last": lambda x, **k: fastnorm.group_norm(x, 2, channel_axis=-1, **k),
    "group_norm, middle": lambda x, **k: fastnorm.group_norm(x, 1, channel_axis=2, **k),
    "batch_norm, inference": lambda x, **k: fastnorm.batch_norm(x, np.arange(6.0), np.ones(6), **k),
    "pixel_norm": lambda x, **k: fastnorm.pixel_norm(x, **k),
    "l2_normalize": lambda x, **k: fastnorm.l2_normalize(x, **k),
    "weight_standardize": lambda x, **k: fastnorm.weight_standardize(x, **k),
    "weight_norm": lambda x, **k: fastnorm.weight_norm(x, np.ones(len(x)), **k),
    "standardize": lambda x, **k: fastnorm.standardize(x, axis=(1, 2), **k),
    "min_max_scale": lambda x, **k: fastnorm.min_max_scale(x, axis=-1, **k),
}
SHAPES = [(5, 6, 7, 4), (3, 6, 1, 2), (4, 6, 67, 34), (2, 6, 2050, 2)]
each_norm = pytest.mark.parametrize("name", BY_ITEM)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def data(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + 100).astype(dtype)


@each_norm
@each_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_item_has_the_same_bits_alone_and_at_every_position(
    name: str, dtype: Any, shape: tuple[int, ...], compiled: str
) -> None:
    x = data(shape, dtype)
    y = BY_ITEM[name](x, backend=compiled)
    for k in range(len(x)):
        np.testing.assert_array_equal(BY_ITEM[name](x[k : k + 1], backend=compiled)[0], y[k])
    moved = BY_ITEM[name](np.concatenate([data(shape, dtype, 1), x]), backend=compiled)
    np.testing.assert_array_equal(moved[len(x) :], y)


@each_norm
@each_dtype
def test_memory_alignment_does_not_show(name: str, dtype: Any, compiled: str) -> None:
    shape = (4, 6, 67, 34)
    x = data(shape, dtype)
    y = BY_ITEM[name](x, backend=compiled)
    for elements in (1, 2, 3, 5, 8, 13):
        moved, out = (np.empty(x.size + 16, dtype)[elements : elements + x.size].reshape(shape) for _ in range(2))
        moved[...] = x
        np.testing.assert_array_equal(BY_ITEM[name](moved, out=out, backend=compiled), y)


def outputs(shape: tuple[int, ...], dtype: Any) -> Iterator[Array]:
    """Yield arrays for results, by how far they lie past a cache line; what lies beside them must stay as it is."""
    size = prod(shape)
    for elements in (0, 1, 5):
        room = np.full(size + 64, 7, dtype)
        start = -room.ctypes.data % 64 // room.itemsize + elements
        yield room[start : start + size].reshape(shape)
        assert (room[:start] == 7).all()
        assert (room[start + size :] == 7).all()


@each_dtype
@pytest.mark.parametrize(
    "shape", [(2, 6, 1030, 90), (1, 6, 60, 3001), (550, 6, 64, 5), (25, 6, 7, 1008), (50, 6, 7, 504)], ids=str
)
@pytest.mark.parametrize(
    "name",
    ["layer_norm, weights", "rms_norm, weights", "instance_norm", "instance_norm, last", "batch_norm, inference"],
)
def test_stores_past_the_caches_do_not_show(
    name: str, shape: tuple[int, ...], dtype: Any, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = data(shape, dtype)
    monkeypatch.setattr(tuning, "STREAM_BYTES", 2**62)
    expected = BY_ITEM[name](x, backend=compiled)
    monkeypatch.setattr(tuning, "STREAM_BYTES", 0)
    for out in outputs(shape, dtype):
        np.testing.assert_array_equal(BY_ITEM[name](x, out=out, backend=compiled), expected)


BACKWARD: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "layer_norm": (lambda dy, x, w, **k: fastnorm.layer_norm_backward(dy, x, w, **k), (1030, 1031)),
    "layer_norm, pairs": (lambda dy, x, w, **k: fastnorm.layer_norm_backward(dy, x, w, **k), (2200, 504)),
    "rms_norm, pairs": (lambda dy, x, w, **k: fastnorm.rms_norm_backward(dy, x, w, **k), (1100, 1008)),
    "layer_norm, short rows": (lambda dy, x, w, **k: fastnorm.layer_norm_backward(dy, x, w, **k), (17_000, 64)),
    "layer_norm, lanes": (lambda dy, x, w, **k: fastnorm.layer_norm_backward(dy, x, axis=0, **k), (1030, 1031)),
    "group_norm": (lambda dy, x, w, **k: fastnorm.group_norm_backward(dy, x, 2, w, **k), (2, 6, 90, 1000)),
    "batch_norm": (lambda dy, x, w, **k: fastnorm.batch_norm_backward(dy, x, w, training=True, **k), (2, 6, 90, 1000)),
    "batch_norm, last": (
        lambda dy, x, w, **k: fastnorm.batch_norm_backward(dy, x, w, training=True, channel_axis=-1, **k),
        (2, 90, 100, 64),
    ),
}


@each_dtype
@pytest.mark.parametrize("name", BACKWARD)
def test_gradients_written_past_the_caches_do_not_show(
    name: str, dtype: Any, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, shape = BACKWARD[name]
    x, dy = data(shape, dtype), data(shape, dtype, 1)
    weight = data((shape[1 if name in ("group_norm", "batch_norm") else -1],), dtype, 2)
    monkeypatch.setattr(tuning, "STREAM_BYTES", 2**62)
    expected = backward(dy, x, weight, backend=compiled)
    monkeypatch.setattr(tuning, "STREAM_BYTES", 0)
    for out in outputs(shape, dtype):
        for gradient, wanted in zip(backward(dy, x, weight, out=out, backend=compiled), expected, strict=True):
            np.testing.assert_array_equal(gradient, wanted)


FUSED: dict[str, dict[str, Any]] = {
    "sum": {"residual": True},
    "sum, returned": {"residual": True, "return_residual": True},
    "sum, returned, relu": {"residual": True, "return_residual": True, "activation": "relu"},
    "relu": {"activation": "relu"},
    "silu, statistics": {"activation": "silu", "return_stats": True},
    "int8": {"quantize": "int8"},
    "sum, returned, int8": {"residual": True, "return_residual": True, "quantize": "int8"},
}


ROWS_OR_IMAGES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "layer_norm": (
        lambda x, w, **k: fastnorm.layer_norm(x, w, **k),
        [(1030, 1031), (2200, 504), (1150, 1008), (17_000, 64), (260, 4100)],
    ),
    "rms_norm": (lambda x, w, **k: fastnorm.rms_norm(x, w, **k), [(1031, 1030), (2200, 504), (17_000, 64)]),
    "batch_norm": (
        lambda x, w, **k: fastnorm.batch_norm(x, w[:6], 1 + w[6:12] ** 2, w[12:18], w[18:24], **k),
        [(2, 6, 300, 320), (1, 6, 403, 450)],
    ),
    "batch_norm, last": (
        lambda x, w, **k: fastnorm.batch_norm(x, w[:48], w[48:96] ** 2, w[1:49], w[2:50], channel_axis=-1, **k),
        [(1, 150, 147, 48)],
    ),
}


@each_dtype
@pytest.mark.parametrize(
    ("form", "name", "shape"),
    [
        (form, name, shape)
        for name, (_, shapes) in ROWS_OR_IMAGES.items()
        for shape in shapes
        for form in FUSED
        if not name.startswith("batch") or form in ("sum", "sum, returned", "sum, returned, relu", "relu")
    ],
    ids=str,
)
def test_what_is_fused_and_goes_past_the_caches_does_not_show(
    form: str, name: str, shape: tuple[int, ...], dtype: Any, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = data(shape, dtype), data((max(shape[-1], 96),), dtype, 2)
    if not name.startswith("batch"):
        x[5] *= 1e30  # a line whose squares float32 cannot hold
        weight = weight[: shape[-1]]
    options = dict(FUSED[form])
    residual = data(shape, dtype, 1) if options.pop("residual", False) else None
    call = partial(ROWS_OR_IMAGES[name][0], w=weight, **{"backend": compiled, **options})
    monkeypatch.setattr(tuning, "STREAM_BYTES", 2**62)
    expected = arrays_in(call(x, residual=residual))
    monkeypatch.setattr(tuning, "STREAM_BYTES", 0)
    for out in outputs(shape, dtype) if "quantize" not in options else [None]:
        for found, wanted in zip(arrays_in(call(x, residual=residual, out=out)), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(arrays_in(call(x, residual=residual, backend=None)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    for which in (0, 1) if residual is not None and "quantize" not in options else ():
        given = [x.copy(), residual.copy()]
        for found, wanted in zip(arrays_in(call(given[0], residual=given[1], out=given[which])), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(given[1 - which], (x, residual)[1 - which])


def arrays_in(result: Any) -> list[Array]:
    """Return the arrays of a result, which may be several, statistics among them."""
    return [one for part in result for one in arrays_in(part)] if isinstance(result, tuple) else [result]


def assert_neighbours_keep_their_bits(norm: Norm, x: Array, line: Any, strange: float) -> None:
    """All but a line of x give the same with that line strange as without."""
    changed, neighbours = x.copy(), np.ones(x.shape, bool)
    neighbours[line] = False
    pattern = np.where(np.arange(changed[line].size) % 2, 1.0, 0.5).reshape(changed[line].shape)
    changed[line] = pattern * np.float32(strange)
    np.testing.assert_array_equal(norm(changed)[neighbours], norm(x)[neighbours])


@pytest.mark.parametrize("shape", [(67, 40), (1030, 7), (3, 5000), (2, 3, 70, 9)], ids=str)
@pytest.mark.parametrize("strange", [np.nan, np.inf, 1e-39, 1e38])
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("lines_per_thread", [0, 10**9])
def test_a_strange_line_does_not_change_a_bit_of_its_neighbours(
    shape: tuple[int, ...], strange: float, threads: int, lines_per_thread: float, compiled: str,
    monkeypatch: pytest.MonkeyPatch, threads_for_all: None,
) -> None:  # fmt: skip
    x = data(shape, np.float32)
    monkeypatch.setattr(tuning, "LINES_PER_THREAD", lines_per_thread)
    last = len(shape) - 1
    weight = np.linspace(0.5, 2.0, shape[1], dtype=np.float32)
    norms: list[tuple[Norm, Any]] = [
        (lambda x: fastnorm.layer_norm(x, eps=0), (*[0] * last, slice(None))),
        (lambda x: fastnorm.layer_norm(x, axis=0, eps=0), (slice(None), *[1] * last)),
        (lambda x: fastnorm.instance_norm(x[np.newaxis], eps=0)[0], 1),
        (lambda x: fastnorm.batch_norm(x, training=True, eps=0), (slice(None), 1)),
        (lambda x: fastnorm.batch_norm(x, None, None, weight, weight, training=True, eps=0), (slice(None), 1)),
        (lambda x: fastnorm.standardize(x), (slice(None), *[1] * last)),
    ]
    with fastnorm.config(backend=compiled, num_threads=threads):
        for norm, line in norms:
            assert_neighbours_keep_their_bits(norm, x, line, strange)


@pytest.mark.parametrize("shape", [(67, 40), (1030, 7), (3, 5000), (2, 3, 70, 9), (9, 2, 66000)], ids=str)
@pytest.mark.parametrize("strange", [np.nan, np.inf, 1e-39, 1e38])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_strange_line_does_not_change_a_bit_of_its_neighbours_gradients(
    shape: tuple[int, ...], strange: float, threads: int, compiled: str, threads_for_all: None
) -> None:
    x, dy = data(shape, np.float32), data(shape, np.float32, 1)
    last = len(shape) - 1
    weight = np.linspace(0.5, 2.0, shape[1], dtype=np.float32)
    norms: list[tuple[Norm, Any]] = [
        (lambda x: fastnorm.layer_norm_backward(dy, x, eps=0).dx, (*[0] * last, slice(None))),
        (lambda x: fastnorm.layer_norm_backward(dy, x, axis=0, eps=0).dx, (slice(None), *[1] * last)),
        (lambda x: fastnorm.instance_norm_backward(dy[np.newaxis], x[np.newaxis], eps=0).dx[0], 1),
        (lambda x: fastnorm.batch_norm_backward(dy, x, weight, training=True, eps=0).dx, (slice(None), 1)),
        (lambda x: fastnorm.batch_norm_backward(dy, x, training=True, channel_axis=-1, eps=0).dx, (..., 1)),
        (lambda x: fastnorm.pixel_norm_backward(dy, x, eps=0), (0, slice(None), *[0] * (last - 1))),
    ]
    with fastnorm.config(backend=compiled, num_threads=threads):
        for norm, line in norms:
            assert_neighbours_keep_their_bits(norm, x, line, strange)


@pytest.mark.parametrize(
    "x", [np.full(10**6, 5e-324), np.full(10**6, 1e-310), np.full(10**6, 3e-39, np.float32)], ids=str
)
def test_a_scale_that_the_dtype_cannot_hold_is_the_same_for_any_number_of_threads(x: Array, compiled: str) -> None:
    found = []
    for threads in (1, 2, 4):
        with fastnorm.config(backend=compiled, num_threads=threads):
            found.append(fastnorm.lp_normalize(x, p=1).tobytes())
        with fastnorm.config(num_threads=threads):
            found.append(fastnorm.lp_normalize(x, p=1).tobytes())
    assert len(set(found)) == 1


# Several callers at once


def test_calls_from_several_threads_at_once_give_the_same_bits(compiled: str) -> None:
    x = data((8, 6, 67, 34), np.float32)

    def work(seed: int) -> list[Array]:
        with fastnorm.config(backend=compiled, num_threads=1 + seed % 4):
            return [
                fastnorm.layer_norm(x),
                fastnorm.batch_norm(x, training=True),
                fastnorm.group_norm(x, 2, channel_axis=-1),
                fastnorm.moments(x, axis=(0, 2)).var,
            ]

    expected = work(0)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(work, range(64)):
            for part, other in zip(result, expected, strict=True):
                np.testing.assert_array_equal(part, other)


FORK = """
import os, sys, warnings
import numpy as np, fastnorm
warnings.simplefilter("ignore")  # of a fork while other threads run, which is the point
x = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)
fastnorm.set_num_threads(2)
expected = fastnorm.layer_norm(x), fastnorm.moments(x, axis=0).var, fastnorm.batch_norm(x, training=True)
child = os.fork()
if not child:
    actual = fastnorm.layer_norm(x), fastnorm.moments(x, axis=0).var, fastnorm.batch_norm(x, training=True)
    os._exit(0 if all(np.array_equal(a, b) for a, b in zip(actual, expected)) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this operating system has no fork")
def test_a_forked_child_gives_the_same_bits(compiled: str) -> None:
    assert output(FORK, FASTNORM_BACKEND=compiled) == "0"


def test_a_second_process_gives_the_same_bits(compiled: str) -> None:
    code = """
import numpy as np, fastnorm
x = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)
print((fastnorm.layer_norm(x).tobytes() + fastnorm.batch_norm(x, training=True).tobytes()).hex())
"""
    x = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)
    with fastnorm.config(backend=compiled):
        expected = fastnorm.layer_norm(x).tobytes() + fastnorm.batch_norm(x, training=True).tobytes()
    assert bytes.fromhex(output(code, FASTNORM_BACKEND=compiled)) == expected
