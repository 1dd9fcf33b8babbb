"""What differs between hardware and the simulator, chosen once.

load (storage, real, count), store (storage, count)
    A function ``(address, index, held, slot)`` for `count` elements of a storage type that lie together, converted to
    or from the type that is computed in; 16 bytes an access on hardware, where alignment is the caller's promise.
row_reduction (width, joined)
    A function ``(value, scratch)``: what the `width` threads of a row have, joined two by two, known to all of them.
    Hardware exchanges registers within a warp; the simulator, which cannot, has a tree in shared memory.
row_sum (width)
    The one that adds.
scratch_size (width, rows)
    How many elements of shared memory that takes.
shared (shape, real)
    A function without arguments: an array in the shared memory of a block, one for each function that is made.
team_width (width)
    How many of the `width` threads of a row add up numbers without waiting for others: a warp; one in the simulator.
team_sum (width)
    A function of a value: the sum over the threads of such a team.
any_row (width)
    A function of a condition, the same for all threads of a row: whether it holds for a row whose threads must take the
    same branch, since they exchange numbers there.
fused
    ``a * b + c``, rounded once.
barrier
    Waits for all threads of the block.
"""

from typing import Any

from fastnorm.backends.cuda.compat import SIMULATED, device_function

if SIMULATED:
    from fastnorm.backends.cuda.simulated import (
        any_row,
        barrier,
        fused,
        load,
        row_reduction,
        scratch_size,
        shared,
        store,
        team_reduction,
        team_width,
    )
else:
    from fastnorm.backends.cuda.hardware import (
        any_row,
        barrier,
        fused,
        load,
        row_reduction,
        scratch_size,
        shared,
        store,
        team_reduction,
        team_width,
    )


@device_function
def _added(a: Any, b: Any) -> Any:
    return a + b


def row_sum(width: int) -> Any:
    """Return the reduction that adds."""
    return row_reduction(width, _added)


def team_sum(width: int) -> Any:
    """Return the sum over threads that wait for nobody."""
    return team_reduction(width, _added)


__all__ = [
    "any_row",
    "barrier",
    "fused",
    "load",
    "row_reduction",
    "row_sum",
    "scratch_size",
    "shared",
    "store",
    "team_sum",
    "team_width",
]
