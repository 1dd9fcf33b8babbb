"""Arrays in and arrays out: what a call takes from its caller, in which dtype it computes, where its result goes."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fastnorm.backends.reference import Reference
from fastnorm.device import is_device_array
from fastnorm.dispatch import choose
from fastnorm.dtypes import FLOAT32, FLOAT64, computed_in, is_narrow, result_dtype, storage
from fastnorm.memory import empty
from fastnorm.settings import current
from fastnorm.tuning import COPIED_ELEMENTS

Array = npt.NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Call:
    """The input and the output of one call, checked, of one dtype that the backend's primitives take."""

    x: Array
    y: Array
    result: np.dtype[Any]
    out: Array | None
    backend: Reference

    @property
    def compute(self) -> np.dtype[Any]:
        """The dtype that the kernels compute in, and take parameters in."""
        return computed_in(self.x.dtype)

    def finish(self) -> Array:
        """Return the result where the caller wants it, rounded once to its dtype."""
        if self.out is self.y or (self.out is None and self.y.dtype == self.result):
            return self.y
        with np.errstate(all="ignore"):
            if self.out is None:
                return _converted(self.y, self.result, self.backend)
            if np.may_share_memory(self.out, self.y):  # y is a view of it
                return self.out
            if self.out.dtype == self.y.dtype:
                self.backend.copy(self.y, self.out)
            else:
                np.copyto(self.out, self.y, casting="unsafe")
        return self.out

    def total(self) -> Array:
        """Return x, rounded once to the dtype of the result: the sum with a residual, see `engine.fuse`."""
        with np.errstate(all="ignore"):
            return self.x if self.x.dtype == self.result else _converted(self.x, self.result, self.backend)


