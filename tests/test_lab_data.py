"""The data of `fastnorm.lab`: NIST's, the families, and what is read from files."""

from __future__ import annotations

import math
import pathlib
from fractions import Fraction

import numpy as np
import pytest

from fastnorm import lab, nn

DTYPES = ("float16", "float32", "float64")


# Data


@pytest.mark.parametrize(
    ("name", "mean", "sd"), [("NumAcc1", 9.0, 9.0), ("NumAcc2", 15.0, 15.0), ("NumAcc4", 15.0, 8.2)]
)
def test_numacc_is_what_nist_certifies(name: str, mean: float, sd: float) -> None:
    data = lab.numacc(name)
    exact = lab.exact_moments(data.values)
    assert data.certified_mean is not None
    assert data.certified_sd is not None
    # Doubles cannot hold the decimals of NumAcc4: no more than 8.25 digits of its sd are within reach.
    assert abs(exact.mean / data.certified_mean - 1) < 10**-mean
    assert abs(exact.sd / data.certified_sd - 1) < 10**-sd


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in lab.FAMILIES if name != "constant"])
def test_families_reach_their_condition(name: str, dtype: str) -> None:
    largest = lab.largest_condition(dtype)
    for kappa in (2.0, math.sqrt(largest), 0.9 * largest):
        data = lab.family(name, 500, kappa, dtype, seed=1)
        assert data.values.dtype == dtype
        assert 0.6 * kappa < lab.exact_moments(data.values).condition < 1.6 * kappa
    if name == "subnormal":
        assert np.abs(data.values).max() < np.finfo(dtype).tiny


def test_families_stress_what_they_are_named_for() -> None:
    assert lab.exact_moments(lab.family("constant", 10, 1e3).values).m2 == 0
    assert np.all(np.diff(lab.family("sorted", 100, 1e3).values) >= 0)
    assert len(np.unique(lab.family("alternating", 100, 1e3).values)) == 2
    with np.errstate(over="ignore"):
        huge = lab.family("huge", 100, 1e3, "float32").values
        assert np.isinf(np.sum(huge * huge, dtype=np.float32))
        assert np.isfinite(np.float32(lab.exact_moments(huge).m2))


def test_families_reject_what_a_dtype_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"kappa from 1 to 205 for float16"):
        lab.family("offset", 100, 1e3, "float16")
    with pytest.raises(ValueError, match="family: name must be one of offset"):
        lab.family("flat", 100, 1.0)
    with pytest.raises(ValueError, match="numacc: name must be one of NumAcc1"):
        lab.numacc("NumAcc5")


# Files

NIST = """File Name: Three.dat
Dataset Name:  Three (made up)
Data:          Constructed
               3    Observations
                                                  Certified Values
Sample Mean                                ybar:  {mean}
Sample Standard Deviation (denom. = n-1)      s:  1
Sample Autocorrelation Coefficient (lag 1) r(1):  -0.5
Number of Observations:  {count}


Data: Y
---------
 0.1
 1.1
 2.1e0
"""


def test_nist_files_bring_their_certified_values(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "Three.dat"
    path.write_text(NIST.format(mean="1.1", count=3))
    (data,) = lab.load(path)
    assert (data.name, data.certified_mean, data.certified_sd) == ("Three", Fraction(11, 10), Fraction(1))
    np.testing.assert_array_equal(data.values, [0.1, 1.1, 2.1])


def test_arrays_and_tables_load(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    np.savez(tmp_path / "two.npz", a=np.arange(3), b=np.ones(4))
    (tmp_path / "three.csv").write_text('who,"length, cm",age\nann,1.5,3\nbob,2.5,4\n')
    (tmp_path / "four.csv").write_text("1,2\n3,4\n")
    (one,) = lab.load(tmp_path / "one.npy")
    assert (one.name, one.values.dtype, one.values.shape) == ("one", np.float32, (6,))
    assert [(each.name, each.values.size) for each in lab.load(tmp_path / "two.npz")] == [("two: a", 3), ("two: b", 4)]
    assert [each.name for each in lab.load(tmp_path / "three.csv")] == ["three: length, cm", "three: age"]
    assert [each.values.tolist() for each in lab.load(tmp_path / "four.csv")] == [[1.0, 3.0], [2.0, 4.0]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"1\n2\n", "expected one of .dat"),
        ("x.dat", b"1\n2\n", "no data found"),
        ("x.dat", NIST.format(mean="1.1", count=4).encode(), "4 observations declared, 3 found"),
        ("x.dat", NIST.format(mean="1.1", count=3).replace("2.1e0", "many").encode(), "one number a line.*'many'"),
        ("x.npy", b"no array", "not an array"),
        ("x.npz", b"no archive", "not an archive of arrays$"),
        ("x.npy", b"PK\x05\x06" + bytes(18), "not an array but an archive"),
        ("x.csv", b"", "the table is empty"),
        ("x.csv", b"a,b\nx,y\n", "no column of numbers"),
        ("x.csv", b"a,b\n1,2\n3\n", "line 3 has 1 columns, expected 2"),
        ("x.csv", b"a\n1\nmissing\n", "column 'a' has no number in line 3: 'missing'"),
        ("x.csv", b"a\n\n1\n\nmissing\n", "column 'a' has no number in line 5: 'missing'"),
        ("x.npy", b"\x93NUMPY\x01\x00\x17\x00{'descr': '<f8', 'shape': (9,", "not an array"),
        ("x.dat", NIST.format(mean="1e999", count=3).encode(), "a number that float64 can hold"),
        ("x.csv", b"a\n1\nnan\n", "NaN or infinite"),
        ("x.csv", b"a\n1\n", "has 1 values, expected at least 2"),
    ],
)
def test_unreadable_files_say_why_and_which(tmp_path: pathlib.Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        lab.load(path)
    assert str(path) in str(raised.value)


def test_an_archive_that_lost_some_bytes_says_so(tmp_path: pathlib.Path) -> None:
    """Its index then points before the file, which the system takes for a wrong argument."""
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(9.0), b=np.arange(99.0))
    whole = path.read_bytes()
    for start in range(0, 60, 4):
        path.write_bytes(whole[:start] + whole[start + 8 :])
        for load in (lab.load, nn.load):
            with pytest.raises(ValueError, match=r"x\.npz"):
                load(path)
    with pytest.raises(FileNotFoundError):
        nn.load(tmp_path / "other.npz")


def test_arrays_of_other_things_are_rejected(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1j, 2j]))
    with pytest.raises(ValueError, match="complex128"):
        lab.load(tmp_path / "x.npy")
