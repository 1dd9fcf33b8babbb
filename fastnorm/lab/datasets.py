"""Data whose moments are hard to compute: NIST's, families that stress one thing each, and files."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Below the standard deviation that is left of data at this share of 1/u: five spacings of the dtype.
CONDITION_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Dataset:
    """A line of values, and what is known of it.

    Attributes
    ----------
    name : str
        As it stands in tables.
    values : ndarray, shape (n,)
        Floating-point; what is computed on is these values, rounded to the dtype under test.
    certified_mean, certified_sd : Fraction or None
        Published values, the standard deviation with n - 1; None where there are none.
    description : str
        What the data are, or what they stress.
    """

    name: str
    values: Array
    certified_mean: Fraction | None = None
    certified_sd: Fraction | None = None
    description: str = ""


# B of NIST's sets of 1001 values, and the certified mean.
_NUMACC = {
    "NumAcc2": (1, "1.2"),
    "NumAcc3": (10**6, "1000000.2"),
    "NumAcc4": (10**7, "10000000.2"),
}
NUMACC = ("NumAcc1", *_NUMACC)


def numacc(name: str) -> Dataset:
    """Generate one of the NIST StRD sets NumAcc1 to NumAcc4.

    Parameters
    ----------
    name : {"NumAcc1", "NumAcc2", "NumAcc3", "NumAcc4"}
        NumAcc1 is 10000001, 10000003, 10000002; the others are B.2 and then 500 times (B.1, B.3), with B = 1, 10^6
        and 10^7.

    Returns
    -------
    Dataset
        float64, with the certified values.

    Raises
    ------
    ValueError
        There is no such set.

    Notes
    -----
    National Institute of Standards and Technology, Statistical Reference Datasets, univariate summary statistics;
    after Simon and Lesage, "Assessing the Accuracy of ANOVA Calculations in Statistical Software", 1989.

    Examples
    --------
    >>> from fastnorm.lab import numacc
    >>> numacc("NumAcc4").values[:3]
    array([10000000.2, 10000000.1, 10000000.3])
    """
    if name == "NumAcc1":
        values = np.array([10000001.0, 10000003.0, 10000002.0])
        return Dataset(name, values, Fraction(10000002), Fraction(1), "three integers of 8 digits (NIST StRD)")
    if name not in _NUMACC:
        raise ValueError(f"numacc: name must be one of {', '.join(NUMACC)}, got {name!r}")
    base, mean = _NUMACC[name]
    values = np.array([float(f"{base}.2")] + 500 * [float(f"{base}.1"), float(f"{base}.3")])
    return Dataset(name, values, Fraction(mean), Fraction("0.1"), f"{base}.2, then {base}.1 and {base}.3 (NIST StRD)")


def largest_condition(dtype: npt.DTypeLike) -> float:
    """Return the largest condition number that data of a dtype are generated with, a tenth of 1/u.

    Examples
    --------
    >>> from fastnorm.lab import largest_condition
    >>> f"{largest_condition('float32'):.1e}"
    '1.7e+06'
    """
    return CONDITION_SHARE * 2 / float(np.finfo(np.dtype(dtype)).eps)


def _offset(n: int, random: np.random.Generator) -> Array:
    return random.standard_normal(n)


def _alternating(n: int, random: np.random.Generator) -> Array:
    signs = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    if n % 2:
        signs = np.concatenate([[0.0], signs[:-1]])
    return signs


def _sorted(n: int, random: np.random.Generator) -> Array:
    return np.sort(random.standard_normal(n))


def _heavy_tails(n: int, random: np.random.Generator) -> Array:
    return random.standard_t(2, n)


def _outlier(n: int, random: np.random.Generator) -> Array:
    values = 0.001 * random.standard_normal(n)
    values[0] = 1.0
    return values


def _drift(n: int, random: np.random.Generator) -> Array:
    return np.linspace(-1.0, 1.0, n) + 0.05 * random.standard_normal(n)


def _about_mean(shape: Callable[[int, np.random.Generator], Array]) -> Callable[..., Array]:
    def values(n: int, kappa: float, dtype: np.dtype[Any], random: np.random.Generator) -> Array:
        z = shape(n, random)
        # A sample keeps the mean it happens to have: taken off, kappa = 1 would ask for the mean of rounding errors.
        result: Array = np.sqrt(kappa**2 - 1) + z / z.std()
        return result

    return values


def _constant(n: int, kappa: float, dtype: np.dtype[Any], random: np.random.Generator) -> Array:
    # A third is not a short sum of powers of two, so its multiples round.
    return np.full(n, kappa / 3)


def _huge(n: int, kappa: float, dtype: np.dtype[Any], random: np.random.Generator) -> Array:
    # The sum of squared deviations is a 256th of the largest number: it can be stored, kappa^2 times as much cannot.
    return float(np.sqrt(np.float64(np.finfo(dtype).max) / n)) / 16 * _about_mean(_offset)(n, kappa, dtype, random)


def _subnormal(n: int, kappa: float, dtype: np.dtype[Any], random: np.random.Generator) -> Array:
    # In units of the smallest number, of which the smallest normal number is 1/eps.
    limits = np.finfo(dtype)
    units = _about_mean(_offset)(n, kappa, dtype, random) / (6 + kappa) / float(limits.eps)
    most = 1 / float(limits.eps) - 1
    result: Array = np.clip(np.rint(units), -most, most) * float(limits.smallest_subnormal)
    return result


_FAMILIES: dict[str, tuple[Callable[..., Array], str]] = {
    "offset": (_about_mean(_offset), "normal values far from zero"),
    "alternating": (_about_mean(_alternating), "two values in turn about the mean, as in NumAcc2-4"),
    "sorted": (_about_mean(_sorted), "normal values in ascending order"),
    "heavy tails": (_about_mean(_heavy_tails), "Student's t with 2 degrees of freedom"),
    "outlier": (_about_mean(_outlier), "the first value far from all others"),
    "drift": (_about_mean(_drift), "a straight line and some noise"),
    "constant": (_constant, "one value; its variance is 0"),
    "huge": (_huge, "squares of the values overflow, the variance does not"),
    "subnormal": (_subnormal, "below the smallest normal number; squares underflow to 0"),
}
FAMILIES = tuple(_FAMILIES)


def family(name: str, n: int, kappa: float, dtype: npt.DTypeLike = np.float64, seed: int = 0) -> Dataset:
    """Generate data that stress one thing.

    Parameters
    ----------
    name : str
        "offset", "alternating", "sorted", "heavy tails", "outlier", "drift", "constant", "huge" or "subnormal".
    n : int
        The number of values, at least 2.
    kappa : float
        The condition number ``sqrt(1 + mean^2 / variance)`` that the stored values have, about; from 1 to
        `largest_condition` of the dtype. That of a constant is infinite; there it scales the value.
    dtype : dtype, default float64
        float16, float32 or float64: what the values are stored in.
    seed : int, default 0
        Of the random numbers.

    Returns
    -------
    Dataset
        Its truth is that of its stored values: `exact_moments`.

    Raises
    ------
    ValueError
        No such family, or n or kappa out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm.lab import exact_moments, family
    >>> f"{exact_moments(family('offset', 1000, 1e5, np.float32).values).condition:.0e}"
    '1e+05'
    """
    if name not in _FAMILIES:
        raise ValueError(f"family: name must be one of {', '.join(FAMILIES)}, got {name!r}")
    stored = np.dtype(dtype)
    limit = largest_condition(stored)
    if n < 2 or not 1 <= kappa <= limit:
        raise ValueError(
            f"family: n must be at least 2 and kappa from 1 to {limit:.3g} for {stored}, got {n} and {kappa}"
        )
    make, description = _FAMILIES[name]
    values = make(n, float(kappa), stored, np.random.default_rng(seed)).astype(stored)
    label = name if name == "constant" else f"{name} {_power(kappa)}"
    return Dataset(label, values, description=description)


def _power(kappa: float) -> str:
    exponent = np.log10(kappa)
    return f"10^{exponent:.0f}" if abs(exponent - round(exponent)) < 1e-9 else f"{kappa:.2g}"
