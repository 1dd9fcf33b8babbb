"""16-bit floats have the bits of float32, rounded once: where their way through the kernels is one of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import dtype_of
from processes import output

import fastnorm
from fastnorm.backends.reference import Reference
from fastnorm.recipe import Affine

Array = np.ndarray[Any, Any]


@pytest.fixture(params=["float16", "bfloat16"])
def narrow(request: pytest.FixtureRequest) -> np.dtype[Any]:
    return dtype_of(request.param)


def sample(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return (3 * np.random.default_rng(0).standard_normal(shape) + 7).astype(dtype)


def big_endian(x: Array) -> Array:
    """The same numbers in the other byte order; ml_dtypes does not convert to it."""
    return x.view(np.uint16).byteswap().view(x.dtype.newbyteorder(">"))


def assert_equal(actual: Any, expected: Any) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


NORMS: dict[str, Callable[..., Any]] = {
    "layer_norm": lambda x, **keywords: [fastnorm.layer_norm(x, **keywords)],
    "residual": lambda x, **keywords: [fastnorm.layer_norm(x, residual=x, **keywords)],
    "columns": lambda x, **keywords: fastnorm.standardize(x, return_stats=True, **keywords)[:1],
    "train": lambda x, **keywords: [fastnorm.batch_norm(x, training=True, **keywords)],
    "backward": lambda x, **keywords: fastnorm.layer_norm_backward(x, x, **keywords)[:1],
}


@pytest.mark.parametrize("name", NORMS)
def test_big_endian_numbers_are_read_as_what_they_are(name: str, narrow: np.dtype[Any], backend: str) -> None:
    x = sample((12, 100), narrow)
    expected = NORMS[name](x, backend=backend)
    assert_equal(NORMS[name](big_endian(x), backend=backend), expected)
    wide = NORMS[name](x, dtype=np.float32, backend=backend)
    assert_equal(NORMS[name](big_endian(x), dtype=np.float32, backend=backend), wide)


@pytest.mark.parametrize("name", NORMS)
def test_a_big_endian_result_holds_the_same_numbers(name: str, backend: str) -> None:
    x = sample((12, 100), np.dtype(np.float16))
    expected = NORMS[name](x, backend=backend)
    for source in (x, x.astype(">f2")):
        found = NORMS[name](source, dtype=">f2", backend=backend)
        assert all(part.dtype == ">f2" for part in found)
        assert_equal([part.astype(np.float16) for part in found], expected)


# The last tile of 128 columns holds one of them; longer columns are not normalised in one go.
@pytest.mark.parametrize("shape", [(300, 1), (300, 128), (300, 129), (512, 257), (513, 129), (3, 200, 129)])
def test_columns_beyond_a_whole_tile_have_the_bits_of_float32(
    shape: tuple[int, ...], narrow: np.dtype[Any], kernels: str
) -> None:
    x = sample(shape, narrow)
    for axis in range(len(shape) - 1):
        y, found = fastnorm.standardize(x, axis=axis, return_stats=True, backend="cython")
        wide, expected = fastnorm.standardize(x.astype(np.float32), axis=axis, return_stats=True, backend="cython")
        assert_equal([y, *found], [wide.astype(narrow), *expected])


def test_numpy_rounds_to_16_bits_by_way_of_float32(narrow: np.dtype[Any]) -> None:
    """As where a backend has float32 kernels alone: so a line that NumPy must apply is the same in all of them."""
    x = sample((4, 20000, 1), narrow)
    numbers = [np.linspace(low, high, 4).reshape(4, 1) for low, high in ((6, 8), (0, 0), (0.3, 1.7), (-3, 40))]
    y, wide = np.empty_like(x), np.empty(x.shape, np.float32)
    Reference().affine(x, y, Affine(*numbers))
    Reference().affine(x, wide, Affine(*numbers))
    assert_equal([y], [wide.astype(narrow)])
    dx, wide = np.empty_like(x), np.empty(x.shape, np.float32)
    Reference().affine_grad(x, x, dx, *numbers)
    Reference().affine_grad(x, x, wide, *numbers)
    assert_equal([dx], [wide.astype(narrow)])


SMALL_STACK = """
import threading
import numpy as np, fastnorm
rows, columns = np.ones((4, 20000), np.float16), np.ones((500, 130), np.float16)
threading.stack_size(128 * 1024)
calls = [lambda: fastnorm.layer_norm(rows), lambda: fastnorm.standardize(columns, axis=0)]
calls += [lambda: fastnorm.layer_norm_backward(rows, rows)]
for call in calls:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
print("survived")
"""


def test_a_thread_with_a_small_stack_is_enough() -> None:
    assert output(SMALL_STACK) == "survived"
