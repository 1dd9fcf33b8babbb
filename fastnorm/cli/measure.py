"""Compare results with float64, and hold what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _arrays(result: Any) -> list[NDArray[np.float64]]:
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in _arrays(part)]
    return [np.asarray(result, dtype=np.float64)]


def worst_error(result: Any, truth: Any) -> float:
    """
    Largest error of a result, absolute where the truth is below 1 in magnitude and relative above.

    Parameters
    ----------
    result : array_like or nested sequence of array_like
        What was computed.
    truth : array_like or nested sequence of array_like
        The same in float64.

    Returns
    -------
    float
        ``max(abs(result - truth) / max(1, abs(truth)))`` over all elements; NaN if the two differ in where they are
        NaN, 0 for empty arrays.

    Raises
    ------
    ValueError
        If the two differ in number of arrays or in shape.

    Examples
    --------
    >>> worst_error([1.0, 101.0], [1.0, 100.0])
    0.01
    """
    return _largest(result, truth, lambda error, true: error / np.maximum(1.0, np.abs(true)))


def worst_difference(first: Any, second: Any) -> float:
    """
    Largest absolute difference of two results of the same shape.

    Parameters
    ----------
    first, second : array_like or nested sequence of array_like
        The results to compare.

    Returns
    -------
    float
        ``max(abs(first - second))``; NaN if the two differ in where they are NaN, 0 for empty arrays.
    """
    return _largest(first, second, lambda error, true: error)


def _largest(
    first: Any,
    second: Any,
    scaled: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> float:
    firsts, seconds = _arrays(first), _arrays(second)
    if [array.shape for array in firsts] != [array.shape for array in seconds]:
        raise ValueError(
            f"expected arrays of equal shapes, got {[array.shape for array in firsts]} "
            f"and {[array.shape for array in seconds]}"
        )
    worst = 0.0
    for one, other in zip(firsts, seconds, strict=True):
        # Equal infinities and NaN in the same place are agreement; their difference would be NaN.
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, scaled(np.abs(one - other), other))
        if error.size:
            # np.maximum, unlike max, keeps a NaN whichever side it is on.
            worst = float(np.maximum(worst, error.max()))
    return worst


@dataclass(frozen=True)
class NormResult:
    """One row of the table: times in seconds per call, errors as `worst_error` against float64."""

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    numpy_seconds: float
    fastnorm_seconds: float
    backend: str
    numpy_error: float
    fastnorm_error: float

    @property
    def speedup(self) -> float:
        """How many times faster fastnorm is than NumPy."""
        return self.numpy_seconds / self.fastnorm_seconds


@dataclass(frozen=True)
class PipelineResult:
    """One pipeline: times in seconds per run, the norms' share of NumPy's time, and how far the outputs differ."""

    name: str
    numpy_seconds: float
    fastnorm_seconds: float
    norm_share: float
    largest_difference: float
    numpy_accuracy: float | None = None
    fastnorm_accuracy: float | None = None

    @property
    def speedup(self) -> float:
        """How many times faster the pipeline is with fastnorm's norms."""
        return self.numpy_seconds / self.fastnorm_seconds


@dataclass(frozen=True)
class DemoResult:
    """All that the demo measured."""

    norms: list[NormResult]
    pipelines: list[PipelineResult]
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
