"""Which backend serves a call: a pure function of the size of the work and the settings."""

from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.backends.reference import Reference
from fastnorm.settings import check_backend, current

# What NumPy computes, whatever the backend.
BY_NUMPY = ("fold_batch_norm",)
# Mostly products of matrices; a compiled backend that is asked for does the scaling alone.
BY_BLAS = ("spectral_norm",)


def preference(elements: int) -> tuning.Preference:
    """Return which backends are preferred for so many elements."""
    return tuning.SMALL if elements <= tuning.SERIAL_ELEMENTS else tuning.LARGE


def choose(elements: int, backend: str | None, function: str) -> Reference:
    """Return the backend for work on so many elements.

    Parameters
    ----------
    elements : int
        The size of the array.
    backend : str, optional
        What the call asks for; None leaves it to the settings.
    function : str
        The caller's name, for the message of an error.

    Raises
    ------
    ValueError
        There is no backend of that name.
    TypeError
        It is "cuda", which serves no array in host memory.
    RuntimeError
        The backend that was asked for cannot run here, or has no kernels for this function.
    """
    name = current().backend if backend is None else check_backend(backend, f"{function}: backend")
    if name == "cuda":
        raise TypeError(f"{function}: the cuda backend serves arrays on a CUDA device, got one in host memory")
    if function in BY_NUMPY:
        if name not in ("auto", "reference"):
            raise RuntimeError(f"{function}: NumPy computes it, the {name} backend has no kernels for it")
        return registry.load("reference")
    if name != "auto":
        return registry.load(name)
    return registry.load_first(preference(elements).backends)
