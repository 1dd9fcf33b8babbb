"""What the tests of primitives share: views around every border, coefficients, rules, forms of parameters."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from kernel_data import weights

from fastnorm.recipe import Affine, Measure, Rule

Array = np.ndarray[Any, Any]

# Around the borders of a bundle, a block, a chunk, a tile and of several of each.
ROW_VIEWS = [(1, 1, 1), (5, 1, 1), (2, 31, 1), (7, 33, 1), (3, 96, 1), (2, 4096, 1), (3, 4097, 1), (1, 65536, 1)]
ROW_VIEWS += [(2, 65537, 1), (1, 2 * 65536 + 4099, 1)]
ROW_VIEWS += [(5, 333, 1), (3, 500, 1), (4, 1023, 1)]  # whose results are made beside the sums of the next
ROW_VIEWS += [(67, 2, 1), (70, 3, 1), (41, 13, 1), (33, 30, 1)]  # of which many lie side by side
COLUMN_VIEWS = [(1, 1, 2), (4, 1, 5), (3, 5, 3), (1, 8, 33), (1, 63, 32), (2, 65, 17), (1, 1024, 40), (2, 1025, 5)]
COLUMN_VIEWS += [(2, 300, 257), (1, 2113, 33), (3, 9, 513)]
COLUMN_VIEWS += [(1, 1300, 2), (2, 700, 3), (1, 450, 21)]  # of which several blocks do
COLUMN_VIEWS += [(1, 700, 130), (2, 300, 1030)]  # and of whose last columns they do
COLUMN_VIEWS += [(90, 520, 2)]  # lines of which not all are joined at once
VIEWS = [*ROW_VIEWS, *COLUMN_VIEWS]
each_view = pytest.mark.parametrize("view", VIEWS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

RULES = [
    Rule(eps=1e-5),
    Rule(eps=0.0, ddof=0.5),
    Rule(measure=Measure.SQUARES, eps=1e-6),
    Rule(measure=Measure.SQUARES, eps=1e-12, floor=True, summed=True),
]


def coefficients(view: tuple[int, int, int]) -> Affine:
    outer, _, inner = view
    rng = np.random.default_rng(1)
    hi = rng.standard_normal((outer, inner)).astype(np.float32).astype(np.float64)
    return Affine(hi, hi * 2.0**-26, np.exp(rng.standard_normal((outer, inner))), rng.standard_normal((outer, inner)))


def normalizations(view: tuple[int, int, int], dtype: Any) -> Iterator[tuple[Any, ...]]:
    """Yield (weight, bias, per_position, segments) in every form that the engine uses."""
    outer, reduce, inner = view
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    yield one, zero, False, 1
    yield *weights(reduce, dtype), True, 1
    yield *weights(outer * inner, dtype), False, 1
    if outer > 1:
        yield *weights(inner, dtype), False, 1
    if inner == 1 and reduce % 3 == 0:
        yield *weights(3, dtype), False, 3
        yield *weights(3 * outer, dtype), False, 3


def chain(view: tuple[int, int, int], dtype: Any) -> int:
    """Return how many roundings the longest chain of additions in a block has."""
    if view[2] > 1:
        return 8 + 3 + 7  # groups, their tree, the rest of a block
    lanes = 128 // np.dtype(dtype).itemsize
    return min(view[1], 4096) // lanes + 1 + lanes.bit_length()