def check_unmasked(x: Any, function: str, name: str, advice: str = "") -> None:
    """Check that x has no masked elements, which no kernel heeds."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise TypeError(f"{function}: {name} must have no masked elements{advice}")


def take(x: npt.ArrayLike, function: str, name: str = "x") -> Array:
    """Return `x` as an array of a dtype that the library knows.

    Raises
    ------
    TypeError
        It is not an array of real numbers in host memory.
    """
    if is_device_array(x):
        raise TypeError(f"{function}: {name} must be in host memory here, got {type(x).__name__} on a CUDA device")
    check_unmasked(x, function, name, ": fill them, or pass where= if it is taken" if name == "x" else ": fill them")
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor that is no array
        raise TypeError(f"{function}: {name} must be an array of numbers: {error}") from None
    storage(array.dtype, function, name)
    return array


def as_compute(array: Array, dtype: np.dtype[Any], backend: Reference | None = None) -> Array:
    """Return the array in a dtype that kernels take, native, aligned; a backend converts faster than NumPy."""
    if array.dtype == dtype and array.flags.aligned:
        return array
    with np.errstate(all="ignore"):
        return _converted(array, dtype, backend)


def _is_rows(array: Array) -> bool:
    """Whether an array is contiguous, or rows that are, all as far from one another as the first two."""
    if array.flags.c_contiguous:
        return True
    *rows, (_, stride) = [(size, stride) for size, stride in zip(array.shape, array.strides, strict=True) if size != 1]
    return stride == array.itemsize and all(a[1] == b[0] * b[1] for a, b in itertools.pairwise(rows))


def as_rows(array: Array, backend: Reference) -> Array:
    """Return the array if it lies as kernels take lines, or a contiguous copy."""
    if _is_rows(array):
        return array
    copy = empty(array.shape, array.dtype)
    backend.copy(array, copy)
    return copy


def _converted(array: Array, dtype: np.dtype[Any], backend: Reference | None) -> Array:
    target = empty(array.shape, dtype)
    widened, narrowed = is_narrow(array.dtype) and dtype == FLOAT32, array.dtype == FLOAT32 and is_narrow(dtype)
    plain = array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative and dtype.isnative
    if backend is not None and (widened or narrowed) and plain:
        backend.convert(array.reshape(-1), target.reshape(-1))
    else:
        np.copyto(target, array, casting="unsafe")
    return target


def readable(x: Array, backend: Reference, function: str) -> Array:
    """Return x in a dtype that the primitives of a backend read."""
    kept = backend.narrow and is_narrow(x.dtype) and x.dtype.isnative
    return as_compute(x, x.dtype if kept else storage(x.dtype, function, "x").compute, backend)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def usable_as_output(out: Array, x: Array | None, dtype: np.dtype[Any], others: tuple[Array | None, ...]) -> bool:
    """Whether the kernels may write to `out` while they read x, of which each element goes first, and the others."""
    if out.dtype != dtype or not out.flags.c_contiguous or not out.flags.aligned:
        return False
    if any(other is not None and np.may_share_memory(out, other) for other in others):
        return False
    if x is None or not np.may_share_memory(out, x):
        return True
    return _address(out) == _address(x) and out.strides == x.strides and x.dtype == dtype


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], function: str) -> None:
    """Check that `out` can take a result.

    Raises
    ------
    TypeError
        It is not an array, or of another dtype.
    ValueError
        It is of another shape, or read-only.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{function}: out must be a numpy.ndarray, got {type(out).__name__}")
    check_unmasked(out, function, "out")
    if out.shape != shape:
        raise ValueError(f"{function}: out must have the shape of the result, {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise TypeError(f"{function}: out must have the dtype of the result, {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{function}: out is read-only")


def take_several(out: Any, count: int, parts: str, function: str) -> tuple[Array, ...]:
    """Return the arrays of `out`, a sequence for `count` results, `parts` in words; each is left to `check_out`.

    A list may change in another thread: what is checked is what is returned.

    Raises
    ------
    TypeError
        It is not a sequence; an array is none.
    ValueError
        It has another length, or arrays that share memory.
    """
    if not isinstance(out, Sequence):
        raise TypeError(f"{function}: out must be a sequence of numpy.ndarray, got {type(out).__name__}")
    targets = tuple(out)
    if len(targets) != count:
        raise ValueError(f"{function}: out must have {parts}, got {len(targets)}")
    arrays = [part for part in targets if isinstance(part, np.ndarray)]
    if any(np.may_share_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i]):
        raise ValueError(f"{function}: the arrays of out must not share memory")
    return targets


def begin(
    x: Array, out: Array | None, dtype: npt.DTypeLike | None, backend: str | None, function: str,
    others: tuple[Array | None, ...] = (), narrow: bool = False,
) -> Call:  # fmt: skip
    """Check `out`, `dtype` and `backend`, and return the call; nothing is written yet.

    `others` are arrays that the kernels read besides x, already in the compute dtype. With `narrow` x is given to
    primitives alone, and floats of 16 bits may stay so, if the backend's take them and the result has their dtype.
    """
    result, compute, chosen = settle(x, out, dtype, backend, function, narrow)
    source = as_rows(as_compute(x, compute, chosen), chosen)
    if out is not None and usable_as_output(out, source, compute, others):
        return Call(source, np.asarray(out), result, out, chosen)  # a matrix, for one, has two dimensions in every view
    if source is not x and result == compute and source.flags.c_contiguous:
        return Call(source, source, result, out, chosen)  # a copy is scratch memory: normalised in place
    return Call(source, empty(x.shape, compute), result, out, chosen)


def compute_dtype(x: Array, dtype: npt.DTypeLike | None, function: str) -> np.dtype[Any]:
    """Return the dtype in which `begin` will have the kernels compute."""
    kind = storage(x.dtype, function, "x")
    result = result_dtype(dtype, kind.result, function)
    return FLOAT64 if result.type is np.float64 else kind.compute  # of either byte order


def settle(
    x: Array, out: Array | None, dtype: npt.DTypeLike | None, backend: str | None, function: str, narrow: bool
) -> tuple[np.dtype[Any], np.dtype[Any], Reference]:
    """Check `out`, `dtype` and `backend`; return the dtypes of the result and of what primitives read, and the backend.

    The latter two differ where floats of 16 bits are computed with in float32; with `narrow` primitives may take them.
    """
    result = result_dtype(dtype, storage(x.dtype, function, "x").result, function)
    compute = compute_dtype(x, dtype, function)
    if out is not None:
        check_out(out, x.shape, result, function)
    chosen = choose(x.size, backend, function)
    if narrow and chosen.narrow and is_narrow(result) and x.dtype == result and result.isnative:
        compute = result
    return result, compute, chosen


def plain_copy(x: Any, dtype: npt.DTypeLike | None, function: str) -> Array | None:
    """Return x, if it is small and must be copied or converted anyway, as an array that the fast path takes; else None.

    The copy has the dtype of the result, and may be normalised in place.
    """
    if type(x) is not np.ndarray or x.ndim == 0 or not 0 < x.size <= COPIED_ELEMENTS or current().backend != "auto":
        return None
    try:
        result, compute, backend = settle(x, None, dtype, None, function, narrow=True)
    except TypeError:  # said where all arguments are checked
        return None
    if result != compute or (x.dtype == compute and x.flags.aligned and _is_rows(x)):
        return None
    return as_rows(as_compute(x, compute, backend), backend)


def through_plain_copies(function: Function) -> Function:
    """Call a function again where x must be copied anyway, with the copy as x and `out`: the fast path may serve."""

    @wraps(function)
    def call(x: Any, *arguments: Any, **options: Any) -> Any:
        copy = None
        positional = len(arguments) < function.__code__.co_argcount
        if positional and all(options.get(name) is None for name in ("out", "backend", "quantize")):
            copy = plain_copy(x, options.get("dtype"), function.__name__)
        if copy is None:
            return function(x, *arguments, **options)
        decorated = function.__globals__[function.__name__]  # which does not exist yet when this decorator is run
        return decorated(copy, *arguments, **{**options, "dtype": None, "out": copy})

    return cast(Function, call)


@lru_cache(maxsize=64)
def _constant(value: float, length: int, dtype: np.dtype[Any]) -> Array:
    array = np.full(length, value, dtype)
    array.flags.writeable = False
    return array


def parameter(value: Array | None, default: float, length: int, dtype: np.dtype[Any]) -> Array:
    """Return a weight or bias for the kernels: flat, contiguous; a missing one is a constant."""
    if value is None:
        return _constant(default, length, dtype)
    return np.ascontiguousarray(as_compute(value, dtype).reshape(-1))


def viewed(array: Array, view: tuple[int, int, int], order: tuple[int, ...] | None = None) -> Array:
    """Return an array as a canonical view, copied only if its strides do not allow that."""
    if order is not None:
        array = array.transpose(order)
    array = array.reshape(view)
    axis = 1 if view[2] == 1 else 2
    if view[axis] > 1 and array.strides[axis] != array.itemsize:
        array = np.ascontiguousarray(array)
    return array
