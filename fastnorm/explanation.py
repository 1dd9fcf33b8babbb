"""What a call would do here, and why: nothing is computed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.dispatch import BY_BLAS, BY_NUMPY, choose, preference
from fastnorm.dtypes import Storage, find_dtype, storage
from fastnorm.plan import CHUNK_COLUMNS, plan_reduction, rows_of_unit
from fastnorm.settings import current


class _Op(NamedTuple):
    """What there is to say of a function."""

    axes: tuple[slice, ...] = ()  # of all of them, those that are reduced unless a call says otherwise
    measure: Literal["variance", "squares", "extrema"] = "variance"
    terms: str = ""  # what its backward pass adds up for dx; "": there is none
    parameters: Literal["", "position", "channel"] = ""  # what its weights go with, of those with a backward pass
    dimensions: int = 1  # at least


_LAST, _FIRST, _ALL, _SLICES, _POSITIONS = (
    (slice(-1, None),), (slice(1),), (slice(None),), (slice(1, None),), (slice(2, None),)
)  # fmt: skip
_OF_CHANNELS: dict[str, Any] = {"terms": "dy and of dy * (x - mean)", "parameters": "channel", "dimensions": 2}
_CLIP, _LOCAL, _IMAGE = "clip_by_value", "local_response_norm", "normalize_image"
_OPS = {
    "layer_norm": _Op(_LAST, terms="g = weight * dy and of g * (x - mean)", parameters="position"),
    "rms_norm": _Op(_LAST, "squares", terms="weight * dy * x", parameters="position"),
    "batch_norm": _Op((*_FIRST, *_POSITIONS), **_OF_CHANNELS),
    "instance_norm": _Op(_POSITIONS, **_OF_CHANNELS),
    "group_norm": _Op(_POSITIONS, **_OF_CHANNELS),
    "switchable_norm": _Op(_POSITIONS, **_OF_CHANNELS),
    "pixel_norm": _Op((slice(1, 2),), "squares", terms="dy * x", dimensions=2),
    "l2_normalize": _Op(_LAST, "squares", terms="dy * x"),
    "lp_normalize": _Op(_LAST, "squares"),
    _LOCAL: _Op(terms="dy * x / d", dimensions=2),
    "normalize": _Op(),
    "standardize": _Op(_FIRST),
    "min_max_scale": _Op(_FIRST, "extrema"),
    "max_abs_scale": _Op(_FIRST, "extrema"),
    "weight_norm": _Op(_SLICES, "squares"),
    "weight_standardize": _Op(_SLICES, dimensions=2),
    "spectral_norm": _Op(dimensions=2),
    "fold_batch_norm": _Op(),
    "moments": _Op(_ALL, dimensions=0),
    "extrema": _Op(_ALL, "extrema", dimensions=0),
    _CLIP: _Op(dimensions=0),
    "clip_by_norm": _Op(_ALL, "squares", dimensions=0),
    "clip_by_global_norm": _Op(_ALL, "squares", dimensions=0),
    _IMAGE: _Op(),
}
_WITHOUT_OUTPUT = ("moments", "extrema")
_SHORT_BYTES = 1024  # rows that the compiled kernels take 16 at a time
_BLOCK = 4096  # elements of a row that are added up in the type they are computed in
_LANES_BYTES = 128  # what goes through the kernels at a time: 32 float32 or 16 float64, each with a sum of its own
# Roundings of a gradient besides those of its sums: statistics and normalised numbers are within 4 units each, as in
# the forward pass, of two terms; a lane's sum is folded in 5 additions, and fewer than 10 operations make dx of them.
_GRADIENT_ROUNDINGS = 23


@dataclass(frozen=True)
class Explanation:
    """What a call would do; `str` gives a line for each attribute.

    Attributes
    ----------
    op, shape, dtype
        The call.
    compute_dtype : str
        What the kernels read and write.
    backend, variant : str
        Who serves it.
    threads : int
        How many may take part.
    algorithm : str
        How statistics are made; of a backward pass also its sums: of what, in which type, in which order.
    stores : str
        Where the output comes from and how it is written.
    bound : str
        The memory that has to be moved, which is what the time of a large call comes to, and the error of the result:
        of a gradient in proportion to the magnitudes of the terms that it is the sum of.
    reason : str
        Why this backend.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str
    compute_dtype: str
    backend: str
    variant: str
    threads: int
    algorithm: str
    stores: str
    bound: str
    reason: str

    def __str__(self) -> str:
        return "\n".join(f"{key.replace('_', ' '):14}{value}" for key, value in asdict(self).items())


