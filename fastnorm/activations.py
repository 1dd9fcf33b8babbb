"""What may follow a norm in the same pass: a table of activations for all backends, and functions of the user's."""

import dis
import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from fastnorm.dtypes import FLOAT32, FLOAT64, computed_in, is_narrow

Array = npt.NDArray[Any]


def _relu(x: Array) -> Array:
    return np.where(x < 0, 0.0, x)


def _gelu(x: Array) -> Array:
    from scipy.special import ndtr

    result: Array = np.maximum(x, -200.0) * ndtr(x)  # minus infinity times 0 is to be 0
    return result


def _sigmoid(x: Array) -> Array:
    from scipy.special import expit

    result: Array = expit(x)
    return result


def _gelu_tanh(x: Array) -> Array:
    return np.maximum(x, -200.0) * _sigmoid(2.0 * (2.0 / np.pi) ** 0.5 * (x + 0.044715 * (x * x * x)))


def _silu(x: Array) -> Array:
    return np.maximum(x, -800.0) * _sigmoid(x)


# In the order of src_pyx/vectors/activations.h. gelu: Hendrycks and Gimpel, 2016; silu: Elfwing, Uchibe and Doya, 2017.
FORMULAS: dict[str, Callable[[Array], Array]] = {
    "relu": _relu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
}

# What compiled kernels know them by.
CODES = {name: number for number, name in enumerate(FORMULAS)}


class Activation:
    """A function of one number, applied to every element."""

    def __init__(self, name: str) -> None:
        self.name = name

    def code(self, dtype: np.dtype[Any]) -> int:
        """Return what compiled kernels know it by: its number in the table, or a function's address."""
        return CODES[self.name]

    def apply(self, y: Array) -> None:
        """Apply it in place, in float64."""
        with np.errstate(all="ignore"):
            np.copyto(y, FORMULAS[self.name](y.astype(np.float64)), casting="unsafe")


class Scalar(Activation):
    """A scalar function compiled by ``numba.njit``, as a function over an array that C can call."""

    def __init__(self, function: Any) -> None:
        super().__init__(function.__name__)
        self._function, self._options = function.py_func, function.targetoptions
        self._loops: dict[np.dtype[Any], Any] = {}

    def _loop(self, dtype: np.dtype[Any]) -> Any:
        if dtype not in self._loops:
            import numba

            # Division by zero gives infinity or NaN, as in NumPy: by itself Numba raises there, in the midst of a line.
            options = {**self._options, "error_model": "numpy"}
            function, scalar = numba.jit(**options)(self._function), numba.from_dtype(dtype)

            def loop(y: Any, n: int) -> None:
                for i in range(n):
                    y[i] = function(y[i])

            try:
                compiled = numba.cfunc(numba.void(numba.types.CPointer(scalar), numba.intp))(loop)
            except numba.core.errors.NumbaError as error:
                raise TypeError(f"activation {self.name!r} does not map a {dtype} to a number: {error}") from None
            self._loops.setdefault(dtype, compiled)  # another thread may run what it has compiled meanwhile
        return self._loops[dtype]

    def code(self, dtype: np.dtype[Any]) -> int:
        """Return the address of the loop over an array."""
        address: int = self._loop(dtype).address
        return address

    def apply(self, y: Array) -> None:
        """Apply it in place, in the dtype of y."""
        flat = y if y.flags.c_contiguous else np.ascontiguousarray(y)
        loop = self._loop(y.dtype)
        loop.ctypes(flat.ctypes.data_as(loop.ctypes.argtypes[0]), flat.size)
        if flat is not y:
            np.copyto(y, flat)


# What a function is compiled to lives as long as it, and so while a kernel calls it by its address; not longer, since a
# `Scalar` does not refer to its key.
_compiled: "WeakKeyDictionary[Any, Scalar]" = WeakKeyDictionary()


def check_activation(activation: Any, function: str, dtype: np.dtype[Any]) -> Activation | None:
    """Return the activation that a caller names, or its function compiled for `dtype`; None stays None.

    Raises
    ------
    TypeError
        It is neither a name nor a function compiled by ``numba.njit``, or not one of a number of `dtype`, or one that
        raises.
    ValueError
        There is none of that name.
    """
    if activation is None:
        return None
    if isinstance(activation, str):
        if activation not in FORMULAS:
            names = ", ".join(map(repr, FORMULAS))
            raise ValueError(f"{function}: activation must be one of {names}, got {activation!r}")
        return Activation(activation)
    if not (type(activation).__module__.startswith("numba.") and hasattr(activation, "py_func")):
        raise TypeError(
            f"{function}: activation must be a name or a scalar function compiled by numba.njit, "
            f"got {type(activation).__name__}"
        )
    scalar = _compiled.get(activation)
    if scalar is None:
        if _raises(activation.py_func):
            raise TypeError(
                f"{function}: activation {activation.__name__!r} must not raise: there is no line to go back to"
            )
        scalar = _compiled.setdefault(activation, Scalar(activation))  # of two threads one compiles for both
    try:
        scalar.code(dtype)  # now: what does not compile must not show when the output has been written to
    except TypeError as error:
        raise TypeError(f"{function}: {error}") from None
    return scalar


def _raises(function: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Whether a function has a raise or an assert, by its bytecode, or one of the compiled functions that it names."""
    if any(instruction.opname in ("RAISE_VARARGS", "RERAISE") for instruction in dis.get_instructions(function)):
        return True
    named = inspect.getclosurevars(function)
    inner = [getattr(value, "py_func", None) for value in (*named.globals.values(), *named.nonlocals.values())]
    seen |= {function}
    return any(_raises(each, seen) for each in inner if each is not None and each not in seen)


def activation_code(activation: Any, x: Any, function: str) -> int | None:
    """Return what the fast path knows an activation by, checked; None stays None, and is for arrays not served."""
    if not isinstance(x, np.ndarray) or not (x.dtype in (FLOAT32, FLOAT64) or is_narrow(x.dtype)):
        return None
    dtype = computed_in(x.dtype)
    applied = check_activation(activation, function, dtype)
    return None if applied is None else applied.code(dtype)
