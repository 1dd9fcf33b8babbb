"""ONNX's norms of lines: layer and RMS, with their sums in front as ONNX Runtime fuses them, deviation and length."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.dtypes import FLOAT32, storage
from fastnorm.engine import Stats
from fastnorm.norms.layer import layer_norm
from fastnorm.norms.lp import lp_normalize
from fastnorm.norms.rms import rms_norm
from fastnorm.norms.scalers import standardize
from fastnorm.onnx.base import Operator, rounded

Array = npt.NDArray[Any]

MICROSOFT = "com.microsoft"


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of that shape broadcasts to `target`, and leaves it as it is."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _single(value: float) -> float:
    """Return what an attribute, a float32, keeps of a number."""
    return float(np.float32(value))


class _Lines(Operator):
    """A norm of lines, the axes from `axis` to the last."""

    def _normalize(
        self, norm: Callable[..., Any], x: Array, scale: Array, bias: Array | None, axis: int, epsilon: float
    ) -> tuple[Array, Stats | None]:
        """Return Y, in the dtype of scale, and the statistics if the node names more outputs."""
        first = arguments.axis_index(axis, x.ndim, self.op_type)
        for name, value in (("Scale", scale), ("B", bias)):
            if value is not None and not _broadcasts(value.shape, x.shape):
                raise ValueError(
                    f"{self.op_type}: {name} must broadcast to the shape of X, {x.shape}, got {value.shape}"
                )
        dtype, wanted = None if scale.dtype == x.dtype else scale.dtype, len(self.output) > 1
        axes = tuple(range(first, x.ndim))
        line = x.shape[first:]
        # Those that differ between lines are ONNX's second stage, in the dtype of Y.
        apart = any(value is not None and not _broadcasts(value.shape, line) for value in (scale, bias))
        weight, shift = (None if value is None or apart else np.broadcast_to(value, line) for value in (scale, bias))
        found = norm(x, weight, shift, axis=axes, eps=epsilon, dtype=dtype, return_stats=wanted)
        y, stats = found if wanted else (found, None)
        if apart:
            with np.errstate(all="ignore"):
                y = y * scale
                y = y if bias is None else y + bias
        return y, stats


class LayerNormalization(_Lines):
    """ONNX LayerNormalization-17; Mean and InvStdDev have the dtype that stash_type says."""

    def _compute(
        self, x: Array, scale: Array, bias: Array | None = None, *, axis: int, epsilon: float, stash_type: np.dtype[Any]
    ) -> tuple[Array, ...]:
        y, stats = self._normalize(layer_norm, x, scale, bias, axis, epsilon)
        return (y,) if stats is None else (y, *rounded(stash_type, *stats))


class SimplifiedLayerNormalization(_Lines):
    """ONNX Runtime's RMSNorm, which gives the inverse root mean square too."""

    op_domain = MICROSOFT

    def _compute(
        self, x: Array, scale: Array, *, axis: int = -1, epsilon: float = _single(1e-5),
        stash_type: np.dtype[Any] = FLOAT32,
    ) -> tuple[Array, ...]:  # fmt: skip
        y, stats = self._normalize(rms_norm, x, scale, None, axis, epsilon)
        return (y,) if stats is None else (y, *rounded(stash_type, stats.rstd))


# ONNX Runtime has it in the default domain, and an operator has its name from its class.
SimplifiedInDefaultDomain = type(
    "SimplifiedLayerNormalization", (SimplifiedLayerNormalization,), {"op_domain": "", "__module__": __name__}
)


class RMSNormalization(_Lines):
    """ONNX RMSNormalization-23."""

    def _compute(
        self, x: Array, scale: Array, *, axis: int, epsilon: float, stash_type: np.dtype[Any]
    ) -> tuple[Array, ...]:
        return (self._normalize(rms_norm, x, scale, None, axis, epsilon)[0],)


class _Skip(_Lines):
    """A norm of the last axis of a sum: of x, the residual connection (`skip`) and a bias."""

    op_domain = MICROSOFT

    def _normalize_sum(
        self, norm: Callable[..., Any], x: Array, skip: Array, gamma: Array, beta: Array | None, bias: Array | None,
        epsilon: float,
    ) -> tuple[Array, ...]:  # fmt: skip
        """Return output, mean, inv_std_var and input_skip_bias_sum; 16-bit floats are added up in float32."""
        if not _broadcasts(skip.shape, x.shape):
            raise ValueError(f"{self.op_type}: skip must broadcast to the shape of input, {x.shape}, got {skip.shape}")
        for name, value in (("gamma", gamma), ("beta", beta), ("bias", bias)):
            arguments.parameter(value, x.shape[-1:], self.op_type, name)
        with np.errstate(all="ignore"):
            total = np.add(x, skip, dtype=storage(x.dtype, self.op_type, "input").compute)
            if bias is not None:
                total += bias
        y, stats = self._normalize(norm, total, gamma, beta, -1, epsilon)
        return (y,) if stats is None else (y, *rounded(FLOAT32, *stats), *rounded(x.dtype, total))


class SkipLayerNormalization(_Skip):
    """ONNX Runtime's LayerNorm of input + skip + bias."""

    def _compute(
        self, x: Array, skip: Array, gamma: Array, beta: Array | None = None, bias: Array | None = None, *,
        epsilon: float = _single(1e-12),
    ) -> tuple[Array, ...]:  # fmt: skip
        return self._normalize_sum(layer_norm, x, skip, gamma, beta, bias, epsilon)


class SkipSimplifiedLayerNormalization(_Skip):
    """ONNX Runtime's RMSNorm of input + skip + bias; its mean is 0."""

    def _compute(
        self, x: Array, skip: Array, gamma: Array, bias: Array | None = None, *, epsilon: float = _single(1e-12)
    ) -> tuple[Array, ...]:
        return self._normalize_sum(rms_norm, x, skip, gamma, None, bias, epsilon)


class MeanVarianceNormalization(Operator):
    """ONNX MeanVarianceNormalization-9 and -13, whose function adds 1e-9 to the standard deviation."""

    def _compute(self, x: Array, *, axes: tuple[int, ...]) -> tuple[Array, ...]:
        y, stats = standardize(x, axis=axes, return_stats=True)
        factor = 1.0 / (1.0 + 1e-9 * stats.rstd)
        if (factor.astype(y.dtype) != 1).any():  # small deviations, or float64
            np.multiply(y, factor, out=y, casting="unsafe")
        return (y,)


class LpNormalization(Operator):
    """ONNX LpNormalization-1 and -22; a line of zeros stays so in both."""

    def _compute(self, x: Array, *, axis: int, p: int) -> tuple[Array, ...]:
        return (lp_normalize(x, p=p, axis=axis),)
