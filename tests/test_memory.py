"""Peak memory: the output, and nothing beyond it that grows with the input."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import dtype_of
from processes import output

import fastnorm
from fastnorm import memory, tuning
from fastnorm.plan import rows_of_unit

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


def test_large_outputs_are_recycled_until_the_memory_is_given_back() -> None:
    size = tuning.POOL_SMALLEST_BYTES
    memory.clear()
    first = memory.empty((size // 4,), np.dtype(np.float32))
    address, view = first.ctypes.data, first[3:]
    del first
    assert memory.clear() == 0, "a view is alive"
    del view
    again = memory.empty((size // 4,), np.dtype(np.float32))
    assert again.ctypes.data == address
    del again
    assert memory.clear() == size
    assert memory.clear() == 0


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


# 16-bit floats, which are computed with in float32: twice the memory of the input, if it were converted as a whole

BACKWARD: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "layer_norm": (ROWS, fastnorm.layer_norm_backward),
    "layer_norm, weight": (ROWS, lambda dy, x, **k: fastnorm.layer_norm_backward(dy, x, np.ones(512), **k)),
    "l2_normalize, columns": (ROWS, lambda dy, x, **k: fastnorm.l2_normalize_backward(dy, x, axis=0, **k)),
    "layer_norm, long": ((32, 21845), fastnorm.layer_norm_backward),
    "rms_norm": (ROWS, fastnorm.rms_norm_backward),
    "l2_normalize": (ROWS, fastnorm.l2_normalize_backward),
    "pixel_norm": ((8, 512, 16, 16), fastnorm.pixel_norm_backward),  # 2,048 lines, too
    "batch_norm, inference": (
        IMAGES,
        lambda dy, x, **k: fastnorm.batch_norm_backward(
            dy, x, running_mean=np.zeros(32), running_var=np.ones(32), **k
        ),
    ),
    "batch_norm, training": (IMAGES, lambda dy, x, **k: fastnorm.batch_norm_backward(dy, x, training=True, **k)),
    "batch_norm, channels last": (
        ROWS, lambda dy, x, **k: fastnorm.batch_norm_backward(dy, x, training=True, channel_axis=-1, **k)
    ),
    "switchable_norm": (
        IMAGES,
        lambda dy, x, **k: fastnorm.switchable_norm_backward(dy, x, np.zeros(3), np.zeros(3), training=True, **k),
    ),
    "instance_norm": (IMAGES, fastnorm.instance_norm_backward),
    "instance_norm, channels last": (
        (8, 64, 64, 32), lambda dy, x, **k: fastnorm.instance_norm_backward(dy, x, channel_axis=-1, **k)
    ),
    "group_norm": (IMAGES, lambda dy, x, **k: fastnorm.group_norm_backward(dy, x, 8, **k)),
}  # fmt: skip
NARROW_STATISTICS: dict[str, tuple[tuple[int, ...], Callable[[Array], Any]]] = STATISTICS | {
    "extrema, rows": (ROWS, lambda x: fastnorm.extrema(x, axis=-1)),
    "extrema, columns": (ROWS, lambda x: fastnorm.extrema(x, axis=0)),
    "extrema, all": (ROWS, lambda x: fastnorm.extrema(x)),
    "Welford": (ROWS, lambda x: fastnorm.Welford().update(x)),
}
NARROW_NORMS: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = NORMS | {
    "layer_norm, narrow weights": (
        ROWS, lambda x, **k: fastnorm.layer_norm(x, np.ones(512, x.dtype), np.ones(512, x.dtype), **k)
    ),
    "lp_normalize": (ROWS, lambda x, **k: fastnorm.lp_normalize(x, p=1, **k)),
    "max_abs_scale": (ROWS, lambda x, **k: fastnorm.max_abs_scale(x, **k)),
    "weight_norm": (ROWS, lambda x, **k: fastnorm.weight_norm(x, np.ones(len(x)), **k)),
    "clip_by_norm": (ROWS, lambda x, **k: fastnorm.clip_by_norm(x, 1.0, **k)),
    "normalize": (ROWS, lambda x, **k: fastnorm.normalize(x, np.zeros(512), np.ones(512), **k)),
    "switchable_norm": (
        IMAGES, lambda x, **k: fastnorm.switchable_norm(x, np.zeros(3), np.zeros(3), training=True, **k)
    ),
    "layer_norm, activation": (ROWS, lambda x, **k: fastnorm.layer_norm(x, activation="gelu", **k)),
    "layer_norm, residual": (ROWS, lambda x, **k: fastnorm.layer_norm(x, residual=x, activation="relu", **k)),
}  # fmt: skip
each_narrow_dtype = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
each_path = pytest.mark.parametrize("general", [False, True], ids=["plain", "general"])


@each_path
@each_narrow_dtype
@pytest.mark.parametrize("name", NARROW_NORMS)
def test_a_norm_of_a_narrow_type_allocates_its_output_alone(name: str, dtype: str, general: bool, served: str) -> None:
    shape, norm = NARROW_NORMS[name]
    x = data(shape, dtype_of(dtype))
    options = {"backend": served} if general else {}
    assert peak(lambda: norm(x, **options)) <= x.nbytes + ALLOWANCE
    out = np.empty_like(x)
    assert peak(lambda: norm(x, out=out, **options)) <= ALLOWANCE


@each_narrow_dtype
@pytest.mark.parametrize("name", NARROW_STATISTICS)
def test_a_statistic_of_a_narrow_type_allocates_nothing_that_grows(name: str, dtype: str, served: str) -> None:
    shape, statistic = NARROW_STATISTICS[name]
    x = data(shape, dtype_of(dtype))
    assert peak(lambda: statistic(x)) <= ALLOWANCE


@each_path
@each_narrow_dtype
@pytest.mark.parametrize("name", BACKWARD)
def test_a_backward_pass_of_a_narrow_type_allocates_dx_alone(name: str, dtype: str, general: bool, served: str) -> None:
    shape, backward = BACKWARD[name]
    x = data(shape, dtype_of(dtype))
    dy = x[::-1].copy()
    options = {"backend": served} if general else {}
    # Besides, products and sums of the units of rows, float64, where a parameter goes with the position.
    sums = 2 * 8 * -(-shape[0] // rows_of_unit(*shape)) * shape[1] if len(shape) == 2 else 0
    assert peak(lambda: backward(dy, x, **options)) <= x.nbytes + sums + ALLOWANCE
    out = np.empty_like(x)
    assert peak(lambda: backward(dy, x, out=out, **options)) <= sums + ALLOWANCE


def test_a_large_output_is_made_while_the_interpreter_ends() -> None:
    code = """
