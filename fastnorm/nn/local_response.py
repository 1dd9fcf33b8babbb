"""Local response normalization as a layer."""

from typing import Any

import numpy.typing as npt

from fastnorm import arguments
from fastnorm.gradients import Gradients
from fastnorm.nn.channels import channel_axis_repr, checked_channel_axis
from fastnorm.nn.layer import Layer
from fastnorm.norms.local_response import local_response_norm, local_response_norm_backward

Array = npt.NDArray[Any]


class LocalResponseNorm(Layer):
    """Divide each element by its neighbourhood across channels, `fastnorm.local_response_norm` as a layer.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification", 2012, section 3.3; for x of (N, C, ...). It has no
    parameters.

    Parameters
    ----------
    size : int
        The number of channels in the window, at least 1.
    alpha, beta, k : float, default 1e-4, 0.75, 1
        The scale of the sum, the exponent, the offset.
    channel_axis : int, default 1
        The axis of the channels; -1 for NHWC. Not 0.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x has no such axis.

    Examples
    --------
    >>> from fastnorm import nn
    >>> nn.LocalResponseNorm(3, alpha=3.0, beta=1.0)([[1.0, 1.0, 1.0]])
    array([[0.33333333, 0.25      , 0.33333333]])
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, channel_axis: int = 1
    ) -> None:
        super().__init__()
        self.size = arguments.integer(size, self._name, "size", minimum=1)
        self.alpha = arguments.number(alpha, self._name, "alpha")
        self.beta = arguments.number(beta, self._name, "beta")
        self.k = arguments.number(k, self._name, "k")
        self.channel_axis = checked_channel_axis(channel_axis, self._name)

    def _forward(self, x: Array) -> Any:
        return local_response_norm(
            x, self.size, alpha=self.alpha, beta=self.beta, k=self.k, channel_axis=self.channel_axis
        )

    def _backward(self, dy: Array, x: Array, training: bool) -> Any:
        dx = local_response_norm_backward(
            dy, x, self.size, alpha=self.alpha, beta=self.beta, k=self.k, channel_axis=self.channel_axis
        )
        return Gradients(dx, None, None)

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the layer's repr.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.LocalResponseNorm(5).extra_repr()
        '5, alpha=0.0001, beta=0.75, k=1.0'
        """
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}{channel_axis_repr(self.channel_axis)}"
