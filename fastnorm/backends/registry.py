"""The backends by name. A new one is a row here and a module with a subclass of `Reference`."""

import importlib
import os
import threading
from contextlib import nullcontext
from functools import cache

from fastnorm.backends.reference import Reference
from fastnorm.loading import importing

_ROWS = {
    "reference": ("fastnorm.backends.reference", "Reference"),
    "cython": ("fastnorm.backends.cython", "Cython"),
    "numba": ("fastnorm.backends.numba.backend", "Numba"),
}

NAMES = tuple(_ROWS)


@cache
def _load(name: str) -> Reference | str:
    """The backend, or why there is none."""
    module, attribute = _ROWS[name]
    try:
        with nullcontext() if name == "numba" else importing():  # of kernels too, when the backend is made
            backend: Reference = getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        return str(error)
    return backend


def load(name: str) -> Reference:
    """Return the backend called `name`, imported on first need.

    Raises
    ------
    RuntimeError
        It cannot run here; the message says why.
    """
    backend = _load(name)
    if isinstance(backend, str):
        raise RuntimeError(f"fastnorm: the {name} backend cannot run here: {backend}")
    return backend


def load_first(names: tuple[str, ...]) -> Reference:
    """Return the first backend of `names` that can run here, and not slower than NumPy; `reference` always can.

    Numba's kernels are imported and compiled in the background while those compiled ahead of time, of the same bits,
    serve the calls: no call waits for a compiler.
    """
    chosen = _chosen.get(names)
    if chosen is not None:
        return chosen
    for name in names:
        if name == "numba" and "cython" in names and why_passed_over("cython") is None and not _numba_is_ready():
            continue
        backend = _load(name)
        if not isinstance(backend, str) and backend.hindrance() is None:
            if _preparing is None or _prepared.is_set():
                _chosen[names] = backend
            return backend
    return load("reference")


_chosen: dict[tuple[str, ...], Reference] = {}
_preparing: threading.Thread | None = None
_prepared = threading.Event()
_lock = threading.Lock()


def _after_fork() -> None:
    """Take a new lock: the thread that may have held the old one does not exist in the child."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _numba_is_ready() -> bool:
    """Return whether Numba's kernels are compiled; on the first question, have a thread begin with it."""
    global _preparing
    with _lock:
        if _preparing is None:
            _preparing = threading.Thread(target=_prepare_numba, name="fastnorm: Numba's kernels")
            _preparing.start()
    # Never so in a process forked meanwhile, which may hold the compiler's lock and has no such thread.
    return _prepared.is_set()


def _prepare_numba() -> None:
    backend = _load("numba")
    if not isinstance(backend, str):
        backend.warm(lambda: threading.main_thread().is_alive())  # a process that ends need not wait for the rest
    _prepared.set()


def why_not(name: str) -> str | None:
    """Return why a backend cannot run here, None if it can."""
    backend = _load(name)
    return backend if isinstance(backend, str) else None


def why_no_cuda() -> str | None:
    """Return why arrays on a CUDA device cannot be served here, None if they can."""
    try:
        compat = importlib.import_module("fastnorm.backends.cuda.compat")
    except ImportError as error:
        return str(error)
    reason: str | None = compat.why_not()
    return reason


def why_passed_over(name: str) -> str | None:
    """Return why `load_first` goes on to the next backend, None if it does not."""
    backend = _load(name)
    if isinstance(backend, str):
        return f"cannot run here: {backend}"
    return backend.hindrance()
