"""Local response normalization; NumPy computes it, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, gradients
from fastnorm.dtypes import FLOAT32
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.lines import Lines

Array = npt.NDArray[Any]

# Elements worked on at a time: the temporaries of a block stay in the L2 cache.
_BLOCK = 2**15

# Between these a sum of float32 squares has lost nothing that matters, nor has its power.
SMALLEST = 2.0**-100
LARGEST = 2.0**126


def local_response_norm(
    x: npt.ArrayLike,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    channel_axis: int = 1,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Divide each element by its neighbourhood across channels: ``x / (k + alpha / size * sum(x^2))^beta``.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification", 2012, section 3.3, with the window of torch:
    `size` channels from ``c - size // 2`` on, those outside the array counting as 0. (ONNX's LRN has this window for
    odd sizes; for even ones it begins a channel later.)

    Parameters
    ----------
    x : array_like
        (N, C, ...); real numbers.
    size : int
        The number of channels in the window, at least 1.
    alpha, beta, k : float
        The scale of the sum, the exponent, the offset.
    channel_axis : int, default 1
        The axis of the channels. Not 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0, rstd what each element is multiplied by. NumPy computes
        this norm: a compiled backend cannot serve it.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x is not of a real number dtype, an option not a number, or out not of the result's dtype.
    ValueError
        size is below 1, or an axis or out that does not fit.
    RuntimeError
        A compiled backend was asked for.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.local_response_norm([[1.0, 1.0, 1.0]], 3, alpha=3.0, beta=1.0)
    array([[0.33333333, 0.25      , 0.33333333]])
    """
    function = "local_response_norm"
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    window = arguments.integer(size, function, "size", minimum=1)
    slope = arguments.number(alpha, function, "alpha") / arguments.number(window, function, "size")
    exponent = arguments.number(beta, function, "beta")
    offset = arguments.number(k, function, "k")
    call = calls.begin(array, out, dtype, backend, function)
    rstd = np.ones(array.shape) if return_stats else None
    if array.size:
        view = _view(array.shape, axis)
        source, target = np.ascontiguousarray(call.x).reshape(view), call.y.reshape(view)
        factors = None if rstd is None else rstd.reshape(view)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for block in _blocks(view):
                part = source[block]
                divisors = _divisors(part, window, slope, offset, exponent)
                if factors is not None:  # before the division, which may write over x
                    np.divide(1.0, divisors, out=factors[block], dtype=np.float64)
                np.divide(part, divisors, out=target[block], casting="same_kind")
    result = call.finish()
    return result if rstd is None else (result, Stats(np.zeros_like(rstd), rstd))


def local_response_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    size: int,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    channel_axis: int = 1,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
) -> Array:
    """Return the gradient of x in `local_response_norm`.

    With ``d = k + alpha / size * sum(x^2)``: ``dx = dy * d^-beta - 2 * alpha * beta / size * x * sum(dy * x / d^(beta +
    1))``, the last sum over the channels in whose window x is. It is computed in float64, whatever the dtype.

    Parameters
    ----------
    dy : array_like
        The gradient of the result, of the shape of x.
    x, size, alpha, beta, k, channel_axis
        As in `local_response_norm`.
    mean : array_like, optional
        Ignored: nothing was subtracted.
    rstd : array_like, optional
        What ``local_response_norm(..., return_stats=True)`` returned, ``d^-beta``; computed again if not given.
    out, dtype, backend
        As in `layer_norm_backward`; a compiled backend cannot serve it.

    Returns
    -------
    ndarray of the shape of x

    Raises
    ------
    TypeError
        An array is not of a real number dtype, an option not a number, or out not of the result's dtype.
    ValueError
        size is below 1, or a shape, axis or out that does not fit.
    RuntimeError
        A compiled backend was asked for.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.local_response_norm_backward([[1.0, 0.0]], [[1.0, 1.0]], 3, alpha=3.0, beta=1.0).round(4)
    array([[ 0.1111, -0.2222]])
    """
    function = "local_response_norm_backward"
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    window = arguments.integer(size, function, "size", minimum=1)
    slope = arguments.number(alpha, function, "alpha") / arguments.number(window, function, "size")
    exponent = arguments.number(beta, function, "beta")
    offset = arguments.number(k, function, "k")
    given = gradients.given_statistics(mean, rstd, array.shape, function, needs_mean=False)
    call, upstream = gradients.begin(dy, array, out, dtype, backend, function)
    if array.size:
        view = _view(array.shape, axis)
        source, above = (np.ascontiguousarray(part).reshape(view) for part in (call.x, upstream))
        target = call.y.reshape(view)
        factors = None if given is None else given.rstd.reshape(view)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for block in _blocks(view):
                part, gradient = source[block].astype(np.float64), above[block].astype(np.float64)
                base = offset + slope * _window_sums(np.square(part), window)
                scaled = gradient * (base**-exponent if factors is None else factors[block])
                # A channel is in the windows of those around it: the window, seen from its other end.
                through = _window_sums(scaled * part / base, window, mirrored=True)
                target[block] = scaled - 2.0 * slope * exponent * part * through
    return call.finish()


def _divisors(part: Array, window: int, slope: float, offset: float, exponent: float) -> Array:
    """Return what elements are divided by: in float64 for the pixels where float32 has not the range.

    The others have the same numbers then, and the same quotients: to round one to float64 first does not show.
    """
    bases = _bases(part, window, slope, offset)
    divisors = np.power(bases, exponent)
    far = _outside(bases, divisors) if part.dtype == FLOAT32 else None
    if far is None:
        return divisors
    pixels = Lines.marked(far.max(axis=1), len(part))
    exact = np.power(_bases(pixels.read(part).astype(np.float64), window, slope, offset), exponent)
    wide = divisors.astype(np.float64)
    pixels.write(wide, np.where(pixels.read(far), exact, pixels.read(wide)))
    return wide


def _bases(part: Array, window: int, slope: float, offset: float) -> Array:
    bases = _window_sums(np.square(part), window)
    bases *= slope
    bases += offset
    return bases


def _outside(*arrays: Array) -> Array | None:
    """Where one of some numbers comes near the ends of float32's range, or is none; None if nowhere."""
    if all(numbers.min() >= SMALLEST and numbers.max() <= LARGEST for numbers in arrays):
        return None
    sizes = [np.abs(numbers) for numbers in arrays]
    outside: Array = ~np.logical_and.reduce([(size >= SMALLEST) & (size <= LARGEST) for size in sizes])
    return outside


def _view(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """What comes before the channels, the channels, and what comes after them."""
    return int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))


def _blocks(view: tuple[int, int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the blocks to work on, one after the other: all channels of some columns."""
    before, channels, after = view
    step = max(1, _BLOCK // channels)  # columns
    items = max(1, step // after)
    for b in range(0, before, items):
        for c in range(0, after, step):
            yield np.s_[b : b + items, :, c : c + step]


def _window_sums(values: Array, window: int, mirrored: bool = False) -> Array:
    """Sums over `window` channels around each, (before, channels, columns)."""
    channels = values.shape[1]
    first = (window - 1) // 2 if mirrored else window // 2
    sums = values.copy()
    for shift in range(max(-first, 1 - channels), min(window - first, channels)):
        if shift < 0:
            sums[:, -shift:] += values[:, :shift]
        elif shift > 0:
            sums[:, :-shift] += values[:, shift:]
    return sums
