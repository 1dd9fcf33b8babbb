"""16-bit floats: their data, the norms over lines, columns and channels of them, and what a result must be.

Every function is computed on the float32 copy of its arrays, whose bits, rounded once, are those of the result.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from cases import dtype_of
from kernel_data import assert_bits

import fastnorm

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Norm = Callable[..., Any]

# Around the borders of a bundle (32), of short rows (1024, 2048), of what lies on the desk at a time (4096, 65536 and
# its half and third), and of a chunk (65536).
SHORT_LENGTHS = (1, 31, 32, 33)
LENGTHS = (1024, 1025, 2048, 2049, 4096, 4097)
LONG_LENGTHS = (21845, 21846, 32768, 32769, 65536, 65537, 3 * 65536 + 5)
ROWS: list[Shape] = [
    *((rows, length) for rows in (1, 5, 300) for length in SHORT_LENGTHS),
    *((rows, length) for rows in (1, 7) for length in LENGTHS),
    *((rows, length) for rows in (1, 3) for length in LONG_LENGTHS),
]

# Around those of a block down a column (64), of a line on the desk (512) and of a chunk (1024), by widths around those
# of a bundle and of a tile (128).
COLUMNS: list[Shape] = [
    *((1, length, width) for length in (64, 65, 512, 513, 1024, 1025)
      for width in (1, 2, 3, 31, 33, 127, 128, 129, 513, 600)),
    (3, 65, 33), (2, 513, 129), (2, 1025, 3), (1, 3000, 40),
]  # fmt: skip

# (N, C, ...): one channel, one item, one position, many chunks.
CHANNELS: list[Shape] = [
    (4, 1, 33), (3, 1, 70001), (2, 4, 33), (1, 6, 50), (3, 6, 1025), (1, 4, 21846), (2, 2, 65537), (5, 64, 7, 7),
    (2, 6, 2, 2049), (7, 4), (300, 6), (513, 130), (40, 4, 1, 1),
]  # fmt: skip


each_dtype = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])


@lru_cache(maxsize=256)
def data(shape: Shape, dtype: str, seed: int = 0) -> Array:
    """Return normal numbers of mean 1 and deviation 3, read-only."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32) * 3 + 1
    array = values.astype(dtype_of(dtype))
    array.flags.writeable = False
    return array


@lru_cache(maxsize=256)
def vector(length: int, seed: int = 0, dtype: str = "float32") -> Array:
    """Return a weight, a bias or means; numbers that float16 and bfloat16 hold, of any dtype."""
    values = np.random.default_rng([seed, length]).integers(-128, 129, length) / 64
    array = values.astype(dtype_of(dtype))
    array.flags.writeable = False
    return array


def variances(length: int) -> Array:
    return vector(length, 5) ** 2 + np.float32(0.5)


def strange_rows(dtype: str, columns: int) -> Array:
    """Return rows of ordinary numbers with others among them, and of those alone; ordinary rows between."""
    kind = dtype_of(dtype)
    every = np.arange(2**16, dtype=np.uint16).view(kind).astype(np.float32)
    finite = np.sort(np.abs(every[np.isfinite(every)]))
    largest, smallest, normal = finite[-1], finite[2], finite[finite >= 1][0]
    ordinary = data((24, columns), dtype).astype(np.float32)
    rows = ordinary.copy()
    middle = columns // 2
    for row, value in zip(range(0, 12, 2), (np.nan, np.inf, -np.inf, largest, -largest, smallest), strict=True):
        rows[row, middle] = value
    sign = np.where(np.arange(columns) % 3, 1.0, -1.0).astype(np.float32)
    filled = (0.0, -0.0, 0.7, largest, smallest, finite[finite < 2.0**-14 * normal][-1])
    for row, value in zip(range(12, 24, 2), filled, strict=True):
        rows[row] = np.float32(value)
    rows[19] = sign * largest
    rows[21] = sign * smallest
    rows[23] = np.where(sign > 0, largest, -0.0)
    return rows.astype(kind)


def wide(array: Array) -> Array:
    """Return the float32 copy, contiguous, exact."""
    return np.ascontiguousarray(array).astype(np.float32)


