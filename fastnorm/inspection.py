"""What is installed, what was chosen, and the compilation of everything ahead of need."""

import importlib.metadata
import platform
import sys
from typing import Any

import fastnorm
from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.settings import cache_directory, current, usable_cpus


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def configuration() -> dict[str, Any]:
    """Return what `show_config` prints, as a dictionary that JSON can hold."""
    settings = current()
    cython: dict[str, Any] = {"available": registry.why_not("cython") is None}
    if cython["available"]:
        from fastnorm.backends import cython as cython_backend

        cython["variants built"] = list(cython_backend.built_variants())
        cython["variants this processor runs"] = list(cython_backend.runnable_variants())
        cython["variant chosen"] = registry.load("cython").variant()
    else:
        cython["reason"] = registry.why_not("cython")
    numba: dict[str, Any] = {"available": registry.why_not("numba") is None}
    if numba["available"]:
        from fastnorm.backends.numba import backend, jit

        numba["threading layer"] = backend.threading_layer()
        numba["threads started"] = registry.load("numba").threads(sys.maxsize)
        numba["cache directory"] = str(jit.CACHE_DIRECTORY) if jit.CACHE_DIRECTORY else None
    else:
        numba["reason"] = registry.why_not("numba")
    cuda: dict[str, Any] = {"available": registry.why_no_cuda() is None}
    if cuda["available"]:
        from fastnorm.backends.cuda import compat

        cuda["device"] = compat.description()
    else:
        cuda["reason"] = registry.why_no_cuda()
    return {
        "fastnorm": fastnorm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": tuning.cpu_model(),
        "tuned": str(tuning.TUNED_FROM) if tuning.TUNED_FROM else "no; `fastnorm tune` does it",
        "cpus": usable_cpus(),
        "settings": {"backend": settings.backend, "num_threads": settings.num_threads},
        "cache directory": str(cache_directory()),
        "cython": cython,
        "numba": numba,
        "cuda": cuda,
        "versions": {name: _version(name) for name in ("numpy", "scipy", "numba", "llvmlite", "numba-cuda")},
    }


def _lines(value: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{key}", *_lines(item, indent + "  ")]
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            lines.append(f"{indent}{key:{32 - len(indent)}}{text}")
    return lines


def show_config() -> None:
    """Print processor, backends, ISA variants, threads, cache directory and versions.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.show_config()  # doctest: +ELLIPSIS
    fastnorm                        ...
    """
    print("\n".join(_lines(configuration())))


def warm() -> None:
    """Compile, or load from the cache, every JIT kernel that a call here may need, and return when all is done.

    Where the ahead-of-time kernels serve every call, as they do unless the Numba backend is chosen or they were not
    built, there is nothing to do.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.warm()
    """
    name = current().backend
    if name == "cuda":  # kernels for a device are compiled when arrays on it come
        return
    for backends in [(name,)] if name != "auto" else [tuning.SMALL.backends, tuning.LARGE.backends]:
        served_by = next((name for name in backends if registry.why_passed_over(name) is None), "reference")
        registry.load(served_by).warm()
