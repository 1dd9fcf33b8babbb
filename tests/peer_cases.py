"""What tests beside other libraries have in common: the same arrays for both, and how near the results must be."""

from typing import Any

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]

DTYPES = [np.float32, np.float64]
# Beyond what the other library's own rounding explains; float32 numbers here are of the order of 1 to 10.
TOLERANCES = {np.dtype(np.float32): (1e-5, 1e-5), np.dtype(np.float64): (1e-12, 1e-12)}


def sample(shape: Shape, dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(1.0, 2.0, size=shape).astype(dtype)


def affine(shape: Shape, dtype: Any = np.float32, given: bool = True) -> tuple[Any, Any]:
    """Return a weight and a bias, or None for both."""
    return (sample(shape, dtype, 1), sample(shape, dtype, 2)) if given else (None, None)


def statistics(shape: Shape, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Return a mean and a variance, which is not 0."""
    return sample(shape, dtype, 3), np.square(sample(shape, dtype, 4)) + dtype(0.1)


def sample_gradients(dtype: Any) -> list[Array]:
    """Return arrays of several shapes, as the parameters of a model have; one is a number alone."""
    return [sample(shape, dtype, seed) for seed, shape in enumerate(((6, 4), (3,), (), (2, 3, 4)))]


def assert_close(
    ours: Array, theirs: Any, *, absolute: float | None = None, tolerance: tuple[float, float] | None = None
) -> None:
    """Compare to a relative and an absolute tolerance: those given, or else those of the dtype."""
    expected = np.asarray(theirs)
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    relative, default = TOLERANCES[ours.dtype] if tolerance is None else tolerance
    np.testing.assert_allclose(ours, expected, rtol=relative, atol=default if absolute is None else absolute)
