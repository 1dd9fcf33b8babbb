"""Local response normalization; NumPy computes it, block by block."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, engine
from fastnorm.engine import ArrayOrStats, Stats

Array = npt.NDArray[Any]

# Elements worked on at a time: the temporaries of a block stay in the L2 cache.
_BLOCK = 2**15


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
    array = engine.take(x, function)
    axis = arguments.channel_index(array, channel_axis, function)
    window = arguments.integer(size, function, "size", minimum=1)
    slope = arguments.number(alpha, function, "alpha") / window
    exponent = arguments.number(beta, function, "beta")
    offset = arguments.number(k, function, "k")
    call = engine.begin(array, out, dtype, backend, function)
    rstd = np.ones(array.shape) if return_stats else None
    if array.size:
        channels = array.shape[axis]
        before, after = int(np.prod(array.shape[:axis])), int(np.prod(array.shape[axis + 1 :]))
        source = np.ascontiguousarray(call.x).reshape(before, channels, after)
        target = call.y.reshape(before, channels, after)
        factors = None if rstd is None else rstd.reshape(before, channels, after)
        step = max(1, _BLOCK // channels)  # columns
        items = max(1, step // after)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for b in range(0, before, items):
                for c in range(0, after, step):
                    block = np.s_[b : b + items, :, c : c + step]
                    part = source[block]
                    sums = _window_sums(part, window)
                    if sums.max() == np.inf:  # squares beyond float32
                        sums = _window_sums(part.astype(np.float64), window)
                    sums *= slope
                    sums += offset
                    np.power(sums, exponent, out=sums)
                    if factors is not None:  # before the division, which may write over x
                        np.divide(1.0, sums, out=factors[block])
                    np.divide(part, sums, out=target[block], casting="same_kind")
    result = call.finish()
    return result if rstd is None else (result, Stats(np.zeros_like(rstd), rstd))


def _window_sums(part: Array, window: int) -> Array:
    """Sums of squares of `window` channels around each, (before, channels, columns)."""
    channels, first = part.shape[1], window // 2
    squares = np.square(part)
    sums = squares.copy()
    for shift in range(-first, window - first):
        if shift == 0 or abs(shift) >= channels:
            continue
        if shift < 0:
            sums[:, -shift:] += squares[:, :shift]
        else:
            sums[:, :-shift] += squares[:, shift:]
    return sums
