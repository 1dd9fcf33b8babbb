"""How the Numba kernels are compiled: the options, in one place, and where compiled code is kept.

Never ``fastmath``: it lets LLVM delete the handling of NaN and reorder sums, and the bits of a result would then depend
on the processor.
"""

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from types import FunctionType

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
    package = Path(__file__).parents[2]
    constants = [package / name for name in ("activations.py", "plan.py", "ranges.py", "recipe.py")]  # are compiled in
    for path in sorted(Path(__file__).parent.glob("*.py")) + constants:
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


def compiled(function):
    """Compile a function that is called from Python."""
    return _cached(numba.njit(nogil=True, error_model="numpy")(function))


def _shared(arguments, units, tasks):
    for t in numba.prange(tasks):
        serial(*arguments, t * units // tasks, (t + 1) * units // tasks)  # noqa: F821 - a global of what `kernel` makes of this


def kernel(function):
    """Compile a kernel over a range of work units, its last two arguments.

    Its `parallel` hands such ranges to Numba's threads: all other arguments as a tuple, how many units there are, in
    how many ranges. The serial kernel is a global of that function and not of its closure, since Numba's cache compares
    closures, in which a compiled function is another in every process.
    """
    serial = compiled(function)
    shared = FunctionType(_shared.__code__, {"numba": numba, "serial": serial}, f"parallel_{function.__name__}")
    shared.__qualname__, shared.__module__ = shared.__name__, function.__module__
    serial.parallel = _cached(numba.njit(nogil=True, error_model="numpy", parallel=True)(shared))
    return serial
