"""Thresholds of the dispatcher: data with its reason, so that a change is a change of a number.

A ladder is read from the top; the first step whose limit is not exceeded decides.
"""

from typing import NamedTuple


class Step(NamedTuple):
    """One step of a ladder."""

    limit: float  # elements
    backends: tuple[str, ...]  # in the order of preference; the first that is available serves
    reason: str


LADDER = (
    Step(2**15, ("cython", "numba", "reference"), "small: the lowest call cost wins"),
    Step(float("inf"), ("numba", "cython", "reference"), "large: threads win"),
)

SERIAL_LADDER = (Step(float("inf"), ("cython", "numba", "reference"), "one thread: ahead of time, no compilation"),)

# A long line is shared by threads, its statistics first and its result then, if there are fewer lines than this times
# the number of threads; above it whole lines are handed out, and each is read from memory once.
LINES_PER_THREAD = 1
