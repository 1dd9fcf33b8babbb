"""Thresholds of the dispatcher: data with its reason, so that a change is a change of a number.

A ladder is read from the top; the first step whose limit is not exceeded decides.
"""

from typing import NamedTuple

# Up to so many elements a call is served by its own thread alone: waking another costs as much as it would save.
SERIAL_ELEMENTS = 2**16


class Step(NamedTuple):
    """One step of a ladder."""

    limit: float  # elements
    backends: tuple[str, ...]  # in the order of preference; the first that can run here serves
    reason: str


LADDER = (
    Step(SERIAL_ELEMENTS, ("cython", "numba", "reference"), "small: one thread"),
    Step(float("inf"), ("cython", "numba", "reference"), "large: several threads"),
)

# Rows of up to so many columns do not fill a vector (RGB has 3): where it changes no bit, rows are taken together, so
# many that they make about PACKED_COLUMNS.
NARROW_COLUMNS = 24
PACKED_COLUMNS = 128

# A long line is shared by threads, its statistics first and its result then, if there are fewer lines than this times
# the number of threads; above it whole lines are handed out, and each is read from memory once.
LINES_PER_THREAD = 1

# Outputs of at least so many bytes come from recycled memory. The C library keeps smaller ones itself: after the first,
# np.empty of 3 MiB costs 4 microseconds with its page faults, of 31 MiB 44, but of 40 MiB 2,053 (glibc 2.36, which maps
# each block above 32 MiB anew).
POOL_SMALLEST_BYTES = 2**24
# How much memory is kept for that; FASTNORM_POOL_MIB changes it, 0 keeps none.
POOL_BYTES = 2**28