def rounded(values: Array, dtype: Any) -> Array:
    """Return numbers rounded to the nearest ones of a dtype, beyond the largest to infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype)


def parts(found: Any) -> list[Array]:
    """Return the arrays of a result, nested tuples flattened, without None."""
    if isinstance(found, tuple):
        return [array for part in found for array in parts(part)]
    return [] if found is None else [np.asarray(found)]


def assert_rounded(found: Any, expected: Any, dtype: Any, message: str = "") -> None:
    """The arrays of a result are those of the float32 call: float32 ones rounded to `dtype`, float64 and int8 as is."""
    several, wanted = parts(found), parts(expected)
    assert len(several) == len(wanted), message
    for array, other in zip(several, wanted, strict=True):
        assert_bits(array, rounded(other, dtype) if other.dtype == np.float32 else other, message)


def _both(x: Array, axis: int) -> tuple[Array, Array]:
    return vector(x.shape[axis], 1), vector(x.shape[axis], 2)


# Norms of rows, (rows, n).
ROW_NORMS: dict[str, Norm] = {
    "layer_norm": fastnorm.layer_norm,
    "layer_norm, weight and bias": lambda x, **k: fastnorm.layer_norm(x, *_both(x, -1), **k),
    "layer_norm, bias": lambda x, **k: fastnorm.layer_norm(x, None, vector(x.shape[-1]), **k),
    "rms_norm": fastnorm.rms_norm,
    "rms_norm, weight": lambda x, **k: fastnorm.rms_norm(x, vector(x.shape[-1]), **k),
    "l2_normalize": fastnorm.l2_normalize,
    "lp_normalize": lambda x, **k: fastnorm.lp_normalize(x, p=1, **k),
    "pixel_norm": lambda x, **k: fastnorm.pixel_norm(x, channel_axis=-1, **k),
    "standardize": lambda x, **k: fastnorm.standardize(x, axis=-1, **k),
    "min_max_scale": lambda x, **k: fastnorm.min_max_scale(x, axis=-1, feature_range=(-1, 2), **k),
    "max_abs_scale": lambda x, **k: fastnorm.max_abs_scale(x, axis=-1, **k),
    "weight_norm": lambda v, **k: fastnorm.weight_norm(v, vector(len(v)), **k),
    "weight_standardize": fastnorm.weight_standardize,
    "clip_by_norm": lambda x, **k: fastnorm.clip_by_norm(x, 1.5, axis=-1, **k),
    "instance_norm": lambda x, **k: fastnorm.instance_norm(x[np.newaxis], **k),
}

# Norms of columns, (outer, n, width).
COLUMN_NORMS: dict[str, Norm] = {
    "layer_norm": lambda x, **k: fastnorm.layer_norm(x, axis=1, **k),
    "layer_norm, weight and bias": lambda x, **k: fastnorm.layer_norm(x, *_both(x, 1), axis=1, **k),
    "rms_norm, weight": lambda x, **k: fastnorm.rms_norm(x, vector(x.shape[1]), axis=1, **k),
    "l2_normalize": lambda x, **k: fastnorm.l2_normalize(x, axis=1, **k),
    "lp_normalize": lambda x, **k: fastnorm.lp_normalize(x, p=1, axis=1, **k),
    "pixel_norm": lambda x, **k: fastnorm.pixel_norm(x, channel_axis=1, **k),
    "standardize": lambda x, **k: fastnorm.standardize(x, axis=1, ddof=1, **k),
    "standardize, all rows": lambda x, **k: fastnorm.standardize(x, axis=(0, 1), **k),
    "min_max_scale": lambda x, **k: fastnorm.min_max_scale(x, axis=1, **k),
    "max_abs_scale": lambda x, **k: fastnorm.max_abs_scale(x, axis=1, **k),
    "weight_norm": lambda v, **k: fastnorm.weight_norm(v, vector(v.shape[2]), axis=2, **k),
    "clip_by_norm": lambda x, **k: fastnorm.clip_by_norm(x, 1.5, axis=1, **k),
}


def _given(x: Array, axis: int) -> tuple[Array, Array]:
    return vector(x.shape[axis], 4), variances(x.shape[axis])


MIXTURE = [0.3, -0.2, 0.5], [-0.4, 0.1, 0.2]

# Norms of channels, by the axis of these, 1 or -1.
CHANNEL_NORMS: dict[str, Norm] = {
    "batch_norm, training": lambda x, a, **k: fastnorm.batch_norm(x, training=True, channel_axis=a, **k),
    "batch_norm, training, weight": lambda x, a, **k: fastnorm.batch_norm(
        x, None, None, *_both(x, a), training=True, channel_axis=a, **k
    ),
    "batch_norm, inference": lambda x, a, **k: fastnorm.batch_norm(x, *_given(x, a), channel_axis=a, **k),
    "batch_norm, inference, weight": lambda x, a, **k: fastnorm.batch_norm(
        x, *_given(x, a), *_both(x, a), channel_axis=a, **k
    ),
    "normalize": lambda x, a, **k: fastnorm.normalize(x, *_given(x, a), *_both(x, a), channel_axis=a, **k),
    "instance_norm": lambda x, a, **k: fastnorm.instance_norm(x, channel_axis=a, **k),
    "instance_norm, weight": lambda x, a, **k: fastnorm.instance_norm(x, *_both(x, a), channel_axis=a, **k),
    "group_norm, one group": lambda x, a, **k: fastnorm.group_norm(x, 1, *_both(x, a), channel_axis=a, **k),
    "group_norm": lambda x, a, **k: fastnorm.group_norm(x, 2 - x.shape[a] % 2, *_both(x, a), channel_axis=a, **k),
    "group_norm, no weight": lambda x, a, **k: fastnorm.group_norm(x, 2 - x.shape[a] % 2, channel_axis=a, **k),
    "group_norm, each channel": lambda x, a, **k: fastnorm.group_norm(x, x.shape[a], channel_axis=a, **k),
    "switchable_norm, training": lambda x, a, **k: fastnorm.switchable_norm(
        x, *MIXTURE, training=True, channel_axis=a, **k
    ),
    "switchable_norm, inference": lambda x, a, **k: fastnorm.switchable_norm(
        x, *MIXTURE, *_both(x, a), *_given(x, a), channel_axis=a, **k
    ),
    "pixel_norm": lambda x, a, **k: fastnorm.pixel_norm(x, channel_axis=a, **k),
}
