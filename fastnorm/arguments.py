"""Checks of the arguments that norms have in common; every message names the function and the argument."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnorm.calls import check_unmasked, take
from fastnorm.dtypes import is_floating

Array = npt.NDArray[Any]


class Shaped(Protocol):
    """An array in any memory."""

    @property
    def ndim(self) -> int:
        """The number of dimensions."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each."""


def number(value: Any, function: str, name: str, *, minimum: float | None = None, open_end: bool = False) -> float:
    """Return a real scalar as a float, which must be at least (or, with `open_end`, above) `minimum`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{function}: {name} must be a real number, got {type(value).__name__}")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{function}: {name} must be within the range of float64, got an int beyond it") from None
    if math.isnan(result):
        raise ValueError(f"{function}: {name} must be a number, got NaN")
    if minimum is not None and (result < minimum or (open_end and result == minimum)):
        bound = f"{'above' if open_end else 'at least'} {minimum:g}"
        raise ValueError(f"{function}: {name} must be {bound}, got {result:g}")
    return result


def integer(value: Any, function: str, name: str, *, minimum: int | None = None) -> int:
    """Return an integer, which must be at least `minimum`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{function}: {name} must be an int, got {type(value).__name__}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {value}")
    return int(value)


def flag(value: Any, function: str, name: str) -> bool:
    """Return what must be True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: {name} must be a bool, got {type(value).__name__}")
    return bool(value)


def axis_index(axis: Any, ndim: int, function: str, name: str = "axis") -> int:
    """Return an axis of an array of `ndim` dimensions, not negative."""
    index = integer(axis, function, name)
    if not -ndim <= index < ndim:
        raise ValueError(f"{function}: {name} {index} is out of range for an array of {ndim} dimensions")
    return index % ndim


def axis_indices(axis: Any, ndim: int, function: str, name: str = "axis") -> tuple[int, ...]:
    """Return axes in ascending order, not negative; None means all."""
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, Sequence) and not isinstance(axis, str):
        axes = [axis_index(a, ndim, function, name) for a in axis]
        if len(set(axes)) < len(axes):
            raise ValueError(f"{function}: {name} {tuple(axis)} names an axis twice")
        return tuple(sorted(axes))
    return (axis_index(axis, ndim, function, name),)


def trailing_axes(axis: Any, ndim: int, function: str) -> tuple[int, ...]:
    """Return the axes of a line: one axis, or several that are the last ones."""
    axes = axis_indices(axis, ndim, function)
    if not axes or (len(axes) > 1 and axes != tuple(range(ndim - len(axes), ndim))):
        raise ValueError(f"{function}: axis must be one axis or a tuple of the trailing axes, got {axis!r}")
    return axes


def channel_index(x: Shaped, channel_axis: Any, function: str) -> int:
    """Return the channel axis of a batch: the array has at least two dimensions, and the first is the batch."""
    if x.ndim < 2:
        raise ValueError(f"{function}: x must have at least 2 dimensions, (N, C, ...), got shape {x.shape}")
    index = axis_index(channel_axis, x.ndim, function, "channel_axis")
    if index == 0:
        raise ValueError(f"{function}: channel_axis must not be 0, the batch axis")
    return index


def per_group(channels: int, num_groups: int | None, function: str) -> int:
    """Return how many channels a group has; without `num_groups` one."""
    if num_groups is None:
        return 1
    if channels % num_groups:
        raise ValueError(f"{function}: num_groups must divide the {channels} channels, got {num_groups}")
    return channels // num_groups


def check_count(count: int, function: str) -> None:
    """Training needs more than one value a channel: of one alone the variance is 0 and the gradient nothing."""
    if count == 1:
        raise ValueError(f"{function}: training needs more than one value per channel, got 1")


def parameter(value: npt.ArrayLike | None, shape: tuple[int, ...], function: str, name: str) -> Array | None:
    """Return a weight or bias, which must have `shape`; None stays None."""
    if value is None:
        return None
    array = take(value, function, name)
    if array.shape != shape:
        raise ValueError(f"{function}: {name} must have shape {shape}, got {array.shape}")
    return array


def parameters(
    weight: npt.ArrayLike | None, bias: npt.ArrayLike | None, shape: tuple[int, ...], function: str
) -> tuple[Array | None, Array | None]:
    """Return a weight and a bias of one shape."""
    return parameter(weight, shape, function, "weight"), parameter(bias, shape, function, "bias")


def statistic(value: npt.ArrayLike, length: int, function: str, name: str) -> Array:
    """Return a mean or variance a channel, as float64."""
    array = take(value, function, name)
    if array.shape != (length,):
        raise ValueError(f"{function}: {name} must have shape {(length,)}, got {array.shape}")
    return array.astype(np.float64)


def running_statistics(
    running_mean: npt.ArrayLike | None, running_var: npt.ArrayLike | None, length: int, function: str
) -> tuple[Array, Array]:
    """Return the mean and variance that inference normalises by, as float64."""
    if running_mean is None or running_var is None:
        raise ValueError(f"{function}: running_mean and running_var are needed unless training=True")
    return (
        statistic(running_mean, length, function, "running_mean"),
        statistic(running_var, length, function, "running_var"),
    )


def element_weights(
    weights: npt.ArrayLike | None, where: npt.ArrayLike | None, shape: tuple[int, ...], function: str
) -> Array | None:
    """Return what each element of an array of `shape` counts, float64, read-only; None: one."""
    result = None
    if weights is not None:
        result = take(weights, function, "weights").astype(np.float64)
        fit = (result >= 0) & (result < np.inf)
        if not fit.all():
            raise ValueError(f"{function}: weights must be finite and not negative, got {result[~fit][0]:g}")
        _check_broadcast(result, shape, function, "weights")
    if where is not None:
        mask = take(where, function, "where")
        if mask.dtype != np.bool_:
            raise TypeError(f"{function}: where must be of bool, got {mask.dtype}")
        _check_broadcast(mask, shape, function, "where")
        result = np.where(mask, 1.0 if result is None else result, 0.0)
    return None if result is None else np.broadcast_to(result, shape)


def _check_broadcast(array: Array, shape: tuple[int, ...], function: str, name: str) -> None:
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{function}: {name} must broadcast to the shape of x, {shape}, got {array.shape}") from None


def running(value: Any, length: int, function: str, name: str) -> Array | None:
    """Return a running statistic that will be updated in place; None stays None."""
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or not is_floating(value.dtype):
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{function}: {name} must be a floating numpy.ndarray to be updated in place, got {got}")
    check_unmasked(value, function, name)
    if value.shape != (length,):
        raise ValueError(f"{function}: {name} must have shape {(length,)}, got {value.shape}")
    if not value.flags.writeable:
        raise ValueError(f"{function}: {name} is read-only and cannot be updated in training")
    return value


def residual(value: npt.ArrayLike | None, wanted: bool, x: Array, function: str) -> Array | None:
    """Return what is added to x, of its shape; None stays None."""
    wanted = flag(wanted, function, "return_residual")
    if value is None:
        if wanted:
            raise ValueError(f"{function}: return_residual needs a residual")
        return None
    array = take(value, function, "residual")
    if array.shape != x.shape:
        raise ValueError(f"{function}: residual must have the shape of x, {x.shape}, got {array.shape}")
    return array


def quantization(
    value: str | None, axes: tuple[int, ...], x: Array, out: Array | None, dtype: npt.DTypeLike | None, function: str
) -> None:
    """Check that lines can be quantised."""
    if value is None:
        return
    if not isinstance(value, str) or value != "int8":
        raise ValueError(f"{function}: quantize must be 'int8' or None, got {value!r}")
    if out is not None or dtype is not None:
        raise ValueError(f"{function}: out and dtype must be None with quantize")
    if axes[-1] != x.ndim - 1:
        raise ValueError(f"{function}: quantize needs lines along the last axes, got axis {axes}")
