"""How the Numba kernels are compiled: the options, in one place, and where compiled code is kept.

Never ``fastmath``: it lets LLVM delete the handling of NaN and reorder sums, and the bits of a result would then depend
on the processor.
"""

import contextlib
import hashlib
import os
import stat
from pathlib import Path

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from fastnorm.settings import cache_directory


def _trusted(directory: Path) -> bool:
    """Whether compiled code may be kept in, and later run from, a directory: ours, and written by nobody else."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = directory.stat()
        if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & stat.S_IWOTH):
            return False
        return os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return False


def _sources_digest() -> str:
    """Changes with any of the kernels' files: Numba itself looks only at the file of the outermost function."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class _Locator(_CacheLocator):
    """Keeps the compiled kernels in the user's cache directory, under a digest of their sources."""

    def __init__(self, function) -> None:
        self._function = function

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func)

    def get_cache_path(self) -> str:
        return str(CACHE_DIRECTORY)

    def get_source_stamp(self) -> str:
        return CACHE_DIRECTORY.name

    def get_disambiguator(self) -> str:
        return self._function.__module__


class _CacheImplementation(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):
    _impl_class = _CacheImplementation

    def save_overload(self, sig, data) -> None:
        with contextlib.suppress(OSError):  # a full disk costs the next process a compilation, not this one its call
            super().save_overload(sig, data)


def _cache_directory() -> Path | None:
    """Return where compiled kernels are kept, or None if no directory is safe and writable."""
    directory = cache_directory() / "numba" / _sources_digest()
    return directory if _trusted(directory) else None


CACHE_DIRECTORY = _cache_directory()


def _cached(dispatcher):
    if CACHE_DIRECTORY is not None:
        dispatcher._cache = _Cache(dispatcher.py_func)
    return dispatcher


# Options of a part of a kernel: always inlined, since a call per short line costs more than its work.
HELPER = {"forceinline": True, "error_model": "numpy"}


def helper(function):
    """Compile a part of a kernel."""
    return numba.njit(**HELPER)(function)


def kernel(function):
    """Compile a serial kernel over a range of work units."""
    return _cached(numba.njit(nogil=True, error_model="numpy")(function))


def parallel_kernel(function):
    """Compile a kernel that hands ranges of work units to Numba's threads."""
    return _cached(numba.njit(nogil=True, error_model="numpy", parallel=True)(function))
