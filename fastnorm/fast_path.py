"""A fast path for plain calls, in front of the general one: half a microsecond instead of ten.

Plain are C-contiguous arrays of one floating dtype (parameters may have another, and rows gaps between them), where the
settings leave the choice of the backend to the library.
Each function returns the result, or None, having changed nothing that the general path reads, where that must look: at
everything else, and at whatever is wrong. The bits are the same.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.backends.cython import Cython
from fastnorm.recipe import Measure

Function = TypeVar("Function", bound=Callable[..., Any])

# The numbers of `recipe.Measure`: an enumeration's member costs more to hand over than an int.
SQUARES, VARIANCE, MAGNITUDES = map(int, Measure)


# What the compiled kernels offer; src_pyx/fast_path/ says what each takes, and serves.
ENTRIES = (
    "batch_backward", "clipped", "clipped_by_value", "clipped_together", "extrema_along", "fused_given", "given",
    "groups", "groups_backward", "groups_with_options", "instances", "instances_backward", "instances_with_statistics",
    "lines", "lines_backward", "lines_with_options", "masked_batch_backward", "masked_groups", "masked_groups_backward",
    "masked_train", "moments_along", "normalize_image", "pixels", "pixels_backward",
    "scaled", "slices", "standardized", "train",
)  # fmt: skip


class FastPath:
    """The entries as attributes, bound on first use, since an import must not load the kernels."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ENTRIES:
            raise AttributeError(name)
        first = registry.load_first(tuning.SMALL.backends)
        preferred = tuning.SMALL.backends[0] == tuning.LARGE.backends[0] == "cython"
        self.bind(first if preferred and isinstance(first, Cython) else None)
        entry: Callable[..., Any] = self.__dict__[name]
        return entry

    def bind(self, backend: Cython | None) -> None:
        """Have a backend serve from now on; without one the general path does."""
        for name in ENTRIES:
            setattr(self, name, _decline if backend is None else backend.fast_path(name))


def _decline(*arguments: Any) -> None:
    """There are no compiled kernels, or they are not the first choice."""


fast_path = FastPath()


def plain_calls_by(name: str, *arguments: Any) -> Callable[[Function], Function]:
    """Have the fast path serve the plain calls of a function before its body is entered, which costs a call more.

    Parameters
    ----------
    name : str
        That of the entry.
    *arguments
        The entry's: a str is a parameter of the function, anything else stands for itself. Calls that give any other
        parameter are not plain.

    Returns
    -------
    decorator
        Of the function, whose body serves whatever the fast path does not: everything, where nothing is compiled.
    """

    def decorate(function: Function) -> Function:
        try:
            from fastnorm.backends._fast_call import FastCall
        except ImportError:
            return function
        return cast(Function, FastCall(function, fast_path, name, arguments))

    return decorate
