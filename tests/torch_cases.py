"""What tests beside PyTorch have in common: arrays as tensors, and how near the two must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnorm import nn

torch = pytest.importorskip("torch", reason="torch, which these tests compare with, is not installed")

Array = np.ndarray
Shape = tuple[int, ...]

DTYPES = [np.float32, np.float64]
# Beyond what PyTorch's own rounding explains; float32 numbers here are of the order of 1 to 10.
TOLERANCES = {np.dtype(np.float32): (1e-5, 1e-5), np.dtype(np.float64): (1e-12, 1e-12)}


def sample(shape: Shape, dtype: Any, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(1.0, 2.0, size=shape).astype(dtype)


def affine(shape: Shape, dtype: Any, given: bool = True) -> tuple[Array | None, Array | None]:
    """Return a weight and a bias, or neither."""
    return (sample(shape, dtype, 1), sample(shape, dtype, 2)) if given else (None, None)


def tensor(array: Array | None) -> Any:
    return None if array is None else torch.from_numpy(array.copy())


def assert_close(ours: Array, theirs: Any) -> None:
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    relative, absolute = TOLERANCES.get(ours.dtype, (0, 0))
    np.testing.assert_allclose(ours, expected, rtol=relative, atol=absolute)


def assert_states_close(ours: nn.Layer, theirs: Any) -> None:
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    for name, array in state.items():
        assert_close(array, expected[name])


def leaf(array: Array | None) -> Any:
    return None if array is None else tensor(array).requires_grad_()


def assert_gradient(ours: Array | None, theirs: Any) -> None:
    """To 1e-10 of the largest element."""
    assert ours is not None
    expected = theirs.grad.numpy()
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 * max(1.0, float(np.abs(expected).max(initial=0))))
