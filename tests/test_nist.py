"""NIST's reference data sets for univariate statistics: how many digits of mean and standard deviation are right.

The score is the log relative error (LRE), -log10(|computed - true| / |true|), about the number of right digits. Sets of
observations are read from the directory that the environment variable FASTNORM_NIST names; NumAcc1 to 4 are made here.
"""

import os
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastnorm

Array = np.ndarray[Any, Any]


class DataSet(NamedTuple):
    values: Array
    mean: Decimal  # certified
    sd: Decimal  # certified; of n - 1


# The least LRE of the standard deviation against the certified one. What decimals lose as doubles sets the ceiling: the
# exact sd of the stored doubles has 15.3, 15.5, 13.8, 13.1, 15.6, 9.5 and 8.25.
CERTIFIED = {
    "Lew": 14.5,
    "Lottery": 14.5,
    "Michelso": 13.7,
    "Mavro": 13.0,
    "NumAcc1": np.inf,
    "NumAcc2": 14.5,
    "NumAcc3": 9.4,
    "NumAcc4": 8.2,
}
MEAN, STORED = 14.9, 14.0  # of the mean; of the standard deviation against the exact one of the stored doubles
each_set = pytest.mark.parametrize("name", CERTIFIED)


@cache
def data_set(name: str) -> DataSet:
    if name == "NumAcc1":
        return DataSet(np.array([10000001.0, 10000003.0, 10000002.0]), Decimal(10000002), Decimal(1))
    if name.startswith("NumAcc"):
        base = {"NumAcc2": 1, "NumAcc3": 10**6, "NumAcc4": 10**7}[name]
        values = [f"{base}.2", *[f"{base}.1", f"{base}.3"] * 500]
        return DataSet(np.array(values, np.float64), Decimal(f"{base}.2"), Decimal("0.1"))
    directory = os.environ.get("FASTNORM_NIST")
    if not directory:
        pytest.skip(f"FASTNORM_NIST does not name a directory with NIST's {name}.dat")
    head, _, data = (Path(directory) / f"{name}.dat").read_text().partition("Data: Y")
    mean, sd = (line for line in head.splitlines() if line.startswith(("Sample Mean", "Sample Standard Deviation")))
    certified = (Decimal(line.split(":")[1].strip()) for line in (mean, sd))
    return DataSet(np.array(data.split()[1:], np.float64), *certified)


@cache
def exact_sd(name: str) -> Decimal:
    """The standard deviation of the stored doubles, to 50 digits."""
    values = [Fraction(value) for value in data_set(name).values.tolist()]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    with localcontext(prec=50):
        return (Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt()


def lre(computed: Any, true: Decimal) -> float:
    """The log relative error; infinite if nothing is wrong, NaN of NaN."""
    if np.isnan(computed):
        return np.nan
    with localcontext(prec=50):
        error = abs((Decimal(float(computed)) - true) / true)
        return float(-error.log10()) if error else np.inf


def check(name: str, mean: Any, sd: Any) -> None:
    data = data_set(name)
    assert lre(mean, data.mean) >= MEAN
    assert lre(sd, data.sd) >= CERTIFIED[name]
    assert lre(sd, exact_sd(name)) >= STORED


@pytest.mark.parametrize(("name", "size"), [("Lew", 200), ("Lottery", 218), ("Mavro", 50), ("Michelso", 100)])
def test_files_are_read_whole(name: str, size: int) -> None:
    data = data_set(name)
    assert data.values.shape == (size,)
    assert lre(data.values.mean(), data.mean) > 14
    assert lre(data.values.std(ddof=1), data.sd) > 10


@each_set
def test_digits_on_the_default_path(name: str) -> None:
    result = fastnorm.moments(data_set(name).values, ddof=1)
    check(name, result.mean, result.std)


@each_set
def test_digits_of_a_whole_array(name: str, backend: str) -> None:
    result = fastnorm.moments(data_set(name).values, ddof=1, backend=backend)
    check(name, result.mean, result.std)


@each_set
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lines", [1, 5, 37])
def test_digits_of_a_line_among_others(name: str, axis: int, lines: int, backend: str) -> None:
    values, place = data_set(name).values, lines // 2
    x = np.random.default_rng(0).standard_normal((lines, values.size)) * 1e9
    x[place] = values
    result = fastnorm.moments(x if axis else np.ascontiguousarray(x.T), axis=axis, ddof=1, backend=backend)
    check(name, result.mean[place], result.std[place])


@each_set
@pytest.mark.parametrize("axis", [0, 1])
def test_digits_of_the_statistics_of_standardize(name: str, axis: int, backend: str) -> None:
    values = data_set(name).values
    x = values[:, np.newaxis] if axis == 0 else values[np.newaxis]
    _, stats = fastnorm.standardize(x, axis=axis, ddof=1, return_stats=True, backend=backend)
    assert lre(stats.mean.item(), data_set(name).mean) >= MEAN
    assert lre(1 / stats.rstd.item(), exact_sd(name)) >= STORED


def test_the_naive_algorithm_has_no_digit_on_numacc4(backend: str) -> None:
    data = data_set("NumAcc4")
    result = fastnorm.moments(data.values, ddof=1, algorithm="naive", backend=backend)
    assert not lre(result.std, data.sd) >= 1
