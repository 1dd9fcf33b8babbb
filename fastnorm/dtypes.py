"""Storage types, what they are computed in and what comes out; a dtype is one row of a table."""

from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm.loading import load

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)


class Storage(NamedTuple):
    """How an input dtype is treated."""

    compute: np.dtype[Any]  # what the kernels read and write
    result: np.dtype[Any]  # what a norm returns unless `dtype=` says otherwise


_STORAGE = {
    "bool": Storage(FLOAT32, FLOAT32),
    "int8": Storage(FLOAT32, FLOAT32),  # integers of up to 16 bits are exact in float32
    "uint8": Storage(FLOAT32, FLOAT32),
    "int16": Storage(FLOAT32, FLOAT32),
    "uint16": Storage(FLOAT32, FLOAT32),
    "int32": Storage(FLOAT64, FLOAT64),
    "uint32": Storage(FLOAT64, FLOAT64),
    "int64": Storage(FLOAT64, FLOAT64),
    "uint64": Storage(FLOAT64, FLOAT64),
    "float16": Storage(FLOAT32, np.dtype(np.float16)),
    "float32": Storage(FLOAT32, FLOAT32),
    "float64": Storage(FLOAT64, FLOAT64),
}
# ml_dtypes' type, known by its name so that the package need not be imported.
_BFLOAT16 = "bfloat16"


@lru_cache(maxsize=64)
def _find(dtype: np.dtype[Any]) -> Storage | None:
    if dtype.name == _BFLOAT16:
        return Storage(FLOAT32, dtype.newbyteorder("="))
    return _STORAGE.get(dtype.name)


def storage(dtype: np.dtype[Any], function: str, argument: str) -> Storage:
    """Return how `dtype` is treated.

    Raises
    ------
    TypeError
        The dtype is not a real number type of at most 64 bits.
    """
    row = _find(dtype)
    if row is not None:
        return row
    raise TypeError(
        f"{function}: {argument} must have a real number dtype of at most 64 bits "
        f"(bool, integer, float16, bfloat16, float32, float64), got {dtype}"
    )


@lru_cache(maxsize=64)
def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether this is a floating dtype of 16 bits, which is computed with in float32."""
    return dtype.name in ("float16", _BFLOAT16)


def computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what kernels that are given an array of a floating dtype compute in, and take parameters in."""
    return FLOAT32 if is_narrow(dtype) else dtype


@lru_cache(maxsize=64)
def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether a result may have this dtype."""
    row = _find(dtype)
    return row is not None and row.result.name == dtype.name


def find_dtype(value: npt.DTypeLike) -> np.dtype[Any] | None:
    """Return the dtype that NumPy makes of a value, None if it makes none."""
    if isinstance(value, str) and value == _BFLOAT16:
        with suppress(ImportError):
            load("ml_dtypes")  # from then on NumPy knows the name
    try:
        return np.dtype(value)
    except (TypeError, ValueError, SyntaxError):  # the last for ","
        return None


def result_dtype(requested: npt.DTypeLike | None, default: np.dtype[Any], function: str) -> np.dtype[Any]:
    """Return the dtype of a result: `requested`, which must be a floating one, or the default.

    Raises
    ------
    TypeError
        `requested` is not a floating dtype that the library knows.
    """
    if requested is None:
        return default
    dtype = find_dtype(requested)
    if dtype is not None and is_floating(dtype):
        return dtype
    got = repr(requested) if dtype is None else dtype
    raise TypeError(f"{function}: dtype must be float16, bfloat16, float32 or float64, got {got}")
