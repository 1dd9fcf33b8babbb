"""What a notebook shows of a layer: its repr, and its arrays in a table."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm.stats.moments import moments

Array = npt.NDArray[Any]


def table(title: str, arrays: Mapping[str, Array]) -> str:
    """Return a title, and for each array its name, shape, dtype, mean and standard deviation, as HTML."""
    heading = f"<code>{escape(title)}</code>"
    if not arrays:
        return heading
    rows = [("array", "shape", "dtype", "mean", "std")]
    rows += [(name, str(array.shape), str(array.dtype), *_summary(array)) for name, array in arrays.items()]
    tags = ["th"] + ["td"] * len(arrays)
    lines = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)]
    return f"{heading}<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _summary(array: Array) -> tuple[str, str]:
    """Return mean and standard deviation; of a single number the number alone."""
    if array.ndim == 0:
        return str(array), ""
    with np.errstate(all="ignore"):  # what is not finite is shown as it is
        found = moments(array)
    return f"{found.mean:.4g}", f"{found.std:.4g}"
