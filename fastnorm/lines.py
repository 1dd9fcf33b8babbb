"""Lines taken out of an array, for what is done with them alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a view (outer, reduce, inner).

    Line i is column `columns[i]` of block `blocks[i]`; of coefficients (lines, inner), row `rows[i]` is its own.
    """

    blocks: Array
    columns: Array
    rows: Array

    @classmethod
    def marked(cls, mask: Array, outer: int) -> "Lines":
        """Return the lines of `outer` blocks that a mask (lines, inner) marks; block o has row o % lines of it."""
        rows = np.arange(outer) % len(mask)
        blocks, columns = np.nonzero(mask[rows])
        return cls(blocks, columns, rows[blocks])

    def read(self, view: Array) -> Array:
        """Return a copy of the lines as a view (count, reduce, 1)."""
        # Contiguous, since NumPy adds a line pairwise only there: its sum must not depend on what it stood next to.
        return np.ascontiguousarray(view[self.blocks, :, self.columns])[..., np.newaxis]

    def write(self, view: Array, values: Array) -> None:
        """Put lines, (count, reduce, 1), back where they came from."""
        view[self.blocks, :, self.columns] = values[..., 0]

    def coefficients(self, numbers: Array) -> Array:
        """Return those of the lines, (count, 1), from the coefficients of all, (lines, inner)."""
        return numbers[self.rows, self.columns][:, np.newaxis]


def _kept_first(array: Array, axes: tuple[int, ...]) -> Array:
    kept = (axis for axis in range(array.ndim) if axis not in axes)
    return array.transpose(*kept, *axes)


def _marked(mask: Array, axes: tuple[int, ...]) -> Array:
    kept = _kept_first(mask, axes)
    return kept.reshape(kept.shape[: kept.ndim - len(axes)])


def lines_over(axes: tuple[int, ...], array: Array, mask: Array) -> Array:
    """Return a copy of the lines over `axes` that a mask marks, in the shape of their statistics: (count, ...)."""
    lines: Array = _kept_first(array, axes)[_marked(mask, axes)]
    return lines


def replace_lines_over(axes: tuple[int, ...], array: Array, mask: Array, values: Array) -> None:
    """Put what `lines_over` returned, or what was made of it, in its place."""
    _kept_first(array, axes)[_marked(mask, axes)] = values
