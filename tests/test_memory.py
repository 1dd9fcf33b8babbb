"""Peak memory: the output, and nothing beyond it that grows with the input."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastnorm
from fastnorm.backends import registry

Array = np.ndarray[Any, Any]

ROWS = (2048, 512)
IMAGES = (8, 32, 64, 64)
# float64 statistics of 2,048 lines, their coefficients, and what Python itself allocates on the way.
ALLOWANCE = 2**19

NORMS: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "layer_norm": (ROWS, lambda x, **k: fastnorm.layer_norm(x, **k)),
    "layer_norm, weights": (ROWS, lambda x, **k: fastnorm.layer_norm(x, np.ones(512), np.ones(512), **k)),
    "layer_norm, columns": (ROWS, lambda x, **k: fastnorm.layer_norm(x, axis=0, **k)),
    "layer_norm, one line": (ROWS, lambda x, **k: fastnorm.layer_norm(x, axis=(0, 1), **k)),
    "rms_norm": (ROWS, lambda x, **k: fastnorm.rms_norm(x, **k)),
    "batch_norm, inference": (IMAGES, lambda x, **k: fastnorm.batch_norm(x, np.zeros(32), np.ones(32), **k)),
    "batch_norm, training": (IMAGES, lambda x, **k: fastnorm.batch_norm(x, training=True, **k)),
    "batch_norm, channels last": (ROWS, lambda x, **k: fastnorm.batch_norm(x, training=True, channel_axis=-1, **k)),
    "instance_norm": (IMAGES, lambda x, **k: fastnorm.instance_norm(x, **k)),
    "group_norm": (IMAGES, lambda x, **k: fastnorm.group_norm(x, 8, **k)),
    "pixel_norm": (IMAGES, lambda x, **k: fastnorm.pixel_norm(x, **k)),
    "l2_normalize": (ROWS, lambda x, **k: fastnorm.l2_normalize(x, **k)),
    "standardize": (ROWS, lambda x, **k: fastnorm.standardize(x, **k)),
    "min_max_scale": (ROWS, lambda x, **k: fastnorm.min_max_scale(x, **k)),
    "weight_standardize": (ROWS, lambda x, **k: fastnorm.weight_standardize(x, **k)),
}
STATISTICS: dict[str, tuple[tuple[int, ...], Callable[[Array], Any]]] = {
    "moments, rows": (ROWS, lambda x: fastnorm.moments(x, axis=-1)),
    "moments, columns": (ROWS, lambda x: fastnorm.moments(x, axis=0)),
    "moments, all": (ROWS, lambda x: fastnorm.moments(x)),
}


each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def data(shape: tuple[int, ...], dtype: Any) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def peak(call: Callable[[], Any]) -> int:
    """Return the most bytes that a call had allocated at once, in NumPy's arrays and Python's objects."""
    call()  # imports, compiles, and fills the pool of recycled memory
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_array_is_seen() -> None:
    assert peak(lambda: np.empty(2**20)) >= 2**23


@each_dtype
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_allocates_its_output_alone(name: str, dtype: Any, compiled: str) -> None:
    shape, norm = NORMS[name]
    x = data(shape, dtype)
    with fastnorm.config(backend=compiled):
        assert peak(lambda: norm(x)) <= x.nbytes + ALLOWANCE


@each_dtype
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_with_out_allocates_nothing_that_grows(name: str, dtype: Any, compiled: str) -> None:
    shape, norm = NORMS[name]
    x = data(shape, dtype)
    out = np.empty_like(x)
    with fastnorm.config(backend=compiled):
        assert peak(lambda: norm(x, out=out)) <= ALLOWANCE


@each_dtype
@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_allocates_nothing_that_grows(name: str, dtype: Any, compiled: str) -> None:
    shape, statistic = STATISTICS[name]
    x = data(shape, dtype)
    with fastnorm.config(backend=compiled):
        assert peak(lambda: statistic(x)) <= ALLOWANCE


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_rows_of_narrow_types_are_converted_a_few_at_a_time(name: str, dtype: Any) -> None:
    reason = registry.why_not("cython")
    if reason is not None:
        pytest.skip(reason)
    shape, norm = NORMS[name]
    x = data(shape, dtype)
    assert peak(lambda: norm(x)) <= x.nbytes + ALLOWANCE
