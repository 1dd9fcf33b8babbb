"""Copies between arrays of any strides: every element arrives with all its bits, and nothing beside them is written."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastnorm
from fastnorm.backends import registry

Array = np.ndarray[Any, Any]

# The sides of a tile are 32.
LENGTHS = st.sampled_from([0, 1, 2, 3, 4, 5, 31, 32, 33, 65, 130])
DTYPES = st.sampled_from(["f4", ">f4", "f8", "f2", "i8", "u1", "c16"])


def placed(draw: Any, shape: tuple[int, ...], dtype: str) -> tuple[Array, Array]:
    """Return an array of bytes, and a view of some of them as elements, the axes in any order, steps and directions."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -3])) for _ in shape]
    memory = np.full([shape[axis] * abs(steps[axis]) for axis in order], 7, "u1" if dtype == "u1" else dtype)
    view = memory.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    return memory, view[tuple(slice(0, n) for n in shape)]


@given(data=st.data(), shape=st.lists(LENGTHS, min_size=1, max_size=4), dtype=DTYPES)
@pytest.mark.usefixtures("threads_for_all")
def test_every_element_arrives_and_no_other_is_touched(
    data: st.DataObject, shape: list[int], dtype: str, backend: str
) -> None:
    assume(np.prod(shape, dtype=np.int64) <= 20_000)
    (_, source), (memory, target) = (placed(data.draw, tuple(shape), dtype) for _ in range(2))
    source[...] = np.arange(source.size).reshape(shape) % 251
    expected, spread = memory.copy(), memory.copy()
    offset = (target.__array_interface__["data"][0] - memory.__array_interface__["data"][0]) if target.size else 0
    beside = np.ndarray(target.shape, target.dtype, spread.data if spread.size else None, offset, target.strides)
    np.copyto(beside, source)
    with fastnorm.config(num_threads=3):
        registry.load(backend).copy(source, target)
    np.testing.assert_array_equal(target, source)
    np.testing.assert_array_equal(memory, spread)
    assert source.size == 0 or not np.array_equal(expected, spread) or np.all(source == 7)


def test_the_bits_of_nan_are_kept(backend: str) -> None:
    bits = np.arange(0x7F800001, 0x7F800001 + 35 * 40, dtype=np.uint32).reshape(40, 35)  # signalling NaN
    target = np.empty((35, 40), np.float32)
    registry.load(backend).copy(bits.view(np.float32).T, target)
    np.testing.assert_array_equal(target.view(np.uint32), bits.T)


def test_a_transposed_output_is_filled(backend: str) -> None:
    x = np.random.default_rng(4).standard_normal((70, 45))
    out = np.empty((45, 70)).T
    assert fastnorm.layer_norm(x, out=out, backend=backend) is out
    np.testing.assert_array_equal(out, fastnorm.layer_norm(x, backend=backend))
    turned = np.asfortranarray(x)
    fastnorm.layer_norm(turned, out=turned, backend=backend)
    np.testing.assert_array_equal(turned, out)
