"""Mean and variance along any axes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine, recipe
from fastnorm.backends.reference import Reference
from fastnorm.backends.textbook import in_order
from fastnorm.device import is_device_array
from fastnorm.dispatch import choose
from fastnorm.dtypes import FLOAT64, storage
from fastnorm.fast_path import plain_calls_by
from fastnorm.plan import Plan, dropped_shape, plan_reduction
from fastnorm.recipe import Measure
from fastnorm.stats.bounds import relative_error_bound

Array = npt.NDArray[Any]
Algorithm = Literal[
    "auto", "welford", "two_pass", "corrected_two_pass", "naive", "shifted", "pairwise", "compensated"
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean and variance of lines: arrays, or scalars where the whole array was one line.

    Attributes
    ----------
    mean : ndarray or float
        float64.
    m2 : ndarray or float
        The (weighted) sum of squared deviations from the mean; float64.
    count : ndarray or float
        The number of elements of a line, or the sum of their weights.
    ddof : ndarray or float
        What `var` subtracts from the count; with reliability weights `ddof` times the sum of their squares over
        their sum.
    length : int
        The number of elements of a line, those without weight included.
    algorithm : str
        What computed it.
    roundoff : float
        The unit roundoff of the dtype it was computed in, such as 2^-24.

    Examples
    --------
    >>> import fastnorm
    >>> found = fastnorm.moments([1.0, 2.0, 3.0, 4.0], ddof=1)
    >>> float(found.mean), round(float(found.var), 4), round(float(found.std), 4)
    (2.5, 1.6667, 1.291)
    """

    mean: Any
    m2: Any
    count: Any
    ddof: Any = 0
    length: int = field(default=0, repr=False)
    algorithm: str = field(default="auto", repr=False)
    roundoff: float = field(default=2.0**-53, repr=False)

    @property
    def var(self) -> Any:
        """The variance, ``m2 / max(count - ddof, 0)``."""
        with np.errstate(all="ignore"):
            return np.divide(self.m2, np.maximum(np.subtract(self.count, self.ddof), 0))

    @property
    def std(self) -> Any:
        """The standard deviation."""
        with np.errstate(all="ignore"):
            return np.sqrt(self.var)

    @property
    def condition(self) -> Any:
        """The condition number, ``kappa = sqrt(1 + count * mean^2 / m2)``: how errors of the data grow in `var`.

        At least 1, about mean / std if that is large, infinite for a constant line. Chan and Lewis, 1979.
        """
        with np.errstate(all="ignore"):
            squares = np.multiply(self.count, np.square(self.mean))
            # A sum of squares that came out negative (naive does that) has lost all digits: like a constant line.
            ratio = np.where(squares == 0.0, 0.0, squares / np.where(np.less(self.m2, 0.0), 0.0, self.m2))
            return np.sqrt(1.0 + ratio)[()]

    @property
    def digits(self) -> Any:
        """How many decimal digits of `var` the algorithm's error bound guarantees for this condition and length.

        A bound of the worst case: most data do better. 0 where nothing is guaranteed.
        """
        bound = relative_error_bound(self.algorithm, max(self.length, 1), self.condition, self.roundoff)
        with np.errstate(all="ignore"):
            digits = np.clip(-np.log10(bound), 0.0, None)
        return np.where(np.isfinite(self.m2), np.nan_to_num(digits), 0.0)[()]


