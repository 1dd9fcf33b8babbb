"""What a call would do here, and why: nothing is computed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.dispatch import BY_BLAS, BY_KERNELS, BY_NUMPY, choose, step_for
from fastnorm.dtypes import storage
from fastnorm.plan import plan_reduction
from fastnorm.settings import current

Axes = tuple[int, ...]

# The axes that a function reduces unless told otherwise, of an array with so many.
_REDUCED: dict[str, Callable[[int], Axes]] = {
    **dict.fromkeys(("layer_norm", "rms_norm", "l2_normalize", "lp_normalize"), lambda ndim: (ndim - 1,)),
    **dict.fromkeys(("standardize", "min_max_scale", "max_abs_scale"), lambda ndim: (0,)),
    **dict.fromkeys(("pixel_norm",), lambda ndim: (min(1, ndim - 1),)),
    **dict.fromkeys(("batch_norm",), lambda ndim: (0, *range(2, ndim))),
    **dict.fromkeys(("instance_norm", "group_norm", "switchable_norm"), lambda ndim: tuple(range(2, ndim))),
    **dict.fromkeys(("weight_norm", "weight_standardize"), lambda ndim: tuple(range(1, ndim))),
    **dict.fromkeys(("moments", "extrema", "clip_by_norm", "clip_by_global_norm"), lambda ndim: tuple(range(ndim))),
}
_SQUARES = (
    "rms_norm", "l2_normalize", "lp_normalize", "pixel_norm", "weight_norm", "clip_by_norm", "clip_by_global_norm",
)  # fmt: skip
_EXTREMA = ("extrema", "min_max_scale", "max_abs_scale")
_WITHOUT_OUTPUT = ("moments", "extrema")
_SHORT_BYTES = 1024  # rows that the compiled kernels take 16 at a time


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
        How statistics are made.
    stores : str
        Where the output comes from and how it is written.
    bound : str
        The memory that has to be moved, which is what the time of a large call comes to, and the error of the result.
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
    if op in ("normalize", "batch_norm"):
        return "none: the statistics are given"
    if op in _EXTREMA:
        return "one pass for the least and the largest"
    if not compiled:
        return "two passes in float64"
    axes = _REDUCED[op](len(shape)) if shape else ()
    outer, reduce, inner = plan_reduction(shape, axes).view
    lines = "a line for each group" if op == "group_norm" else f"{outer * inner:,} lines of {reduce:,}"
    squares = op in _SQUARES
    if inner > 1:
        return f"columns, {lines}: blocks of 64 rows, read {'once' if squares else 'twice'}, joined in float64"
    how = "the squares in one pass" if squares else "one pass about a shift near the mean, repeated where it is far"
    if op != "group_norm" and reduce * itemsize <= _SHORT_BYTES:
        return f"short rows, {lines}: 16 in flight, {how}"
    return f"rows, {lines}: {how}; blocks of 4,096 joined in float64"


def _stores(op: str, size: int, storage_size: int, backend: str) -> str:
    if op in _WITHOUT_OUTPUT:
        return "none"
    memory = "recycled memory" if size >= tuning.POOL_SMALLEST_BYTES else "fresh memory"
    if backend == "reference" or op in BY_NUMPY:
        return f"NumPy's; {memory}"
    streamed = backend == "cython" and storage_size > 2 and size >= tuning.STREAM_BYTES
    return f"{'non-temporal, past the caches' if streamed else 'ordinary'}; {memory}"


def _bound(op: str, elements: int, source: int, target: int, error: float) -> str:
    moved = elements * (source + (0 if op in _WITHOUT_OUTPUT else target))
    return f"{moved / 1e6:,.3g} MB to move; error at most {error:.1e} of max(1, |y|)"


def explain(op: str, shape: tuple[int, ...] | int, dtype: npt.DTypeLike = "float32") -> Explanation:
    """Say which backend would serve a call here with default arguments, what it would do, and why.

    Parameters
    ----------
    op : str
        The name of a function, such as "layer_norm".
    shape : tuple of int
        The shape of the input.
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
        The dtype is not a real number type.
    ValueError
        There is no such function.
    RuntimeError
        The settings force a backend that cannot serve it.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.explain("layer_norm", (8, 768)).reason
    'small: one thread'
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if op not in BY_KERNELS + BY_NUMPY:
        raise ValueError(f"explain: op must be the name of a function, such as 'layer_norm', got {op!r}")
    requested = np.dtype(dtype)
    treated = storage(requested, "explain", "dtype")
    settings = current()
    elements = prod(shape)
    by_numpy = op in BY_NUMPY or (op in BY_BLAS and settings.backend == "auto")
    backend = registry.load("reference") if op in BY_BLAS and by_numpy else choose(elements, None, op)
    reason = "computed by NumPy" if by_numpy else f"forced: backend={settings.backend!r}"
    if settings.backend == "auto" and not by_numpy:
        step = step_for(elements)
        reason = step.reason
        for name in step.backends[: step.backends.index(backend.name)]:
            reason += f"; {name} {registry.why_passed_over(name)}"
    # float16 and bfloat16 round the result once more.
    error = max(
        4 * 2.0 ** -(24 if treated.compute.itemsize == 4 else 53), 2.0**-9 if treated.result.itemsize == 2 else 0
    )
    return Explanation(
        op,
        shape,
        requested.name,
        treated.compute.name,
        backend.name,
        backend.variant(),
        1 if elements <= tuning.SERIAL_ELEMENTS else backend.threads(settings.num_threads),
        _algorithm(op, shape, treated.compute.itemsize, backend.name != "reference"),
        _stores(op, elements * treated.result.itemsize, treated.result.itemsize, backend.name),
        _bound(op, elements, requested.itemsize, treated.result.itemsize, error),
        reason,
    )
