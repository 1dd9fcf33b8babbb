"""Time callables against each other."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


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
            seconds = min(seconds_per_call(function, 1) for _ in range(2))
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
                samples[name].append(seconds_per_call(functions[name], repeats[name]))
    return {name: statistics.median(values) for name, values in samples.items()}


def seconds_per_call(function: Callable[[], object], calls: int) -> float:
    """Return the mean seconds of so many calls in a row."""
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
