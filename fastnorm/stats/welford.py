"""The mergeable state of mean and variance, for streams and files larger than memory."""

from __future__ import annotations

import math
import struct
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine
from fastnorm.dispatch import choose
from fastnorm.dtypes import find_dtype, is_floating
from fastnorm.plan import dropped_shape, plan_reduction
from fastnorm.recipe import Measure, Moments, merge
from fastnorm.stats.moments import settle

Array = npt.NDArray[Any]

_MAGIC = b"FNW1"
_BFLOAT16 = "bf16"  # which NumPy has no code for
_MOST_DIMENSIONS = 64  # of a NumPy array


@np.errstate(all="ignore")
def _joined(first: Moments, first_count: int, second: Moments, second_count: int) -> Moments:
    """Return the moments of both; where they are not finite, or beyond float64, the mean is that of their sum."""
    pairs = (np.stack(pair)[np.newaxis] for pair in zip(first, second, strict=True))
    hi, lo, m2 = (part[0] for part in merge(Moments(*pairs), first_count, second_count))
    mean = hi + lo
    # What rounding left of that (Knuth's two-sum): a mean far from the first batch is not lost in its `hi`.
    rest = (hi - (mean - (mean - hi))) + (lo - (mean - hi))
    beyond = ~np.isfinite(mean + m2)
    if beyond.any():
        total = first_count + second_count
        weighted = (first.hi + first.lo) * (first_count / total), (second.hi + second.lo) * (second_count / total)
        mean, rest = np.where(beyond, weighted[0] + weighted[1], mean), np.where(beyond, 0.0, rest)
        m2 = np.where(np.isfinite(mean), m2, np.nan)
    return Moments(mean, rest, m2)