@plain_calls_by("moments_along", "x", "axis", "ddof", Moments)
def moments(
    x: npt.ArrayLike,
    /,
    *,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    ddof: float = 0,
    weights: npt.ArrayLike | None = None,
    weights_kind: Literal["frequency", "reliability"] = "frequency",
    where: npt.ArrayLike | None = None,
    algorithm: Algorithm = "auto",
    backend: str | None = None,
) -> Moments:
    """Compute mean and variance in one go.

    Parameters
    ----------
    x : array_like
        Any shape; real numbers.
    axis : int, tuple of int or None, default None
        What the statistics are taken over; None: the whole array.
    keepdims : bool, default False
        Leave the reduced axes in, with length 1.
    ddof : float, default 0
        What is subtracted from the count in `var`: 1 gives the unbiased variance.
    weights : array_like, optional
        How much each element counts; finite and not negative; broadcasts against x.
    weights_kind : {"frequency", "reliability"}, default "frequency"
        What `ddof` means with weights. Frequencies say how often an element was seen: `var` divides by
        ``sum(w) - ddof``. Reliabilities say how far to trust it, and only their ratios matter: `var` divides by
        ``sum(w) - ddof * sum(w^2) / sum(w)`` (numpy.cov's fweights and aweights).
    where : array_like of bool, optional
        Which elements count at all; broadcasts against x.
    algorithm : str, default "auto"
        "auto" is the library's own: a corrected two-pass in each block, blocks merged in float64. The textbook
        algorithms "welford", "two_pass", "corrected_two_pass", "naive", "shifted", "pairwise" and "compensated"
        compute in the dtype of x (float64 for integers and bfloat16) and are there to be compared.
    backend : str, optional
        Serve this call by "reference", "cython" or "numba". Compiled ones run the textbook algorithms on one thread.

    Returns
    -------
    Moments
        With ``.mean .var .std .m2 .count``, float64 whatever the dtype of x, so that no digit is lost, and
        ``.condition .digits``, which tell how far to trust the variance; of an array on a CUDA device
        ``.mean .var .std .m2 .count`` alone, arrays on it.

    Raises
    ------
    TypeError
        x is not of a real number dtype, or where is not of bool.
    ValueError
        An axis, weights or where that does not fit, or an unknown algorithm.
    RuntimeError
        The backend that is asked for cannot run here.

    Warns
    -----
    RuntimeWarning
        A line has no elements; its moments are NaN.

    Notes
    -----
    Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983.

    Examples
    --------
    >>> import fastnorm
    >>> result = fastnorm.moments([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]], axis=1, ddof=1)
    >>> result.mean, result.var
    (array([2., 4.]), array([1., 0.]))
    >>> naive = fastnorm.moments([1e9, 1e9 + 1, 1e9 + 2], algorithm="naive")
    >>> naive.var, naive.digits
    (np.float64(0.0), np.float64(0.0))
    """
    function = "moments"
    if not isinstance(algorithm, str) or algorithm not in get_args(Algorithm):
        names = ", ".join(map(repr, get_args(Algorithm)))
        raise ValueError(f"{function}: algorithm must be one of {names}, got {algorithm!r}")
    if not isinstance(weights_kind, str) or weights_kind not in ("frequency", "reliability"):
        raise ValueError(f"{function}: weights_kind must be 'frequency' or 'reliability', got {weights_kind!r}")
    keepdims = arguments.flag(keepdims, function, "keepdims")
    if is_device_array(x):
        from fastnorm.device_norms import statistics as on_device  # imports Numba

        there: Moments = on_device.moments(x, axis, keepdims, ddof, weights, where, algorithm, backend)
        return there
    array = calls.take(x, function)
    axes = arguments.axis_indices(axis, array.ndim, function)
    degrees = arguments.number(ddof, function, "ddof")
    weight = arguments.element_weights(weights, where, array.shape, function)
    chosen = choose(array.size, backend, function)
    plan = plan_reduction(array.shape, axes)
    total: Any = plan.count
    divisor: Any = degrees
    shape = plan.stats_shape if keepdims else dropped_shape(array.shape, axes)
    if plan.count == 0:
        warnings.warn(f"{function}: mean of empty lines", RuntimeWarning, stacklevel=2)
    if not array.size:
        nothing = np.full(shape, np.nan)
        return Moments(nothing[()], nothing[()], np.full(shape, float(plan.count))[()], degrees)
    if algorithm == "auto" and weight is None:
        found = engine.statistics(calls.readable(array, chosen, function), plan, Measure.VARIANCE, chosen)
        settle(found, array, axes, plan, chosen)
        with np.errstate(all="ignore"):
            mean = found.hi + found.lo
        m2, dtype = found.m2, storage(array.dtype, function, "x").compute
    else:
        lines = _lines(array, axes)
        dtype = FLOAT64 if algorithm == "auto" or lines.dtype.kind != "f" else lines.dtype.newbyteorder("=")
        lines = np.ascontiguousarray(calls.as_compute(lines, dtype))  # alone it leaves what is unaligned so
        counted, power = None, np.zeros((), np.int64)
        if weight is not None:
            with np.errstate(all="ignore"):
                counted, power = _moderate(_lines(weight, axes), dtype)
            lines = np.where(counted == 0, dtype.type(0), lines)  # what does not count may be NaN
        algorithm = "corrected_two_pass" if algorithm == "auto" else algorithm
        with np.errstate(all="ignore"):
            converted = None if counted is None else np.ascontiguousarray(counted, dtype=dtype)
        mean, m2 = chosen.textbook(algorithm, lines, converted)
        if counted is not None:
            sums = in_order(counted)
            with np.errstate(all="ignore"):
                total, m2 = np.ldexp(sums, power).reshape(shape)[()], np.ldexp(m2, power)
                if weights_kind == "reliability" and weights is not None:
                    squares = degrees * in_order(counted * counted) / sums
                    divisor = np.ldexp(squares, power).reshape(shape)[()]
            if np.any(sums == 0):
                mean, m2 = (np.where(sums == 0, np.nan, part) for part in (mean, m2))
                warnings.warn(f"{function}: mean of empty lines", RuntimeWarning, stacklevel=2)
    roundoff = float(np.finfo(dtype).eps) / 2
    return Moments(
        mean.reshape(shape)[()], m2.reshape(shape)[()], total, divisor, plan.count, algorithm, roundoff
    )  # fmt: skip


