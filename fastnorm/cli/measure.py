"""Time callables against each other, compare results with float64, and hold what was measured."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DemoResult", "NormResult", "PipelineResult", "interleaved", "worst_difference", "worst_error"]


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    budget: float = 1.0,
    sample: float = 0.01,
    warm_up_calls: int = 2,
    minimum_rounds: int = 5,
    maximum_rounds: int = 25,
) -> dict[str, float]:
    """
    Time callables in interleaved rounds and return the median time of one call of each.

    In every round each callable is timed once, over a number of calls in a row that was calibrated beforehand; the
    order turns round from one round to the next. So a change in the machine's speed meets all of them alike.

    Parameters
    ----------
    functions : mapping of str to callable
        What to time; the callables take no arguments.
    budget : float
        Seconds to spend on all rounds together. The minimum number of rounds is run even if it takes longer.
    sample : float
        Seconds that one timing should last at least; short callables are repeated until they fill it.
    warm_up_calls : int
        Untimed calls of each before calibration.
    minimum_rounds, maximum_rounds : int
        Bounds on the number of rounds.

    Returns
    -------
    dict of str to float
        Median seconds per call, in the order of `functions`.

    Raises
    ------
    ValueError
        If `minimum_rounds` is below 1 or above `maximum_rounds`.

    Examples
    --------
    >>> medians = interleaved({"sum": lambda: sum(range(100)), "nothing": lambda: None}, budget=0.01, sample=0.001)
    >>> list(medians)
    ['sum', 'nothing']
    """
    if not 1 <= minimum_rounds <= maximum_rounds:
        raise ValueError(
            f"interleaved: expected 1 <= minimum_rounds <= maximum_rounds, got {minimum_rounds} and {maximum_rounds}"
        )
    if not functions:
        return {}
    repeats: dict[str, int] = {}
    round_seconds = 0.0
    with _garbage_collector_paused():
        for name, function in functions.items():
            for _ in range(warm_up_calls):
                function()
            seconds = min(_seconds_per_call(function, 1) for _ in range(2))
            repeats[name] = max(1, math.ceil(sample / max(seconds, 1e-7)))
            # One more: each sample is preceded by an untimed call.
            round_seconds += seconds * (repeats[name] + 1)
        rounds = min(maximum_rounds, max(minimum_rounds, int(budget / max(round_seconds, 1e-7))))
        samples: dict[str, list[float]] = {name: [] for name in functions}
        names = list(functions)
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                # The untimed call refills the caches and lets another library's spinning threads come to rest.
                functions[name]()
                samples[name].append(_seconds_per_call(functions[name], repeats[name]))
    return {name: statistics.median(values) for name, values in samples.items()}


def _seconds_per_call(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


@contextmanager
def _garbage_collector_paused() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


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
