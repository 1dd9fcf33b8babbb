"""Which backend serves a call: a pure function of the size of the work and the settings."""

from dataclasses import asdict, dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.backends.reference import Reference
from fastnorm.dtypes import storage
from fastnorm.settings import check_backend, current

# What has no kernels of its own.
_BY_NUMPY = ("local_response_norm", "clip_by_value", "fold_batch_norm")
# What is products of matrices; a compiled backend that is asked for does the rest.
_BY_BLAS = ("spectral_norm",)
_BY_KERNELS = (
    "moments", "extrema", "layer_norm", "rms_norm", "batch_norm", "instance_norm", "group_norm", "switchable_norm",
    "pixel_norm", "l2_normalize", "lp_normalize", "normalize", "standardize", "min_max_scale", "max_abs_scale",
    "weight_norm", "weight_standardize", "spectral_norm", "clip_by_norm", "clip_by_global_norm",
)  # fmt: skip


def _step(elements: int) -> tuning.Step:
    for step in tuning.LADDER:
        if elements <= step.limit:
            return step
    return tuning.LADDER[-1]


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
    RuntimeError
        The backend that was asked for cannot run here, or has no kernels for this function.
    """
    name = current().backend if backend is None else check_backend(backend, f"{function}: backend")
    if function in _BY_NUMPY:
        if name not in ("auto", "reference"):
            raise RuntimeError(f"{function}: NumPy computes it, the {name} backend has no kernels for it")
        return registry.load("reference")
    if name != "auto":
        return registry.load(name)
    return registry.load_first(_step(elements).backends)


@dataclass(frozen=True)
class Explanation:
    """Which backend serves a call, and why."""

    op: str
    shape: tuple[int, ...]
    dtype: str
    compute_dtype: str
    backend: str
    variant: str
    threads: int
    reason: str

    def __str__(self) -> str:
        return "\n".join(f"{key.replace('_', ' '):14}{value}" for key, value in asdict(self).items())


def explain(op: str, shape: tuple[int, ...] | int, dtype: npt.DTypeLike = "float32") -> Explanation:
    """Say which backend would serve a call here, and why.

    Parameters
    ----------
    op : str
        The name of a function, such as "layer_norm".
    shape : tuple of int
        The shape of the input.
    dtype : dtype, default float32
        The dtype of the input.

    Returns
    -------
    Explanation
        With `.backend`, `.variant`, `.threads`, `.compute_dtype` and `.reason`; `print` shows them.

    Raises
    ------
    TypeError
        The dtype is not a real number type.
    ValueError
        There is no such function.
    RuntimeError
        The settings force a backend that cannot serve it.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.explain("layer_norm", (8, 768)).reason
    'small: one thread'
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if op not in _BY_KERNELS + _BY_NUMPY:
        raise ValueError(f"explain: op must be the name of a function, such as 'layer_norm', got {op!r}")
    requested = np.dtype(dtype)
    settings = current()
    elements = prod(shape)
    by_numpy = op in _BY_NUMPY or (op in _BY_BLAS and settings.backend == "auto")
    backend = registry.load("reference") if op in _BY_BLAS and by_numpy else choose(elements, None, op)
    reason = "computed by NumPy" if by_numpy else f"forced: backend={settings.backend!r}"
    if settings.backend == "auto" and not by_numpy:
        step = _step(elements)
        reason = step.reason
        for name in step.backends[: step.backends.index(backend.name)]:
            reason += f"; {name} cannot run here: {registry.why_not(name)}"
    return Explanation(
        op,
        shape,
        requested.name,
        storage(requested, "explain", "dtype").compute.name,
        backend.name,
        backend.variant(),
        1 if elements <= tuning.SERIAL_ELEMENTS else backend.threads(settings.num_threads),
        reason,
    )