def settle(found: recipe.Moments, array: Array, axes: tuple[int, ...], plan: Plan, backend: Reference) -> None:
    """Give lines whose squares are not finite the mean that their sum has: infinite, of an infinity.

    What the kernels' blocks make of them depends on where in the line the infinity stands.
    """
    mean, rest, m2 = found
    with np.errstate(all="ignore"):
        places = np.flatnonzero(~np.isfinite(mean + rest + m2))
        if not places.size:
            return
        low, high = (
            part[places].astype(np.float64)
            for part in engine.extrema(calls.readable(array, backend, "moments"), plan, backend)
        )
        rest[places] = 0.0
        mean[places], m2[places] = low + high, np.nan  # NaN of NaN and of both infinities, else the one there is
        beyond = np.isfinite(low) & np.isfinite(high)  # values whose squares float64 cannot hold
        if beyond.any():
            lines = _lines(array, axes)[places[beyond]].astype(np.float64)
            power = int(np.frexp(lines.shape[1])[1])  # the sum of so many finite numbers, divided by it, is finite
            mean[places[beyond]] = np.ldexp(np.ldexp(lines, -power).sum(axis=1) / lines.shape[1], power)
            m2[places[beyond]] = np.where(low == high, 0.0, np.inf)[beyond]


def _moderate(weights: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Weights of lines that `dtype` can compute with: times a power of two where they are large or small, and which."""
    limits = np.finfo(dtype)
    largest = weights.max(axis=1, initial=0.0)
    power = np.frexp(largest)[1]
    power[(largest >= float(limits.tiny) ** 0.5) & (largest <= float(limits.max) ** 0.5)] = 0
    return np.ldexp(weights, -power[:, np.newaxis]), power


def _lines(array: Array, axes: tuple[int, ...]) -> Array:
    """The array as (lines, elements)."""
    kept = [a for a in range(array.ndim) if a not in axes]
    count = int(np.prod([array.shape[a] for a in axes]))
    return array.transpose(*kept, *axes).reshape(-1, count)
