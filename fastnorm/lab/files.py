"""Read data sets from files: NIST StRD, NumPy's own formats, CSV."""

import csv
import itertools
import pathlib
import re
import zipfile
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm.files import readable
from fastnorm.lab.datasets import Dataset

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def load(path: str | pathlib.Path) -> list[Dataset]:
    r"""Read the data sets of a file.

    Parameters
    ----------
    path : str or path-like
        A NIST StRD file of univariate summary statistics (``.dat``; its certified values come along), an array
        (``.npy``), several (``.npz``, each a data set) or a table (``.csv``, each numeric column a data set; with or
        without a line of names).

    Returns
    -------
    list of Dataset
        At least one. float16 and float32 arrays stay what they are, all else is float64.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It is of another kind, is not what its name says, or has NaN, infinities or fewer than two values.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastnorm.lab import load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "lengths.csv")
    ...     _ = path.write_text("name,length\na,1.5\nb,2.5\n")
    ...     [(one.name, one.values) for one in load(path)]
    [('lengths: length', array([1.5, 2.5]))]
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path}: expected one of {', '.join(_READERS)}")
    found = _READERS[path.suffix.lower()](path)
    for dataset in found:
        if dataset.values.size < 2:
            raise ValueError(f"{path}: {dataset.name} has {dataset.values.size} values, expected at least 2")
        if not np.isfinite(dataset.values).all():
            raise ValueError(f"{path}: {dataset.name} has NaN or infinite values")
    return found


def _read_nist(path: pathlib.Path) -> list[Dataset]:
    lines = path.read_text(encoding="latin-1").splitlines()
    # The data follow "Data: Y" and a line of dashes; an earlier "Data:" of the head only says what kind they are.
    starts = [
        number + 2
        for number, (line, rule) in enumerate(itertools.pairwise(lines))
        if re.match(r"\s*Data\s*:", line) and re.fullmatch(r"\s*-+\s*", rule)
    ]
    if not starts:
        raise ValueError(f"{path}: no data found: expected a NIST StRD file with 'Data: Y' above a line of dashes")
    head, data = "\n".join(lines[: starts[-1]]), lines[starts[-1] :]
    texts = [line.strip() for line in data if line.strip()]
    if wrong := next((text for text in texts if not re.fullmatch(_NUMBER, text)), None):
        raise ValueError(f"{path}: expected one number a line below 'Data:', got {wrong[:40]!r}")
    declared = re.search(r"Number of Observations:\s*(\d+)", head)
    if declared and int(declared[1]) != len(texts):
        raise ValueError(f"{path}: {declared[1]} observations declared, {len(texts)} found")
    named = re.search(r"Dataset Name:\s*(\w+)", head)
    return [
        Dataset(
            named[1] if named else path.stem,
            np.array([float(text) for text in texts]),
            _certified(path, head, "Sample Mean"),
            _certified(path, head, "Sample Standard Deviation"),
            "NIST StRD",
        )
    ]


def _certified(path: pathlib.Path, head: str, label: str) -> Fraction | None:
    found = re.search(rf"^\s*{label}.*:\s*({_NUMBER})", head, re.MULTILINE)
    if found is None:
        return None
    nearest = float(found[1])  # a fraction of 1e999999999 would have as many digits
    if not np.isfinite(nearest):
        raise ValueError(f"{path}: {label}: expected a number that float64 can hold, got {found[1]}")
    return Fraction(found[1]) if nearest else Fraction(0)


def _read_array(path: pathlib.Path) -> list[Dataset]:
    if zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an array but an archive: its name should end in .npz")
    with readable(f"{path}: not an array that NumPy can read"), open(path, "rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return [Dataset(path.stem, _floats(array, str(path)), description=f"{path.name}, {array.dtype}")]


def _read_archive(path: pathlib.Path) -> list[Dataset]:
    if path.exists() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an archive of arrays")
    with (
        readable(f"{path}: not an archive of arrays that NumPy can read"),
        np.load(path, allow_pickle=False) as archive,
    ):
        arrays = {key: array for key, array in dict(archive).items() if isinstance(array, np.ndarray)}
    if not arrays:
        raise ValueError(f"{path}: the archive has no arrays")
    return [
        Dataset(f"{path.stem}: {key}", _floats(array, f"{path}: {key}"), description=f"{path.name}, {array.dtype}")
        for key, array in arrays.items()
    ]


def _floats(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise ValueError(f"{where}: expected real numbers of at most 64 bits, got {array.dtype}")
    dtype = array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.dtype(np.float64)
    return array.ravel().astype(dtype)


def _read_table(path: pathlib.Path) -> list[Dataset]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            numbered = [(reader.line_num, line) for line in reader if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table of comma-separated values: {error}") from None
    if not numbered:
        raise ValueError(f"{path}: the table is empty")
    lines = [line for _, line in numbered]
    if short := next(((number, line) for number, line in numbered if len(line) != len(lines[0])), None):
        raise ValueError(f"{path}: line {short[0]} has {len(short[1])} columns, expected {len(lines[0])}")
    named = not any(_is_number(text) for text in lines[0])
    names = lines[0] if named else [f"column {number}" for number in range(1, len(lines[0]) + 1)]
    found = []
    for name, column in zip(names, zip(*lines[named:], strict=True), strict=False):
        numbers = [_is_number(text) for text in column]
        if not any(numbers):
            continue  # a column of words
        if not all(numbers):
            row = numbers.index(False)
            line = numbered[row + named][0]
            raise ValueError(f"{path}: column {name.strip()!r} has no number in line {line}: {column[row]!r}")
        values = np.array([float(text) for text in column])
        found.append(Dataset(f"{path.stem}: {name.strip()}", values, description=path.name))
    if not found:
        raise ValueError(f"{path}: no column of numbers")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[pathlib.Path], list[Dataset]]] = {
    ".dat": _read_nist,
    ".npy": _read_array,
    ".npz": _read_archive,
    ".csv": _read_table,
}
