"""The backends by name. A new one is a row here and a module with a subclass of `Reference`."""

import importlib
from functools import cache

from fastnorm.backends.reference import Reference

_ROWS = {
    "reference": ("fastnorm.backends.reference", "Reference"),
    "cython": ("fastnorm.backends.cython", "Cython"),
    "numba": ("fastnorm.backends.numba_cpu", "Numba"),
}

NAMES = tuple(_ROWS)


@cache
def _load(name: str) -> Reference | str:
    """The backend, or why there is none."""
    module, attribute = _ROWS[name]
    try:
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


@cache
def load_first(names: tuple[str, ...]) -> Reference:
    """Return the first backend of `names` that can run here; `reference` always can."""
    for name in names:
        backend = _load(name)
        if not isinstance(backend, str):
            return backend
    return load("reference")


def why_not(name: str) -> str | None:
    """Return why a backend cannot run here, None if it can."""
    backend = _load(name)
    return backend if isinstance(backend, str) else None
