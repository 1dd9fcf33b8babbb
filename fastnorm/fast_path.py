"""A fast path for plain calls, in front of the general one: a few tenths of a microsecond instead of ten.

Plain are C-contiguous arrays of one floating dtype (parameters may have another, and rows others between them), where
the settings leave the choice of the backend to the library.
Each function returns the result, or None, having written nothing, where the general path must look: at everything else,
and at whatever is wrong. The bits are the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.backends.cython import Cython
from fastnorm.recipe import Measure

Function = TypeVar("Function", bound=Callable[..., Any])

# The numbers of `recipe.Measure`: an enumeration's member costs more to hand over than an int.
SQUARES, VARIANCE = int(Measure.SQUARES), int(Measure.VARIANCE)


class FastPath:
    """What the compiled kernels offer; bound on first use, since an import must not load them.

    Attributes
    ----------
    lines : callable
        ``(x, weight, bias, axis, eps, measure, floor, summed, out)``: a norm over the last axes, or any one axis.
    lines_with_options : callable
        ``(x, residual, weight, bias, axis, eps, measure, activation, code_of, return_residual, return_stats,
        stats_class, out)``: the same of x + residual, through an activation, whose code ``code_of`` tells where it is
        no name; with the sum and with the statistics, in their class, if they are wanted.
    groups : callable
        ``(x, num_groups, weight, bias, channel_axis, eps, out)``: groups of channels, second or last.
    instances : callable
        ``(x, weight, bias, channel_axis, eps, out)``: each channel, second or last.
    groups_with_options : callable
        ``(x, residual, num_groups, weight, bias, channel_axis, eps, activation, code_of, return_residual,
        return_stats, stats_class, out)``: the same for groups.
    instances_with_statistics : callable
        ``(x, weight, bias, channel_axis, eps, return_stats, stats_class, out)``: each channel, and its statistics.
    given : callable
        ``(x, mean, var, weight, bias, channel_axis, eps, out)``: given statistics, channels second or last.
    fused_given : callable
        ``(x, residual, mean, var, weight, bias, channel_axis, eps, activation, keep, out)``: and for given statistics.
    train : callable
        ``(x, running_mean, running_var, weight, bias, channel_axis, eps, old, unbiased, stats_class, out)``: statistics
        of the batch, returned too if a class is given.
    lines_backward : callable
        ``(dy, x, weight, mean, rstd, axis, eps, measure, floor, summed, parameters, out)``: dx, and the gradients of
        weight and bias, with ``parameters`` False None.
    groups_backward : callable
        ``(dy, x, num_groups, weight, mean, rstd, channel_axis, eps, out)``: the three gradients.
    batch_backward : callable
        ``(dy, x, weight, mean, rstd, running_mean, running_var, channel_axis, eps, training, out)``: the three
        gradients of batch_norm.
    moments_along : callable
        ``(x, axis, ddof, result_class)``: moments along one axis, or of the whole array.
    extrema_along : callable
        ``(x, axis, result_class)``: extrema along one axis, or of the whole array.
    standardized : callable
        ``(x, axis, ddof, out)``: standardize along one axis.
    scaled : callable
        ``(x, axis, feature_range, magnitudes, out)``: min_max_scale, and by the largest magnitude max_abs_scale.
    pixels : callable
        ``(x, channel_axis, eps, out)``: pixel_norm.
    clipped : callable
        ``(x, max_norm, axis, out)``: clip_by_norm along one axis, or of the whole array.
    clipped_together : callable
        ``(arrays, max_norm, error_if_nonfinite, out, result_class)``: clip_by_global_norm.
    normalize_image : callable
        ``(image, mean, std, max_value, layout, out, dtype)``: images of bytes, with given numbers.
    """

    __slots__ = (
        "batch_backward", "clipped", "clipped_together", "extrema_along", "fused_given", "given", "groups",
        "groups_backward", "groups_with_options", "instances", "instances_with_statistics", "lines", "lines_backward",
        "lines_with_options", "moments_along", "normalize_image", "pixels", "scaled", "standardized", "train",
    )  # fmt: skip

    batch_backward: Callable[..., Any]
    clipped: Callable[..., Any]
    clipped_together: Callable[..., Any]
    extrema_along: Callable[..., Any]
    fused_given: Callable[..., Any]
    given: Callable[..., Any]
    groups: Callable[..., Any]
    groups_backward: Callable[..., Any]
    groups_with_options: Callable[..., Any]
    instances: Callable[..., Any]
    instances_with_statistics: Callable[..., Any]
    lines: Callable[..., Any]
    lines_backward: Callable[..., Any]
    lines_with_options: Callable[..., Any]
    moments_along: Callable[..., Any]
    normalize_image: Callable[..., Any]
    pixels: Callable[..., Any]
    scaled: Callable[..., Any]
    standardized: Callable[..., Any]
    train: Callable[..., Any]

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, partial(self._first, name))

    def _first(self, name: str, *arguments: Any) -> Any:
        first = registry.load_first(tuning.LADDER[0].backends)
        preferred = all(step.backends[0] == "cython" for step in tuning.LADDER)
        self.bind(first if preferred and isinstance(first, Cython) else None)
        return getattr(self, name)(*arguments)

    def bind(self, backend: Cython | None) -> None:
        """Have a backend serve from now on; without one the general path does."""
        for name in self.__slots__:
            setattr(self, name, _decline if backend is None else backend.fast_path(name))


def _decline(*arguments: Any) -> None:
    """There are no compiled kernels, or they are not the first choice."""


fast_path = FastPath()


def plain_calls_by(name: str, *arguments: Any) -> Callable[[Function], Function]:
    """Have the fast path serve the plain calls of a function before its body is entered, which costs a call more.

    Parameters
    ----------
    name : str
        That of the entry of `FastPath`.
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
