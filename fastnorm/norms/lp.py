"""Lines scaled to a p-norm of 1; NumPy computes it, block by block, but for p = 2."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, engine
from fastnorm.norms.pixel import l2_normalize

Array = npt.NDArray[Any]

# Elements worked on at a time: the temporaries of a block stay in the L2 cache.
_BLOCK = 2**15


def lp_normalize(
    x: npt.ArrayLike,
    *,
    p: float,
    axis: int = -1,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    backend: str | None = None,
) -> Array:
    """Scale each line to a p-norm of 1: ``x / sum(|x|^p)^(1/p)``; a line of zeros stays so.

    ONNX LpNormalization-22, for any p.

    Parameters
    ----------
    x : array_like
        Any shape with at least one dimension; real numbers.
    p : float
        Above 0; ``inf`` scales to the largest magnitude of 1.
    axis : int, default -1
        The axis of a line.
    out, dtype
        As in `layer_norm`.
    backend : str, optional
        As in `layer_norm`, where p is 2; every other p is computed by NumPy.

    Returns
    -------
    ndarray of the shape of x

    Raises
    ------
    TypeError
        x is not of a real number dtype, p not a number, or out not of the result's dtype.
    ValueError
        p is not above 0, or an axis or out that does not fit.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.lp_normalize([1.0, -3.0], p=1)
    array([ 0.25, -0.75])
    """
    function = "lp_normalize"
    array = engine.take(x, function)
    power = arguments.number(p, function, "p", minimum=0, open_end=True)
    index = arguments.axis_index(axis, array.ndim, function)
    if power == 2:
        result: Array = l2_normalize(array, axis=index, eps=0, out=out, dtype=dtype, backend=backend)
        return result
    call = engine.begin(array, out, dtype, backend, function)
    if array.size:
        source, target = np.moveaxis(call.x, index, -1), np.moveaxis(call.y, index, -1)
        length = source.shape[-1]
        lines, results = source.reshape(-1, length), target
        if not np.may_share_memory(target.reshape(-1, length), call.y):
            results = np.empty_like(lines)
        results = results.reshape(-1, length)
        step = max(1, _BLOCK // length)
        for start in range(0, len(lines), step):
            block = lines[start : start + step]
            norm = _p_norm(block, power)
            scale = 1.0 / np.where(norm == 0.0, 1.0, norm)
            np.multiply(block, scale, out=results[start : start + step], casting="unsafe")
        if not np.may_share_memory(results, call.y):
            target[...] = results.reshape(target.shape)
    return call.finish()


def _p_norm(block: Array, p: float) -> Array:
    """The p-norm of rows, (rows, 1), float64; scaled by the largest magnitude so that no power overflows."""
    magnitude = np.abs(block)
    if p == 1:
        norm: Array = magnitude.sum(axis=1, keepdims=True, dtype=np.float64)
        return norm
    norm = magnitude.max(axis=1, keepdims=True).astype(np.float64)
    if p != np.inf:
        with np.errstate(invalid="ignore", under="ignore"):
            ratio = magnitude / np.where(norm == 0.0, 1.0, norm)
            norm *= (ratio**p).sum(axis=1, keepdims=True) ** (1.0 / p)
    return norm