class Welford:
    """Mean and variance of all batches seen so far.

    Each batch is reduced over one axis by the library's own algorithm and merged in float64 by the formula of Chan,
    Golub and LeVeque (1979), so the order of the batches matters only in the last digits.

    Parameters
    ----------
    axis : int or None, default 0
        What a batch is reduced over: 0 for rows of samples; None makes one number of everything.
    dtype : dtype, default float64
        What `mean`, `var` and `std` are given in; the state itself is float64.

    Raises
    ------
    TypeError
        `axis` is not an int or None, or `dtype` not a floating dtype.
    ValueError
        No array has such an axis.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> state = fastnorm.Welford()
    >>> state.update([[1.0, 10.0], [3.0, 30.0]]).count
    2
    >>> state |= fastnorm.Welford().update([[5.0, 50.0]])
    >>> state
    Welford(axis=0, count=3)
    >>> state.mean
    array([ 3., 30.])
    """

    def __init__(self, axis: int | None = 0, dtype: npt.DTypeLike = np.float64) -> None:
        self.axis = None if axis is None else arguments.integer(axis, "Welford", "axis")
        if self.axis is not None and not -_MOST_DIMENSIONS <= self.axis < _MOST_DIMENSIONS:
            raise ValueError(f"Welford: axis must be that of an array, got {axis}")
        found = find_dtype(dtype)
        if found is None or not is_floating(found):
            raise TypeError(f"Welford: dtype must be a floating dtype, got {dtype if found is None else found}")
        self.dtype = found
        self._count = 0
        self._shape: tuple[int, ...] | None = None
        self._state: Moments | None = None  # flat

    def __repr__(self) -> str:
        return f"Welford(axis={self.axis}, count={self._count})"

    def update(self, x: npt.ArrayLike) -> Welford:
        """Take a batch in, and return the state itself.

        Parameters
        ----------
        x : array_like
            Real numbers. All batches agree in the axes that are not reduced.

        Raises
        ------
        TypeError
            x is not of a real number dtype.
        ValueError
            The shape does not fit the batches before.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.Welford().update([[1.0], [3.0]]).update([[5.0]]).mean
        array([3.])
        """
        array = calls.take(x, "Welford.update")
        axes = arguments.axis_indices(self.axis, array.ndim, "Welford.update")
        plan = plan_reduction(array.shape, axes)
        shape = dropped_shape(array.shape, axes)
        self._check(shape, "Welford.update")
        if array.size:
            backend = choose(array.size, None, "Welford.update")
            values = calls.readable(array, backend, "Welford.update")
            found = engine.statistics(values, plan, Measure.VARIANCE, backend)
            settle(found, array, axes, plan, backend)
            self._absorb(plan.count, shape, found)
        elif self._shape is None:
            self._shape = shape
        return self

    def _check(self, shape: tuple[int, ...], function: str) -> None:
        if self._shape is not None and shape != self._shape:
            raise ValueError(f"{function}: the state has shape {self._shape}, got {shape}")

    def _absorb(self, count: int, shape: tuple[int, ...], state: Moments) -> None:
        if self._state is None:
            self._state = state
        else:
            self._state = _joined(self._state, self._count, state, count)
        self._count += count
        self._shape = shape

    def __or__(self, other: Welford) -> Welford:
        """Return the state of both, as if the batches of `other` had come after those of this one.

        Raises
        ------
        ValueError
            Their axes, as they were given, or their shapes differ.
        """
        if not isinstance(other, Welford):
            return NotImplemented
        if other.axis != self.axis:
            raise ValueError(f"Welford.__or__: the axes must be the same, got {self.axis} and {other.axis}")
        result = type(self)(self.axis, self.dtype)
        for state in (self, other):
            if state._shape is not None:
                result._check(state._shape, "Welford.__or__")
                result._shape = state._shape
            if state._state is not None and state._shape is not None:
                result._absorb(state._count, state._shape, state._state)
        return result

    @property
    def count(self) -> int:
        """How many elements each number comes from."""
        return self._count

    def _result(self, flat: Array | None) -> Any:
        shape = self._shape or ()
        if flat is None:
            return np.full(shape, np.nan, self.dtype)[()]
        with np.errstate(all="ignore"):
            return flat.astype(self.dtype).reshape(shape)[()]

    @property
    @np.errstate(all="ignore")
    def mean(self) -> Any:
        """The mean; NaN before the first batch."""
        return self._result(None if self._state is None else self._state.hi + self._state.lo)

    @property
    def var(self) -> Any:
        """The biased variance; NaN before the first batch."""
        return self.variance()

    @property
    @np.errstate(all="ignore")
    def std(self) -> Any:
        """The root of the biased variance; NaN before the first batch."""
        return self._result(None if self._state is None else np.sqrt(self._state.m2 / self._count))

    def variance(self, ddof: float = 0) -> Any:
        """Return the variance with `ddof` subtracted from the count; NaN where nothing is left.

        Parameters
        ----------
        ddof : float, default 0
            1 gives the unbiased variance.

        Raises
        ------
        TypeError, ValueError
            `ddof` is not a number.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.Welford().update([[1.0], [3.0]]).variance(ddof=1)
        array([2.])
        """
        degrees = arguments.number(ddof, "Welford.variance", "ddof")
        if self._state is None or self._count <= degrees:
            return self._result(None if self._state is None else np.full_like(self._state.m2, np.nan))
        with np.errstate(all="ignore"):
            return self._result(self._state.m2 / (self._count - degrees))

    def to_bytes(self) -> bytes:
        """Return the state as bytes, the same on every machine.

        Examples
        --------
        >>> import fastnorm
        >>> kept = fastnorm.Welford().update([[1.0], [3.0]]).to_bytes()
        >>> fastnorm.Welford.from_bytes(kept)
        Welford(axis=0, count=2)
        """
        shape = () if self._shape is None else self._shape
        code = _BFLOAT16 if self.dtype.name == "bfloat16" else self.dtype.str[1:]
        header = struct.pack(
            "<4s?q?4sQB", _MAGIC, self.axis is not None, self.axis or 0, self._shape is not None,
            code.encode(), self._count, len(shape),
        )  # fmt: skip
        sizes = struct.pack(f"<{len(shape)}Q", *shape)
        parts = () if self._state is None else self._state
        return header + sizes + b"".join(part.astype("<f8").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Welford:
        """Return the state that `to_bytes` wrote.

        Parameters
        ----------
        data : bytes-like
            All of it.

        Raises
        ------
        TypeError
            `data` is not bytes.
        ValueError
            The bytes are not a state, or not all of one.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.Welford.from_bytes(fastnorm.Welford().to_bytes())
        Welford(axis=0, count=0)
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"Welford.from_bytes: data must be bytes, got {type(data).__name__}")
        data = bytes(data)
        layout = "<4s?q?4sQB"
        try:
            magic, has_axis, axis, has_shape, dtype, count, ndim = struct.unpack_from(layout, data)
            if magic != _MAGIC:
                raise ValueError("Welford.from_bytes: these bytes are not a Welford state")
            shape = struct.unpack_from(f"<{ndim}Q", data, struct.calcsize(layout))
            code = dtype.rstrip(b"\0").decode("ascii")
            result = cls(axis if has_axis else None, "bfloat16" if code == _BFLOAT16 else code)
            if not has_shape and (ndim or count):
                raise ValueError("Welford.from_bytes: these bytes are not a Welford state")
            if ndim > _MOST_DIMENSIONS or math.prod(size for size in shape if size) > sys.maxsize:
                raise ValueError("Welford.from_bytes: these bytes are not a Welford state")
        except (struct.error, TypeError, ValueError):
            raise ValueError("Welford.from_bytes: these bytes are not a Welford state") from None
        size = math.prod(shape) if count else 0
        rest = data[struct.calcsize(layout) + 8 * ndim :]
        if len(rest) != 3 * 8 * size:
            raise ValueError(f"Welford.from_bytes: expected {3 * 8 * size} bytes of state, got {len(rest)}")
        numbers = np.frombuffer(rest, "<f8")
        if has_shape:
            result._shape = shape
        if count:
            result._count = count
            result._state = Moments(*(part.astype(np.float64) for part in numbers.reshape(3, size)))
        return result
