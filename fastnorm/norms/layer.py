"""Layer normalization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy.typing as npt

from fastnorm import arguments, calls
from fastnorm.activations import activation_code
from fastnorm.engine import ArrayOrStats, Stats
from fastnorm.fast_path import VARIANCE, plain_calls_by
from fastnorm.gradients import Gradients
from fastnorm.norms.lines import lines_backward, normalize_lines
from fastnorm.recipe import Rule

Array = npt.NDArray[Any]


@plain_calls_by("lines", "x", "weight", "bias", "axis", "eps", VARIANCE, False, False, "out")
@plain_calls_by(
    "lines_with_options", "x", "residual", "weight", "bias", "axis", "eps", VARIANCE, "activation",
    partial(activation_code, function="layer_norm"), "return_residual", "return_stats", Stats, "quantize", "out",
)  # fmt: skip
@calls.through_plain_copies
def layer_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] | None = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_stats: bool = False,
    backend: str | None = None,
    residual: npt.ArrayLike | None = None,
    return_residual: bool = False,
    activation: str | Callable[[float], float] | None = None,
    quantize: Literal["int8"] | None = None,
) -> ArrayOrStats:
    """Normalise each line to mean 0 and variance 1: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Ba, Kiros and Hinton, "Layer Normalization", 2016, equation 4; the variance is the biased one.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    weight, bias : array_like, optional
        Of the shape of the normalised axes.
    axis : int, tuple of int or None, default -1
        The axis of a line, or several trailing axes that make one; None: all.
    eps : float, default 1e-5
        Added to the variance; at least 0. With 0 a constant line still gives the bias.
    out : ndarray, optional
        Where to put the result; `x` itself is allowed.
    dtype : dtype, optional
        A floating dtype for the result; float64 also computes in float64. Default: that of a floating x, float32 for
        integers of up to 16 bits, else float64.
    return_stats : bool, default False
        Also return ``Stats(mean, rstd)``, float64, shaped to broadcast against x.
    backend : str, optional
        Serve this call by "reference", "cython" or "numba".
    residual : array_like, optional
        Of the shape of x, added to it first.
    return_residual : bool, default False
        Also return the sum, ``x + residual``, last.
    activation : str or function, optional
        Applied to the result: "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", or a function of one number that
        ``numba.njit`` compiled and that does not raise.
    quantize : "int8", optional
        Return lines of int8 and a float32 scale for each, shaped to broadcast, instead of the result, which is about
        their product: ``scale = max(abs(line)) / 127``. The lines are the last axes then, without `out` and `dtype`.

    Returns
    -------
    ndarray of the shape of x
        With `quantize` two arrays; then, where they are wanted, `Stats` and the sum: a tuple if there is more than one.

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
    >>> fastnorm.layer_norm([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]).round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [ 0.    ,  0.    ,  0.    ]])
    """
    rule = Rule(eps=arguments.number(eps, "layer_norm", "eps", minimum=0))
    return normalize_lines(
        "layer_norm", x, weight, bias, axis, rule, out, dtype, return_stats, backend,
        residual, return_residual, activation, quantize,
    )  # fmt: skip


@plain_calls_by(
    "lines_backward", "dy", "x", "weight", "mean", "rstd", "axis", "eps", VARIANCE, False, False, 2, Gradients, "out"
)  # fmt: skip
def layer_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    rstd: npt.ArrayLike | None = None,
    axis: int | tuple[int, ...] | None = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
) -> Gradients:
    """Return the gradients of `layer_norm`.

    With ``xhat = (x - mean) * rstd`` and ``g = weight * dy``: ``dx = rstd * (g - mean(g) - xhat * mean(g * xhat))``,
    ``dweight = sum(dy * xhat)`` and ``dbias = sum(dy)`` over all lines. These two are added up in float64, in an order
    that depends on the shape alone.

    Parameters
    ----------
    dy : array_like
        The gradient of the result, of the shape of x.
    x : array_like
        What `layer_norm` was given.
    weight : array_like, optional
        Of the shape of the normalised axes.
    mean, rstd : array_like, optional
        The statistics that ``layer_norm(..., return_stats=True)`` returned; computed again if not given.
    axis, eps
        As in `layer_norm`.
    out : ndarray, optional
        Where to put dx.
    dtype : dtype, optional
        A floating dtype for dx. Default: as in `layer_norm`.
    backend : str, optional
        As in `layer_norm`.

    Returns
    -------
    Gradients
        ``(dx, dweight, dbias)``; the last two in the dtype of weight, or of dx without it.

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
    >>> import numpy as np, fastnorm
    >>> x, dy = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.0, 0.0]])
    >>> dx, dweight, dbias = fastnorm.layer_norm_backward(dy, x)
    >>> dx.round(4), dweight.round(4), dbias
    (array([[ 0.2041, -0.4082,  0.2041]]), array([-1.2247,  0.    ,  0.    ]), array([1., 0., 0.]))
    """
    rule = Rule(eps=arguments.number(eps, "layer_norm_backward", "eps", minimum=0))
    return lines_backward("layer_norm_backward", dy, x, weight, mean, rstd, axis, rule, out, dtype, backend)
