"""Pixel normalization and the L2 norm: lines scaled without a mean, a weight or a bias."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from fastnorm import arguments, calls
from fastnorm.device import dimensions, is_device_array
from fastnorm.engine import ArrayOrStats
from fastnorm.fast_path import SQUARES, plain_calls_by
from fastnorm.norms.lines import lines_backward, normalize_lines
from fastnorm.recipe import Measure, Rule

Array = npt.NDArray[Any]


@plain_calls_by("pixels", "x", "channel_axis", "eps", "out")
@calls.through_plain_copies
def pixel_norm(
    x: npt.ArrayLike,
    *,
    channel_axis: int = 1,
    eps: float = 1e-8,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Scale the channels of each pixel to a root mean square of 1: ``x / sqrt(mean(x^2) + eps)``.

    Karras et al., "Progressive Growing of GANs", 2018, section 4.2.

    Parameters
    ----------
    x : array_like
        Such as (N, C, H, W); real numbers.
    channel_axis : int, default 1
        The axis of the channels.
    eps : float, default 1e-8
        Added to the mean square; at least 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x is not of a real number dtype, or out not of the result's.
    ValueError
        An axis, out or eps that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.pixel_norm([[[1.0], [7.0]]]).ravel()
    array([0.2, 1.4])
    """
    array = x if is_device_array(x) else calls.take(x, "pixel_norm")
    axis = arguments.axis_index(channel_axis, dimensions(array), "pixel_norm", "channel_axis")
    rule = Rule(measure=Measure.SQUARES, eps=arguments.number(eps, "pixel_norm", "eps", minimum=0))
    return normalize_lines("pixel_norm", array, None, None, axis, rule, out, dtype, return_stats, backend)


@plain_calls_by("lines", "x", None, None, "axis", "eps", SQUARES, True, True, "out")
@calls.through_plain_copies
def l2_normalize(
    x: npt.ArrayLike,
    *,
    axis: int | tuple[int, ...] | None = -1,
    eps: float = 1e-12,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> ArrayOrStats:
    """Scale each line to length 1: ``x / max(sqrt(sum(x^2)), eps)``; a line of zeros stays so.

    ``torch.nn.functional.normalize`` with p = 2; with eps 0 ONNX LpNormalization-22.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    axis : int, tuple of int or None, default -1
        The axis of a line, or several trailing axes that make one; None: all.
    eps : float, default 1e-12
        The least length that is divided by; at least 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0, rstd is 1 / length.

    Returns
    -------
    ndarray of the shape of x, or (ndarray, Stats)

    Raises
    ------
    TypeError
        x is not of a real number dtype, or out not of the result's.
    ValueError
        An axis, out or eps that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.l2_normalize([[3.0, 4.0], [0.0, 0.0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    least = arguments.number(eps, "l2_normalize", "eps", minimum=0)
    rule = Rule(measure=Measure.SQUARES, eps=least, floor=True, summed=True)
    return normalize_lines("l2_normalize", x, None, None, axis, rule, out, dtype, return_stats, backend)


@plain_calls_by("pixels_backward", "dy", "x", "mean", "rstd", "channel_axis", "eps", "out")
def pixel_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    channel_axis: int = 1,
    eps: float = 1e-8,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
) -> Array:
    """Return the gradient of x in `pixel_norm`: ``rstd * (dy - xhat * mean(dy * xhat))``, ``xhat = x * rstd``.

    The chain rule, from the formula of `pixel_norm`.

    Parameters
    ----------
    dy, x, mean, rstd, out, dtype, backend
        As in `rms_norm_backward`.
    channel_axis, eps
        As in `pixel_norm`.

    Returns
    -------
    ndarray of the shape of x

    Raises
    ------
    TypeError
        An array is not of a real number dtype, or out not of the result's.
    ValueError
        A shape, axis or eps that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.pixel_norm_backward([[[1.0], [0.0]]], [[[1.0], [7.0]]]).ravel().round(4)
    array([ 0.196, -0.028])
    """
    function = "pixel_norm_backward"
    array = x if is_device_array(x) else calls.take(x, function)
    axis = arguments.axis_index(channel_axis, dimensions(array), function, "channel_axis")
    rule = Rule(measure=Measure.SQUARES, eps=arguments.number(eps, function, "eps", minimum=0))
    return lines_backward(function, dy, array, None, mean, rstd, axis, rule, out, dtype, backend, False).dx


@plain_calls_by(
    "lines_backward", "dy", "x", None, "mean", "rstd", "axis", "eps", SQUARES, True, True, 0, None, "out"
)  # fmt: skip
def l2_normalize_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    axis: int | tuple[int, ...] | None = -1,
    eps: float = 1e-12,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
) -> Array:
    """Return the gradient of x in `l2_normalize`: ``rstd * (dy - xhat * sum(dy * xhat))``, ``xhat = x * rstd``.

    The chain rule, from the formula of `l2_normalize`.

    A line that is no longer than eps was divided by a constant: its gradient is ``dy / eps``.

    Parameters
    ----------
    dy, x, mean, rstd, out, dtype, backend
        As in `rms_norm_backward`.
    axis, eps
        As in `l2_normalize`.

    Returns
    -------
    ndarray of the shape of x

    Raises
    ------
    TypeError
        An array is not of a real number dtype, or out not of the result's.
    ValueError
        A shape, axis or eps that does not fit.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.l2_normalize_backward([1.0, 0.0], [3.0, 4.0]).round(4)
    array([ 0.128, -0.096])
    """
    function = "l2_normalize_backward"
    least = arguments.number(eps, function, "eps", minimum=0)
    rule = Rule(measure=Measure.SQUARES, eps=least, floor=True, summed=True)
    return lines_backward(function, dy, x, None, mean, rstd, axis, rule, out, dtype, backend, False).dx