def _algorithm(op: str, shape: tuple[int, ...], itemsize: int, compiled: bool) -> str:
    if op in BY_NUMPY or op in BY_BLAS:
        return "NumPy"
    forward = op.removesuffix("_backward")
    if op == _CLIP:
        return "element by element"
    if forward == _LOCAL:
        squares = "sums of squares over the channels around, in float64"
        return squares if op == forward else f"{squares}; sums of {_OPS[forward].terms} likewise"
    short = 0 if op != forward or op == "group_norm" else _SHORT_BYTES
    statistics = _statistics(forward, shape, itemsize, short, compiled)
    return statistics if op == forward else f"{statistics}; {_sums(forward, shape, itemsize, compiled)}"


def _view(op: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    axes = range(len(shape))
    return plan_reduction(shape, tuple(axis for part in _OPS[op].axes for axis in axes[part])).view


def _statistics(op: str, shape: tuple[int, ...], itemsize: int, short: int, compiled: bool) -> str:
    """How statistics are made; rows of up to `short` bytes are taken several at a time."""
    if op in ("normalize", "batch_norm"):
        return "none: the statistics are given"
    if op == _IMAGE:
        return "none where mean and std are given; else exact sums of each channel of an image"
    if _OPS[op].measure == "extrema":
        return "one pass for the least and the largest"
    if not compiled:
        return "two passes in float64"
    outer, reduce, inner = _view(op, shape)
    lines = "a line for each group" if op == "group_norm" else f"{outer * inner:,} lines of {reduce:,}"
    squares = _OPS[op].measure == "squares"
    if inner > 1:
        return f"columns, {lines}: blocks of 64 rows, read {'once' if squares else 'twice'}, joined in float64"
    how = "the squares in one pass" if squares else "one pass about a shift near the mean, repeated where it is far"
    if reduce * itemsize <= short and outer > 1:
        together = "16" if reduce * itemsize >= _LANES_BYTES else "16 or more"  # one a lane, where they are transposed
        return f"short rows, {lines}: {together} in flight, {how}"
    return f"rows, {lines}: {how}; blocks of 4,096 joined in float64"


def _adds_rows(op: str, shape: tuple[int, ...]) -> bool:
    """Whether the lines that a backward pass adds up are contiguous."""
    if _OPS[op].parameters == "channel":
        return prod(shape[2:]) > 1
    return _OPS[op].parameters == "position" or _view(op, shape)[2] == 1


def _sums(op: str, shape: tuple[int, ...], itemsize: int, compiled: bool) -> str:
    """How the backward pass of `op` adds up what dx, and then dweight and dbias, are made of."""
    if not compiled:
        how = "in float64 by NumPy"
    elif _adds_rows(op, shape):
        how = f"blocks of {_BLOCK:,} in {_LANES_BYTES // itemsize} lanes of float{8 * itemsize}, joined in float64"
    else:
        how = f"row after row in float64, chunks of {CHUNK_COLUMNS:,} rows joined in order"
    text = f"sums of {_OPS[op].terms}: {how}"
    if _OPS[op].parameters == "channel":
        return f"{text}; dweight and dbias: those of all items, added in float64"
    if _OPS[op].parameters == "position":
        parameters = "dweight" if op == "rms_norm" else "dweight and dbias"
        units = f", units of {rows_of_unit(*_view(op, shape)[:2])} rows joined in order" if compiled else ""
        return f"{text}; {parameters}: row after row in float64{units}"
    return text


def _stores(op: str, size: int, storage_size: int, backend: str) -> str:
    if op in _WITHOUT_OUTPUT:
        return "none"
    memory = "recycled memory" if size >= tuning.POOL_SMALLEST_BYTES else "fresh memory"
    if backend == "reference" or op in BY_NUMPY:
        return f"NumPy's; {memory}"
    streamed = backend == "cython" and storage_size > 2 and size >= tuning.STREAM_BYTES
    return f"{'non-temporal, past the caches' if streamed else 'ordinary'}; {memory}"


def _bound(op: str, elements: int, source: int, treated: Storage) -> str:
    moved = elements * (source + (0 if op in _WITHOUT_OUTPUT else treated.result.itemsize))
    # float16 and bfloat16 round the result once more.
    error = max(
        4 * 2.0 ** -(24 if treated.compute.itemsize == 4 else 53), 2.0**-9 if treated.result.itemsize == 2 else 0
    )
    return f"{moved / 1e6:,.3g} MB to move; error at most {error:.1e} of max(1, |y|)"


def _gradient_bound(op: str, shape: tuple[int, ...], treated: Storage, source: int, compiled: bool) -> str:
    """The bound of the backward pass of `op`, for dy of the dtype of x."""
    itemsize, target = treated.compute.itemsize, treated.result.itemsize
    if op == _LOCAL:
        rows, arrays = False, 2  # that are read
    else:
        rows = _adds_rows(op, shape)
        # x and dy once, while a row is in cache; else for the sums and for dx, and x for its statistics.
        arrays = 3 if op == "batch_norm" else 2 if rows and op != "switchable_norm" else 5
    chain = -(-min(_view(op, shape)[1], _BLOCK) * itemsize // _LANES_BYTES) if rows and compiled else 0
    units = f"{chain + _GRADIENT_ROUNDINGS}"
    if itemsize == 8:  # where the mean is one number, rounded as x is
        units = f"({units} + |mean| / std)"
    rounded = f", then rounded to {treated.result.name}" if target < itemsize else ""
    return (
        f"{prod(shape) * (arrays * source + target) / 1e6:,.3g} MB to move; "
        f"error at most {units} * {2.0 ** -(24 if itemsize == 4 else 53):.1e} of the terms' magnitudes{rounded}"
    )


def _sizes(shape: Any) -> tuple[int, ...]:
    """Return a shape, checked; a number is that of one dimension."""
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if any(isinstance(size, (bool, np.bool_)) or not isinstance(size, (int, np.integer)) for size in sizes):
        raise TypeError(f"explain: shape must be an int or a tuple of int, got {shape!r}")
    if any(size < 0 for size in sizes):
        raise ValueError(f"explain: shape must have sizes of at least 0, got {shape!r}")
    if prod(map(int, sizes)) > sys.maxsize:
        raise ValueError("explain: shape must be that of an array, got one of too many elements")
    return tuple(map(int, sizes))


def explain(op: str, shape: tuple[int, ...] | int, dtype: npt.DTypeLike = "float32") -> Explanation:
    """Say which backend would serve a call here with default arguments, what it would do, and why.

    Parameters
    ----------
    op : str
        The name of a function, such as "layer_norm" or "layer_norm_backward".
    shape : tuple of int, or int
        The shape of the input; of one dimension, its length.
    dtype : dtype, default float32
        The dtype of the input.

    Returns
    -------
    Explanation
        With `.backend`, `.variant`, `.threads`, `.compute_dtype`, `.algorithm`, `.stores`, `.bound` and `.reason`;
        `print` shows them.

    Raises
    ------
    TypeError
        The dtype is not a real number type, or the shape not of ints.
    ValueError
        There is no such function, a size is negative, or the function takes more dimensions.
    RuntimeError
        The settings force a backend that cannot serve it.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.explain("layer_norm", (8, 768)).reason
    'small: one thread'
    >>> fastnorm.explain("l2_normalize_backward", (8, 768)).algorithm.rpartition("; ")[2]
    'sums of dy * x: blocks of 4,096 in 32 lanes of float32, joined in float64'
    """
    shape = _sizes(shape)
    forward = op.removesuffix("_backward") if isinstance(op, str) else ""
    if forward not in _OPS or (op != forward and not _OPS[forward].terms):
        raise ValueError(f"explain: op must be the name of a function, such as 'layer_norm', got {op!r}")
    least = _OPS[forward].dimensions
    if op == _IMAGE and len(shape) not in (3, 4):
        raise ValueError(f"explain: shape must be (H, W, C) or (N, H, W, C) for {op}, got {shape!r}")
    if len(shape) < least:
        raise ValueError(f"explain: shape must have at least {least} dimensions for {op}, got {shape!r}")
    requested = find_dtype(dtype)
    if requested is None:
        raise TypeError(f"explain: dtype must be a real number dtype, got {dtype!r}")
    treated = storage(requested, "explain", "dtype")
    settings = current()
    if settings.backend == "cuda":
        raise RuntimeError("explain: the cuda backend serves arrays on a CUDA device alone, and is not described")
    elements = prod(shape)
    by_numpy = op in BY_NUMPY or (op in BY_BLAS and settings.backend == "auto")
    backend = registry.load("reference") if op in BY_BLAS and by_numpy else choose(elements, None, op)
    reason = "computed by NumPy" if by_numpy else f"forced: backend={settings.backend!r}"
    if settings.backend == "auto" and not by_numpy:
        preferred = preference(elements)
        reason = preferred.reason
        for name in preferred.backends[: preferred.backends.index(backend.name)]:
            reason += f"; {name} {registry.why_passed_over(name)}"
    compiled = backend.name != "reference"
    if op != forward:
        bound = _gradient_bound(forward, shape, treated, requested.itemsize, compiled)
    else:
        bound = _bound(op, elements, requested.itemsize, treated)
    return Explanation(
        op,
        shape,
        requested.name,
        treated.compute.name,
        backend.name,
        backend.variant(),
        tuning.threads_for(elements, backend.threads(settings.num_threads)),
        _algorithm(op, shape, treated.compute.itemsize, compiled),
        _stores(op, elements * treated.result.itemsize, treated.result.itemsize, backend.name),
        bound,
        reason,
    )
