"""Root mean square normalization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy.typing as npt

from fastnorm import arguments, calls
from fastnorm.activations import activation_code
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import SQUARES, plain_calls_by
from fastnorm.gradients import Gradients
from fastnorm.norms.lines import lines_backward, normalize_lines
from fastnorm.recipe import Measure, Rule

Array = npt.NDArray[Any]


@plain_calls_by("lines", "x", "weight", "bias", "axis", "eps", SQUARES, False, False, "out")
@plain_calls_by(
    "lines_with_options", "x", "residual", "weight", "bias", "axis", "eps", SQUARES, "activation",
    partial(activation_code, function="rms_norm"), "return_residual", "return_stats", Stats, "quantize", "out",
)  # fmt: skip
@calls.through_plain_copies
def rms_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] | None = -1,
    eps: float = 1e-6,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
    residual: npt.ArrayLike | None = None,
    return_residual: bool = False,
    activation: str | Callable[[float], float] | None = None,
    quantize: Literal["int8"] | None = None,
) -> ArrayOrStats:
    """Scale each line to a root mean square of 1: ``x / sqrt(mean(x^2) + eps) * weight + bias``.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    weight, bias : array_like, optional
        Of the shape of the normalised axes.
    axis : int, tuple of int or None, default -1
        The axis of a line, or several trailing axes that make one; None: all.
    eps : float, default 1e-6
        Added to the mean square; at least 0.
    out, dtype, return_stats, backend
        As in `layer_norm`; the mean of the statistics is 0.
    residual, return_residual, activation, quantize
        As in `layer_norm`.

    Returns
    -------
    ndarray of the shape of x, or a tuple, as in `layer_norm`

    Raises
    ------
    TypeError
        x, weight or bias is not of a real number dtype, or out not of the result's; an activation is neither a name nor
        compiled, or does not compile for the dtype.
    ValueError
        A shape, axis or eps that does not fit; an activation, `quantize` or backend that there is not.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.rms_norm([3.0, 4.0], eps=0).round(4)
    array([0.8485, 1.1314])
    """
    rule = Rule(measure=Measure.SQUARES, eps=arguments.number(eps, "rms_norm", "eps", minimum=0))
    return normalize_lines(
        "rms_norm", x, weight, bias, axis, rule, out, dtype, return_stats, backend,
        residual, return_residual, activation, quantize,
    )  # fmt: skip


@plain_calls_by(
    "lines_backward", "dy", "x", "weight", "mean", "rstd", "axis", "eps", SQUARES, False, False, 1, Gradients, "out"
)  # fmt: skip
def rms_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    axis: int | tuple[int, ...] | None = -1,
    eps: float = 1e-6,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
) -> Gradients:
    """Return the gradients of `rms_norm`.

    With ``xhat = x * rstd`` and ``g = weight * dy``: ``dx = rstd * (g - xhat * mean(g * xhat))`` and
    ``dweight = sum(dy * xhat)`` over all lines: the chain rule, from equation 4 of Zhang and Sennrich, 2019.

    Parameters
    ----------
    dy, x, weight, rstd, axis, eps, out, dtype, backend
        As in `layer_norm_backward`.
    mean : array_like, optional
        Ignored beside rstd: nothing was subtracted.

    Returns
    -------
    Gradients
        ``(dx, dweight, None)``; the gradient of a bias is the sum of dy over all lines.

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
    >>> fastnorm.rms_norm_backward([1.0, 0.0], [3.0, 4.0], eps=0).dx.round(4)
    array([ 0.181 , -0.1358])
    """
    rule = Rule(measure=Measure.SQUARES, eps=arguments.number(eps, "rms_norm_backward", "eps", minimum=0))
    found = lines_backward("rms_norm_backward", dy, x, weight, mean, rstd, axis, rule, out, dtype, backend)
    return found._replace(dbias=None)
