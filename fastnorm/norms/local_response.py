"""Local response normalization: a neighbourhood of channels and a power of its sum of squares, for a primitive."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls, engine, gradients
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.recipe import Neighbourhood

Array = npt.NDArray[Any]


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
    alpha, beta, k : float, default 1e-4, 0.75, 1.0
        The scale of the sum, the exponent, the offset.
    channel_axis : int, default 1
        The axis of the channels. Not 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0, rstd what each element is multiplied by.

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
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.local_response_norm([[1.0, 1.0, 1.0]], 3, alpha=3.0, beta=1.0)
    array([[0.33333333, 0.25      , 0.33333333]])
    """
    function = "local_response_norm"
    return_stats = arguments.flag(return_stats, function, "return_stats")
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    near = _neighbourhood(size, alpha, beta, k, array.shape[axis], function)
    call = calls.begin(array, out, dtype, backend, function)
    rstd = np.ones(array.shape) if return_stats else None
    if array.size:
        view = _view(array.shape, axis)
        factors = None if rstd is None else rstd.reshape(view)
        call.backend.local_response(np.ascontiguousarray(call.x).reshape(view), call.y.reshape(view), near, factors)
    return engine.results(call, None if rstd is None else Stats(np.zeros_like(rstd), rstd))


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
        As in `layer_norm_backward`.

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
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.local_response_norm_backward([[1.0, 0.0]], [[1.0, 1.0]], 3, alpha=3.0, beta=1.0).round(4)
    array([[ 0.1111, -0.2222]])
    """
    function = "local_response_norm_backward"
    array = calls.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    near = _neighbourhood(size, alpha, beta, k, array.shape[axis], function)
    given = gradients.given_statistics(None, rstd, array.shape, function, needs_mean=False)
    call, upstream = gradients.begin(dy, array, out, dtype, backend, function)
    if array.size:
        view = _view(array.shape, axis)
        source, above = (np.ascontiguousarray(part).reshape(view) for part in (call.x, upstream))
        factors = None if given is None else np.ascontiguousarray(given.rstd).reshape(view)
        call.backend.local_response_grad(source, above, call.y.reshape(view), near, factors)
    return call.finish()


def _neighbourhood(size: int, alpha: float, beta: float, k: float, channels: int, function: str) -> Neighbourhood:
    """Check the options; no more channels on either side than there are."""
    window = arguments.integer(size, function, "size", minimum=1)
    slope = arguments.number(alpha, function, "alpha") / arguments.number(window, function, "size")
    before, after = (min(side, max(channels - 1, 0)) for side in (window // 2, (window - 1) // 2))
    exponent = arguments.number(beta, function, "beta")
    return Neighbourhood(before, after, slope, exponent, arguments.number(k, function, "k"))


def _view(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """What comes before the channels, the channels, and what comes after them."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
