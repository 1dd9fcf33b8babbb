"""Layer and root mean square normalization as layers: lines are the trailing axes of x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls
from fastnorm.nn.layer import Layer
from fastnorm.nn.state import Entry
from fastnorm.norms.layer import layer_norm, layer_norm_backward
from fastnorm.norms.rms import rms_norm, rms_norm_backward

Array = npt.NDArray[Any]


class LineLayer(Layer):
    """A layer that normalises the trailing axes of x, of a shape fixed when it is made."""

    weight = Entry("Of normalized_shape, the scale of each position, or None.")

    def __init__(self, normalized_shape: int | Sequence[int], elementwise_affine: bool) -> None:
        super().__init__()
        sizes: Sequence[Any] = (normalized_shape,)
        if isinstance(normalized_shape, Sequence) and not isinstance(normalized_shape, (str, bytes)):
            sizes = normalized_shape
        self.normalized_shape = tuple(
            arguments.integer(size, self._name, "normalized_shape", minimum=1) for size in sizes
        )
        if not self.normalized_shape:
            raise ValueError(f"{self._name}: normalized_shape must name at least one axis, got ()")
        self.elementwise_affine = arguments.flag(elementwise_affine, self._name, "elementwise_affine")

    @classmethod
    def _told_by(cls, state: Mapping[str, Array]) -> dict[str, Any]:
        told: dict[str, Any] = {"elementwise_affine": "weight" in state or "bias" in state}
        for name in ("weight", "bias"):
            if name in state:
                return told | {"normalized_shape": state[name].shape}
        return told

    def _axes(self, x: Array) -> tuple[int, ...]:
        """Return the axes of a line of x."""
        length = len(self.normalized_shape)
        if x.shape[-length:] != self.normalized_shape:
            wanted = ", ".join(map(str, self.normalized_shape))
            raise ValueError(f"{self._name}: x must have shape (..., {wanted}), got {x.shape}")
        return tuple(range(-length, 0))


class LayerNorm(LineLayer):
    """Normalise each line to mean 0 and variance 1, `fastnorm.layer_norm` as a layer.

    For x of (..., *normalized_shape). Ba, Kiros and Hinton, "Layer Normalization", 2016.
    The same in training and in inference.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The shape of a line, which is the last axis of x or several of the last.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    elementwise_affine : bool, default True
        Whether there are `weight` and `bias`, of `normalized_shape`.
    bias : bool, default True
        With False there is no `bias`, even if `elementwise_affine`.
    dtype : dtype, default float32
        Of the parameters. The result has that of x, as from the function.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x does not end in `normalized_shape`.

    Examples
    --------
    >>> from fastnorm import nn
    >>> nn.LayerNorm(3)([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]).round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [ 0.    ,  0.    ,  0.    ]])
    """

    bias = Entry("Of normalized_shape, the shift of each position, or None.")

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(normalized_shape, elementwise_affine)
        self.eps = arguments.number(eps, self._name, "eps", minimum=0)
        with_bias = self.elementwise_affine and arguments.flag(bias, self._name, "bias")
        self._add_affine(self.normalized_shape, self.elementwise_affine, with_bias, dtype)

    @classmethod
    def _told_by(cls, state: Mapping[str, Array]) -> dict[str, Any]:
        return super()._told_by(state) | {"bias": "bias" in state}

    def _forward(self, x: Array) -> Any:
        return layer_norm(x, self.weight, self.bias, axis=self._axes(x), eps=self.eps)

    def _backward(self, dy: Array, x: Array, training: bool) -> Any:
        return layer_norm_backward(dy, x, self.weight, axis=self._axes(x), eps=self.eps)

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the layer's repr.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.LayerNorm(8).extra_repr()
        '(8,), eps=1e-05, elementwise_affine=True, bias=True'
        """
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={'bias' in self._parameters}"
        )


class RMSNorm(LineLayer):
    """Scale each line to a root mean square of 1, `fastnorm.rms_norm` as a layer.

    For x of (..., *normalized_shape). Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    The same in training and in inference.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The shape of a line, which is the last axis of x or several of the last.
    eps : float or None, default None
        Added to the mean square; at least 0. None: the machine epsilon of the dtype that x is computed in, as in
        torch: 2^-52 where that is float64, else (float16 and bfloat16 too) float32's 2^-23.
    elementwise_affine : bool, default True
        Whether there is a `weight`, of `normalized_shape`.
    dtype : dtype, default float32
        Of the weight. The result has that of x, as from the function.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x does not end in `normalized_shape`.

    Examples
    --------
    >>> from fastnorm import nn
    >>> nn.RMSNorm(2)([3.0, 4.0]).round(4)
    array([0.8485, 1.1314])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(normalized_shape, elementwise_affine)
        self.eps = None if eps is None else arguments.number(eps, self._name, "eps", minimum=0)
        self._add_affine(self.normalized_shape, self.elementwise_affine, False, dtype)

    def _forward(self, x: Array) -> Any:
        return rms_norm(x, self.weight, axis=self._axes(x), eps=self._eps_for(x))

    def _backward(self, dy: Array, x: Array, training: bool) -> Any:
        return rms_norm_backward(dy, x, self.weight, axis=self._axes(x), eps=self._eps_for(x))

    def _eps_for(self, x: Array) -> float:
        if self.eps is not None:
            return self.eps
        return float(np.finfo(calls.compute_dtype(x, None, self._name)).eps)

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the layer's repr.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.RMSNorm(8).extra_repr()
        '(8,), eps=None, elementwise_affine=True'
        """
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
