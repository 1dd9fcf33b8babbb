"""Mean, variance and condition number of stored floating-point values, without any rounding.

Every finite float is an integer times a power of two, so sums of values and of squares are sums of integers. Only the
square root is not rational; it is taken to `ROOT_BITS` bits.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

# 60 decimal digits.
ROOT_BITS = 200
MANTISSA_BITS = 53


@dataclass(frozen=True, slots=True)
class ExactMoments:
    """The exact moments of a line.

    Attributes
    ----------
    count : int
        The number of elements.
    mean : Fraction
        Exact.
    m2 : Fraction
        The sum of squared deviations from the mean; exact.
    ddof : int
        What `variance` subtracts from the count.
    """

    count: int
    mean: Fraction
    m2: Fraction
    ddof: int = 1

    @property
    def variance(self) -> Fraction:
        """The variance, ``m2 / (count - ddof)``; exact."""
        return self.m2 / (self.count - self.ddof)

    @property
    def sd(self) -> Fraction:
        """The standard deviation to 60 digits."""
        return square_root(self.variance)

    @property
    def condition(self) -> float:
        """The condition number ``sqrt(1 + count * mean^2 / m2)``; infinite for a constant line."""
        if self.m2 == 0:
            return math.inf
        return as_float(square_root(1 + self.count * self.mean**2 / self.m2))


def exact_moments(values: npt.ArrayLike, ddof: int = 1) -> ExactMoments:
    """Compute mean and variance of the stored values in integers.

    Parameters
    ----------
    values : array_like
        float16, float32, float64 or integers, of any shape; taken as one line.
    ddof : int, default 1
        What `ExactMoments.variance` subtracts from the count.

    Returns
    -------
    ExactMoments
        Fractions, correct to the last bit however large, small or close to each other the values are.

    Raises
    ------
    TypeError
        The values are neither floating-point numbers of at most 64 bits nor integers.
    ValueError
        NaN, an infinity, or not more than ddof values.

    Examples
    --------
    >>> from fastnorm.lab import exact_moments
    >>> exact = exact_moments([1e15, 1e15 + 2, 1e15 + 1])
    >>> exact.mean, exact.variance, float(exact.sd)
    (Fraction(1000000000000001, 1), Fraction(1, 1), 1.0)
    """
    array = np.asarray(values).ravel()
    if array.size <= ddof or array.size == 0:
        raise ValueError(f"exact_moments: values must be more than {max(ddof, 0)}, got {array.size}")
    integers, exponent = _integers(array)
    count, total = len(integers), sum(integers)
    unit = Fraction(2) ** exponent
    squares = sum(value * value for value in integers)
    m2 = Fraction(count * squares - total * total, count) * unit**2
    return ExactMoments(count, Fraction(total, count) * unit, m2, ddof)


def _integers(array: npt.NDArray[Any]) -> tuple[list[int], int]:
    """Return the values as integers that are to be multiplied by one power of two, and its exponent."""
    if array.dtype.kind in "iu":
        return array.tolist(), 0
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"exact_moments: values must be of float16, float32, float64 or integers, got {array.dtype}")
    doubles = array.astype(np.float64)
    if not np.isfinite(doubles).all():
        raise ValueError("exact_moments: values must be finite, got NaN or an infinity")
    fractions, exponents = np.frexp(doubles)
    mantissas = np.ldexp(fractions, MANTISSA_BITS).astype(np.int64)
    # Zero has no exponent of its own and must not widen the range of the others.
    nonzero = mantissas != 0
    if not nonzero.any():
        return mantissas.tolist(), 0
    smallest = int(exponents[nonzero].min())
    shifts = np.where(nonzero, exponents - smallest, 0)
    integers = [mantissa << shift for mantissa, shift in zip(mantissas.tolist(), shifts.tolist(), strict=True)]
    return integers, smallest - MANTISSA_BITS


def square_root(value: Fraction) -> Fraction:
    """Return the square root of a fraction that is not negative, to 60 digits.

    Parameters
    ----------
    value : Fraction
        Zero or positive.

    Returns
    -------
    Fraction
        Exact where the root is rational with a power of two as denominator, else below the root by less than 2^-200
        of it.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from fastnorm.lab import square_root
    >>> square_root(Fraction(9, 4))
    Fraction(3, 2)
    """
    if value == 0:
        return Fraction(0)
    product = value.numerator * value.denominator
    # The root of the product of numerator and denominator, divided by the denominator.
    shift = max(0, ROOT_BITS - product.bit_length() // 2)
    return Fraction(math.isqrt(product << 2 * shift), value.denominator << shift)


def relative_error(computed: float, exact: Fraction) -> float:
    """Return ``abs(computed - exact) / abs(exact)``, itself computed without rounding.

    Parameters
    ----------
    computed : float
        The candidate.
    exact : Fraction
        What it should be.

    Returns
    -------
    float
        NaN or infinite if the candidate is; where exact is 0, 0 or infinite.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from fastnorm.lab import relative_error
    >>> f"{relative_error(0.1, Fraction(1, 10)):.3e}"
    '5.551e-17'
    """
    if not math.isfinite(computed):
        return abs(computed)
    difference = abs(Fraction(computed) - exact)
    if exact == 0:
        return 0.0 if difference == 0 else math.inf
    return as_float(difference / abs(exact))


def as_float(value: Fraction) -> float:
    """Return the nearest float64; infinite beyond its range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
