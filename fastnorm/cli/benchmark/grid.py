"""The grid: which calls are measured, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Along = Literal["", "last", "first", "all"]
GROUPS = 32


@dataclass(frozen=True, slots=True)
class Cell:
    """A call that is measured.

    Attributes
    ----------
    op : str
        The function of fastnorm.
    shape : tuple of int
        Of x; the channels of batch, group and instance normalization are axis 1.
    dtype : str
        Of x and its parameters.
    training : bool
        For batch_norm: with statistics of the batch, which update running ones.
    groups : int
        For group_norm: how many.
    along : {'', 'last', 'first', 'all'}
        For moments: the axis.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    training: bool = False
    groups: int = 0
    along: Along = ""

    @property
    def kind(self) -> str:
        """What belongs together in a summary: the function, and for batch_norm whether it trains."""
        if self.op == "batch_norm":
            return "batch_norm training" if self.training else "batch_norm inference"
        return self.op

    @property
    def name(self) -> str:
        """What the cell is called, in full but for float32."""
        size = "x".join(map(str, self.shape))
        return " ".join(filter(None, [self.kind, self.along, size, "" if self.dtype == "float32" else self.dtype]))

    @property
    def elements(self) -> int:
        """How many elements x has."""
        return math.prod(self.shape)

    @property
    def written(self) -> bool:
        """Whether the result is as large as x: moments are read from memory alone."""
        return self.op != "moments"

    @property
    def bytes(self) -> int:
        """How much a call must move at least: x and y, or x alone."""
        itemsize = {"float16": 2, "float32": 4, "float64": 8}[self.dtype]
        return self.elements * itemsize * (2 if self.written else 1)


def _cells(op: str, *shapes: tuple[int, ...], training: bool = False, groups: int = 0) -> list[Cell]:
    return [Cell(op, shape, training=training, groups=groups) for shape in shapes]


GRID: tuple[Cell, ...] = (
    *_cells("layer_norm", (1, 64), (1, 768), (1, 4096), (8, 768), (128, 768), (1024, 768), (4096, 64), (65536, 64)),
    *_cells("layer_norm", (4096, 1024), (8192, 4096), (65536, 768), (64, 262144)),
    Cell("layer_norm", (1024, 768), "float64"),
    Cell("layer_norm", (1024, 768), "float16"),
    *_cells("rms_norm", (1, 64), (1, 4096), (128, 4096), (4096, 4096), (65536, 128)),
    *_cells("batch_norm", (64, 1024), (1, 64, 56, 56), (32, 64, 56, 56), (32, 256, 14, 14), (32, 512, 7, 7)),
    *_cells("batch_norm", (4096, 256)),
    *_cells("batch_norm", (64, 1024), (4096, 256), (32, 64, 56, 56), (32, 256, 14, 14), (32, 512, 7, 7), training=True),
    *_cells("group_norm", (1, 64, 56, 56), (32, 256, 14, 14), (2, 512, 64, 64), groups=GROUPS),
    *_cells("instance_norm", (1, 64, 56, 56), (32, 64, 56, 56), (1, 32, 256, 256)),
    *_cells("l2_normalize", (1, 384), (4096, 384), (100000, 768)),
    Cell("moments", (1024, 768), along="last"),
    Cell("moments", (65536, 256), along="first"),
    Cell("moments", (1000000, 16), "float64", along="first"),
    Cell("moments", (16777216,), along="all"),
)

# Every kind, small and large, and what fastnorm is slow at; none needs more than a few hundred megabytes in all.
QUICK_GRID: tuple[Cell, ...] = (
    *_cells("layer_norm", (1, 64), (128, 768), (4096, 1024)),
    Cell("layer_norm", (1024, 768), "float16"),
    *_cells("rms_norm", (1, 4096), (128, 4096)),
    *_cells("batch_norm", (32, 256, 14, 14)),
    *_cells("batch_norm", (32, 64, 56, 56), training=True),
    *_cells("group_norm", (32, 256, 14, 14), groups=GROUPS),
    *_cells("instance_norm", (1, 64, 56, 56)),
    *_cells("l2_normalize", (4096, 384)),
    Cell("moments", (1024, 768), along="last"),
    Cell("moments", (65536, 256), along="first"),
)

OPS: tuple[str, ...] = tuple(dict.fromkeys(cell.op for cell in GRID))
KINDS: tuple[str, ...] = tuple(dict.fromkeys(cell.kind for cell in GRID))


def chosen(*, quick: bool = False, ops: Sequence[str] | None = None) -> list[Cell]:
    """Return the cells to measure.

    Parameters
    ----------
    quick : bool
        A dozen instead of all.
    ops : sequence of str, optional
        Of these functions alone.

    Returns
    -------
    list of Cell
    """
    return [cell for cell in (QUICK_GRID if quick else GRID) if ops is None or cell.op in ops]
