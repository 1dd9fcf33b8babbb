"""How the threads of a block share the work, by its size: data with its reason, as in `fastnorm.tuning`.

Rows: `width` threads have a row, a block has `rows` of these, and each thread keeps `slots` runs of `vector` adjacent
elements in registers, so that x is read once. Columns (neighbours in memory belong to different lines): each thread has
`vector` adjacent columns, `width` threads lie side by side, and `depth` threads share the positions of a column.
"""

from functools import lru_cache
from typing import NamedTuple

from fastnorm.backends.cuda.buffers import SIZES
from fastnorm.backends.cuda.compat import SIMULATED

ACCESS = 16  # bytes that a thread moves at once

# How many threads a card is kept busy by: units of rows are made for so many, on every card, for the same bits on all.
BUSY_THREADS = 8 if SIMULATED else 132 * 1024
# The most rows that a unit has, whose numbers are added one after the other.
ROWS_OF_UNIT = 256

# Bytes of shared memory for the sums of a block: of the 48 KiB that every block can have, what lets two share a
# multiprocessor on any card.
SHARED = 32 * 1024

# How many float32 a thread keeps in registers, of 255 (64 where 1,024 threads make a block).
HELD = 32


class Step(NamedTuple):
    """One step of the ladder; the first whose threads can hold a row in registers serves."""

    width: int
    rows: int
    reason: str


LADDER: tuple[Step, ...] = (
    Step(8, 16, "short: four rows a warp, whose scalar algebra would otherwise be most of the work"),
    Step(32, 4, "a warp a row: no barrier"),
    Step(128, 1, "a block a row, as small as can hold it: several blocks a multiprocessor hide each other's barriers"),
    Step(256, 1, "a block a row"),
    Step(512, 1, "a block a row"),
    Step(1024, 1, "a block a row, the longest that registers hold: 65,536 of them for 1,024 threads"),
)
COLUMNS = Step(32, 8, "a warp side by side, eight deep: 512 bytes an access, and 64 positions a chunk of eight each")
if SIMULATED:  # a Python thread for each of the GPU's: the same ladder, narrower
    LADDER = tuple(Step(width, rows, "simulated") for width, rows in ((1, 4), (2, 2), (4, 1)))
    COLUMNS = Step(2, 2, "simulated")

# How many runs a thread may have: few numbers, since each is a kernel of its own to compile.
SLOTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SHORT = 2  # slots up to which the first step serves: a longer row has work for a warp


class RowShape(NamedTuple):
    """The shape of a kernel over rows."""

    vector: int
    width: int
    rows: int
    slots: int

    @property
    def block(self) -> tuple[int, int]:
        """The threads of a block."""
        return self.width, self.rows

    @property
    def capacity(self) -> int:
        """How many elements of a row its threads hold."""
        return self.vector * self.width * self.slots


class ColumnShape(NamedTuple):
    """The shape of a kernel over columns."""

    vector: int
    width: int
    depth: int
    slots: int

    @property
    def block(self) -> tuple[int, int]:
        """The threads of a block."""
        return self.width, self.depth

    @property
    def columns(self) -> int:
        """How many columns a block has."""
        return self.vector * self.width

    @property
    def chunk(self) -> int:
        """How many positions of a column a block has."""
        return self.depth * self.slots


def vector_length(storages: tuple[str, ...], addresses: tuple[int, ...], period: int) -> int:
    """Return how many adjacent elements a thread may access at once: 16 bytes of the narrowest type, or 1.

    `period` is a length in elements after which runs begin anew, which must be whole vectors.
    """
    length = ACCESS // min(SIZES[storage] for storage in storages)
    aligned = period % length == 0 and not any(address % ACCESS for address in addresses)
    return length if aligned else 1


def _slots_for(vectors: int, width: int) -> int:
    return next(slots for slots in SLOTS if slots * width >= vectors)


@lru_cache(maxsize=1024)
def row_shape(length: int, vector: int, wide: bool, halved: bool = False) -> RowShape | None:
    """Return the shape that holds rows of a length in registers, None if none does; `wide` is float64.

    `halved`: each thread holds half as many elements, since what is done with each takes registers of its own.
    """
    held = HELD // (2 if wide else 1) // (2 if halved else 1) // vector
    vectors = -(-length // vector)
    for number, step in enumerate(LADDER):
        limit = min(held, SHORT) if number == 0 else held
        if vectors <= step.width * limit:
            return RowShape(vector, step.width, step.rows, _slots_for(vectors, step.width))
    return None


@lru_cache(maxsize=1024)
def chunk_shape(length: int, vector: int, wide: bool) -> RowShape:
    """Return the shape of a kernel that several blocks of which share a row, each a chunk, where rows are long."""
    held = HELD // 2 // (2 if wide else 1) // vector
    for step in LADDER[:4]:
        if -(-length // vector) <= step.width * held:
            return RowShape(vector, step.width, step.rows, _slots_for(-(-length // vector), step.width))
    step = LADDER[min(3, len(LADDER) - 1)]
    return RowShape(vector, step.width, step.rows, max(slots for slots in SLOTS if slots <= held))


@lru_cache(maxsize=1024)
def column_shape(columns: int, vector: int, wide: bool, halved: bool = False) -> ColumnShape:
    """Return the shape of a kernel over columns: as many threads side by side as the columns need."""
    held = HELD // (2 if wide else 1) // (2 if halved else 1)
    width = 1
    while width < COLUMNS.width and width * vector < columns:
        width *= 2
    depth = COLUMNS.width * COLUMNS.rows // width
    return ColumnShape(vector, width, depth, max(1, held // vector))


def width_for_sums(parts: int) -> Step:
    """Return how many threads add up so many numbers: a warp, or a block where they are many."""
    warp, block = LADDER[1], LADDER[min(3, len(LADDER) - 1)]
    return warp if parts <= 32 * warp.width else block


def rows_of_unit(lines: int, threads: int) -> int:
    """Return how many rows, of so many threads each, have sums of their own before those of all units are added up."""
    return min(ROWS_OF_UNIT, max(1, -(-lines * threads // BUSY_THREADS)))


def sums_fit(shape: RowShape, wide: bool) -> bool:
    """Whether shared memory has room for two sums of each vector that a block holds, and its threads for the work."""
    fits = 2 * shape.width * shape.rows * shape.slots * (8 if wide else 4) <= SHARED
    return fits and shape.width <= LADDER[-2].width


def merging_shape() -> ColumnShape:
    """Return the shape of the kernel that adds up parts down columns."""
    return ColumnShape(1, COLUMNS.width, COLUMNS.rows, 1)
