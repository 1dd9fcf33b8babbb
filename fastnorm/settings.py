"""Settings of the process: threads, the backend and the ISA variant, and where this user's files are kept."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

BACKENDS = ("auto", "reference", "cython", "numba", "cuda")
MOST_THREADS = 2**31 - 1  # kernels count threads in a C int


@dataclass(slots=True)
class Settings:
    """What the dispatcher looks at, besides the work itself."""

    backend: str
    num_threads: int


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        return os.cpu_count() or 1


def _threads_from(name: str) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ValueError(f"{name} must be a positive integer of at most {MOST_THREADS}, got {text!r}")
    return int(text)


def check_backend(backend: str, name: str) -> str:
    """Return `backend` if it is the name of one, else raise ValueError; `name` is what the message calls it."""
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    return backend


def _from_environment() -> Settings:
    threads = _threads_from("FASTNORM_NUM_THREADS") or _threads_from("NUMBA_NUM_THREADS") or usable_cpus()
    return Settings(check_backend(os.environ.get("FASTNORM_BACKEND") or "auto", "FASTNORM_BACKEND"), threads)


_process = _from_environment()
_in_force: ContextVar[Settings] = ContextVar("fastnorm_settings", default=_process)


def current() -> Settings:
    """Return the settings in force here: those of the innermost `config`, else the process's."""
    return _in_force.get()


def _check_threads(num_threads: object, function: str) -> int:
    if isinstance(num_threads, bool) or not isinstance(num_threads, Integral):
        raise TypeError(f"{function}: num_threads must be an int, got {type(num_threads).__name__}")
    count = int(num_threads)
    if count < 1:
        raise ValueError(f"{function}: num_threads must be at least 1, got {count}")
    if count > MOST_THREADS:
        raise ValueError(f"{function}: num_threads must be at most {MOST_THREADS}, got {count}")
    return count


def set_num_threads(num_threads: int) -> None:
    """Set how many threads one call of this process may use.

    Parameters
    ----------
    num_threads : int
        At least 1. Numba starts its threads once, as many as there are CPUs (or NUMBA_NUM_THREADS); a larger number
        here uses all of those.

    Raises
    ------
    TypeError
        `num_threads` is not an int.
    ValueError
        `num_threads` is below 1, or more than a C int holds.

    Examples
    --------
    >>> import fastnorm
    >>> before = fastnorm.get_num_threads()
    >>> fastnorm.set_num_threads(1)
    >>> fastnorm.get_num_threads()
    1
    >>> fastnorm.set_num_threads(before)
    """
    _process.num_threads = _check_threads(num_threads, "set_num_threads")


def get_num_threads() -> int:
    """Return how many threads one call may use here.

    Returns
    -------
    int
        Of this thread or asyncio task: a `config` block may say another number than its surroundings.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.get_num_threads() >= 1
    True
    """
    return current().num_threads


@contextmanager
def config(*, backend: str | None = None, num_threads: int | None = None) -> Iterator[None]:
    """Change settings for the calls inside a ``with`` block, in this thread or asyncio task alone.

    The others stay what they are where the block begins; `set_num_threads` does not reach into it.

    Parameters
    ----------
    backend : {'auto', 'reference', 'cython', 'numba', 'cuda'}, optional
        Serve every call with this backend; an error says so where it cannot. "cuda" serves arrays on a device alone,
        which "auto" recognises.
    num_threads : int, optional
        How many threads one call may use.

    Raises
    ------
    TypeError, ValueError
        A setting is not one of the above.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> with fastnorm.config(backend="reference", num_threads=1):
    ...     fastnorm.layer_norm(np.array([1.0, 2.0, 3.0])).round(4)
    array([-1.2247,  0.    ,  1.2247])
    """
    settings = current()
    if backend is not None:
        settings = replace(settings, backend=check_backend(backend, "config: backend"))
    if num_threads is not None:
        settings = replace(settings, num_threads=_check_threads(num_threads, "config"))
    token = _in_force.set(settings)
    try:
        yield
    finally:
        _in_force.reset(token)


def cache_directory() -> Path:
    """Return the directory for this user's compiled kernels and measured thresholds (it need not exist yet)."""
    chosen = os.environ.get("FASTNORM_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "fastnorm"
    except RuntimeError:  # a user without a home, as services are: nothing can be kept there
        return Path(os.devnull) / "fastnorm"