import builtins, numpy as np, fastnorm
class Last:
    def __init__(self, function, x): self.function, self.x = function, x
    def __del__(self): print(self.function(self.x).shape)
x = np.ones((3000, 3000), np.float32)
builtins.kept = fastnorm.layer_norm(x)
builtins.last = Last(fastnorm.layer_norm, x)
"""
    assert output(code) == "(3000, 3000)"


def test_the_pool_keeps_so_much_and_lets_the_oldest_go() -> None:
    pool = memory._Pool(256)
    oldest, second, third = (memory._allocated(size) for size in (64, 128, 64))
    for block in (oldest, second, third, memory._allocated(257)):
        pool.give_back(block)
    assert pool.take(65) is not second, "which is more than half as large again"
    youngest = memory._allocated(64)
    pool.give_back(youngest)
    assert oldest.address not in pool._kept
    assert pool.take(64) is youngest
    assert pool.clear() == 192


def test_memory_begins_at_a_cache_line() -> None:
    assert all(memory._allocated(size).address % 64 == 0 for size in (1, 63, 64, 4097, 100000))


def test_a_sum_that_is_not_wanted_takes_no_memory(compiled: str) -> None:
    x, residual, out = (data((4096, 512), "float32") for _ in range(3))
    memory.clear()
    fastnorm.layer_norm(x, residual=residual, out=out, backend=compiled)
    assert memory.clear() == 0
