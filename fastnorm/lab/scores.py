"""How right a computed value is: digits, units in the last place, and who of several is best."""

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fastnorm.lab.exact import as_float, relative_error

# Scores that differ by less tie: a hundredth of a digit is 2% of the error.
DIGIT_TOLERANCE = 0.01
# A value within half a unit is the nearest there is: none of these is better than another.
CORRECTLY_ROUNDED = 0.5


def all_digits(dtype: npt.DTypeLike) -> float:
    """Return how many decimal digits a dtype has.

    Examples
    --------
    >>> from fastnorm.lab import all_digits
    >>> [round(all_digits(dtype), 2) for dtype in ("float64", "float32", "float16")]
    [15.65, 6.92, 3.01]
    """
    return -math.log10(float(np.finfo(np.dtype(dtype)).eps))


def unit_in_last_place(exact: Fraction, dtype: npt.DTypeLike) -> Fraction:
    """Return the distance between neighbouring numbers of a dtype at an exact value.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from fastnorm.lab import unit_in_last_place
    >>> unit_in_last_place(Fraction(1), "float16")
    Fraction(1, 1024)
    """
    limits = np.finfo(np.dtype(dtype))
    smallest = Fraction(float(limits.smallest_subnormal))
    if exact == 0:
        return smallest
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    return max(smallest, Fraction(2) ** (exponent - int(limits.nmant)))


def units_in_last_place(computed: float, exact: Fraction, dtype: npt.DTypeLike, scale: Fraction | None = None) -> float:
    """Return the error in units in the last place of the exact value.

    Parameters
    ----------
    computed : float
        The candidate.
    exact : Fraction
        What it should be.
    dtype : dtype
        Whose units.
    scale : Fraction, optional
        Where exact is 0: the magnitude whose units count.

    Returns
    -------
    float
        Infinite for NaN and infinities.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from fastnorm.lab import units_in_last_place
    >>> round(units_in_last_place(0.1, Fraction(1, 10), "float32"), 3), units_in_last_place(1.5, Fraction(1), "float16")
    (0.0, 512.0)
    """
    if not math.isfinite(computed):
        return math.inf
    unit = unit_in_last_place(exact if exact or scale is None else scale, dtype)
    return as_float(abs(Fraction(computed) - exact) / unit)


def log_relative_error(
    computed: float,
    exact: Fraction,
    dtype: npt.DTypeLike,
    scale: Fraction | None = None,
    ceiling: float = math.inf,
) -> float:
    """Return how many decimal digits are right: ``-log10(abs(computed - exact) / abs(exact))``, from 0 to all.

    Parameters
    ----------
    computed : float
        The candidate.
    exact : Fraction
        What it should be.
    dtype : dtype
        An error of at most one unit in its last place counts as all of its digits.
    scale : Fraction, optional
        Where exact is 0: the magnitude that errors are relative to.
    ceiling : float, optional
        The digits that are within reach at all.

    Returns
    -------
    float
        0 where no digit is right, and for NaN and infinities.

    Notes
    -----
    McCullough, "Assessing the Reliability of Statistical Software: Part I", 1998.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from fastnorm.lab import log_relative_error
    >>> log_relative_error(1.001, Fraction(1), "float64")
    3.0000000000000...
    >>> round(log_relative_error(1 / 3, Fraction(1, 3), "float64"), 2)
    15.65
    """
    if not math.isfinite(computed):
        return 0.0
    full = min(all_digits(dtype), ceiling)
    if units_in_last_place(computed, exact, dtype, scale) <= 1:
        return full
    if exact == 0:
        error = as_float(abs(Fraction(computed)) / scale) if scale else math.inf
    else:
        error = relative_error(computed, exact)
    return min(full, max(0.0, -math.log10(error)))


def best(scores: Mapping[str, float], *, larger: bool, tolerance: float = DIGIT_TOLERANCE) -> frozenset[str]:
    """Return the names of the best scores, all that tie with the best.

    Parameters
    ----------
    scores : mapping of str to float
        NaN never wins.
    larger : bool
        Whether larger is better.
    tolerance : float
        How far from the best still ties.

    Returns
    -------
    frozenset of str
        Empty where there are no scores, or where the best is as bad as a score can be: 0 or infinite.

    Examples
    --------
    >>> from fastnorm.lab import best
    >>> sorted(best({"a": 6.92, "b": 6.919, "c": 3.0}, larger=True))
    ['a', 'b']
    """
    comparable = {name: score for name, score in scores.items() if not math.isnan(score)}
    if not comparable:
        return frozenset()
    if larger:
        top = max(comparable.values())
        return frozenset(name for name, score in comparable.items() if score >= top - tolerance and top > 0)
    least = min(comparable.values())
    return frozenset(name for name, score in comparable.items() if score <= least + tolerance and least < math.inf)
