"""What tests beside PyTorch have in common: arrays as tensors, and how near the two must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import peer_cases
import pytest
from peer_cases import Array

from fastnorm import nn

torch = pytest.importorskip("torch", reason="torch, which these tests compare with, is not installed")

# float16 is rounded by 2^-11 of itself in every result and running statistic.
TOLERANCES = peer_cases.TOLERANCES | {np.dtype(np.float16): (1e-2, 1e-2)}


def tensor(array: Array | None) -> Any:
    return None if array is None else torch.from_numpy(array.copy())


def assert_close(ours: Array, theirs: Any) -> None:
    """Compare an array with a tensor; integers, which are counts, must be equal."""
    peer_cases.assert_close(ours, theirs.detach().numpy(), tolerance=TOLERANCES.get(ours.dtype, (0, 0)))


def as_tensors(state: Mapping[str, Array]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in state.items()}


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
