"""Arrays of layers in files: NumPy's .npz and .safetensors, never pickles."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import calls
from fastnorm.files import readable
from fastnorm.nn import tensors
from fastnorm.nn.layer import Layer

Array = npt.NDArray[Any]

_RESERVED = "__metadata__"  # in .safetensors
_LONGEST = 65535 - len(".npy")  # bytes of a name in an archive


def save(state: Layer | Mapping[str, Layer | npt.ArrayLike], path: str | os.PathLike[str]) -> None:
    """Write the arrays of a layer, or of several with their names, to a file.

    Parameters
    ----------
    state : Layer, or mapping of str to Layer or array_like
        A layer's arrays have its name and a dot before their own, as in the state_dict of a model of torch.
    path : str or path
        Ends in ".npz" or ".safetensors" (the `safetensors` extra). An existing file is replaced.

    Raises
    ------
    TypeError
        `state` or `path` is not of such a type, or an array not of real numbers.
    ValueError
        `path` has another ending, two arrays have one name, .npz cannot tell a name with a NUL in it, or so long
        a one, or bfloat16, or .safetensors has another use for a name ("__metadata__").
    OSError
        The file cannot be written. An existing one is then as it was, unless its directory takes no file beside it.
    ImportError
        The package for .safetensors is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastnorm import nn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.npz"
    >>> nn.save({"first": nn.LayerNorm(4), "second": nn.RMSNorm(4)}, path)
    >>> list(nn.load(path))
    ['first.weight', 'first.bias', 'second.weight']
    """
    target, suffix = _checked_path(path, "save")
    arrays: dict[str, Array] = {}
    for name, array in _named(state):
        if name in arrays:
            raise ValueError(f"save: two arrays are named {name!r}")
        if not _is_text(name):
            raise ValueError(f"save: {name!r} is no name that a file can hold")
        arrays[name] = array
    if suffix != ".npz" and _RESERVED in arrays:
        raise ValueError(f"save: .safetensors has another use for the name {_RESERVED!r}")
    _replace(target, _npz(arrays) if suffix == ".npz" else _safetensors("save").numpy.save(arrays))


def _replace(target: Path, content: bytes) -> None:
    """Write a file whole, or leave what was there as it was; in place where no other may stand beside it."""
    whole = Path(os.path.realpath(target))  # not the link to it
    if not whole.exists():
        try:
            whole.write_bytes(content)
        except BaseException:
            with contextlib.suppress(OSError):  # it may not even have been opened
                whole.unlink()
            raise
        return
    try:
        descriptor, part = tempfile.mkstemp(dir=whole.parent, prefix=".", suffix=".part")
    except PermissionError:
        whole.write_bytes(content)
        return
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        shutil.copymode(whole, part)
        os.replace(part, whole)
    except BaseException:
        os.unlink(part)
        raise


def load(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays of a file, of `save` or of another program: a state_dict.

    Parameters
    ----------
    path : str or path
        Ends in ".npz" or ".safetensors" (the `safetensors` extra).

    Returns
    -------
    dict of str to ndarray
        For `Layer.load_state_dict`, or for `from_state_dict`, which makes a layer of some of them.

    Raises
    ------
    TypeError
        `path` is neither.
    ValueError
        `path` has another ending, or the file does not hold what that says.
    OSError
        The file cannot be read.
    ImportError
        The package for .safetensors is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastnorm import nn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "norm.npz"
    >>> nn.save(nn.BatchNorm2d(3), path)
    >>> nn.from_state_dict(nn.load(path))
    BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """
    source, suffix = _checked_path(path, "load")
    if suffix == ".npz":
        with source.open("rb") as file, readable(f"load: {source} is not a readable .npz file"):
            if not zipfile.is_zipfile(file):  # NumPy would take it for something else
                raise ValueError("no zip archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                # By member: an array "x" hides one that is named "x.npy".
                members = ((member.removesuffix(".npy"), archive[member]) for member in archive.zip.namelist())
                return {name: _number_array(name, value) for name, value in members}
    safetensors = _safetensors("load")
    try:
        with safetensors.safe_open(source, framework="np") as tensors:
            names = tensors.keys()  # it is no mapping
            return {name: _number_array(name, tensors.get_tensor(name)) for name in names}
    except (safetensors.SafetensorError, AttributeError, ValueError) as error:  # NumPy has not every dtype
        raise ValueError(f"load: {source} is not a readable .safetensors file: {error}") from error


def _number_array(name: str, value: Any) -> Array:
    """What a file holds under a name, if that is an array of real numbers."""
    try:
        return calls.take(value, "load", name)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _checked_path(path: str | os.PathLike[str], function: str) -> tuple[Path, str]:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{function}: path must be a str or a path, got {type(path).__name__}")
    checked = Path(path)
    if checked.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"{function}: path must end in .npz or .safetensors, got {os.fspath(path)!r}")
    return checked, checked.suffix


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def _named(state: Layer | Mapping[str, Layer | npt.ArrayLike]) -> Iterator[tuple[str, Array]]:
    """Yield all arrays with their names, contiguous, as safetensors writes memory as it lies."""
    if isinstance(state, Layer):
        yield from state.state_dict().items()
        return
    if not isinstance(state, Mapping):
        raise TypeError(f"save: state must be a layer or a mapping, got {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str):
            raise TypeError(f"save: the keys of state must be str, got {type(name).__name__}")
        if isinstance(value, Layer):
            yield from ((f"{name}.{key}", array) for key, array in value.state_dict().items())
        else:
            yield name, np.asarray(tensors.take(value, "save", name), order="C")


def _npz(arrays: Mapping[str, Array]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # np.savez refuses an array that is named "file"
        for name, array in arrays.items():
            if array.dtype.name == "bfloat16":
                raise ValueError(f"save: {name} is of bfloat16, which .npz cannot tell: use .safetensors or float32")
            if "\0" in name:
                raise ValueError(f"save: .npz cannot tell the name {name!r}: it has a NUL")
            if len(name.encode()) > _LONGEST:
                raise ValueError(f"save: .npz takes names of at most {_LONGEST} bytes, got {len(name.encode())}")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return content.getvalue()


def _safetensors(function: str) -> Any:
    """Import safetensors, with its part for NumPy and what that needs for bfloat16."""
    try:
        importlib.import_module("ml_dtypes")
        importlib.import_module("safetensors.numpy")
        return importlib.import_module("safetensors")
    except ImportError as error:
        raise ImportError(
            f"{function}: .safetensors files need packages that could not be imported ({error}): "
            "pip install 'fastnorm[safetensors]'"
        ) from error
