"""Pixel normalization as a layer."""

from typing import Any

import numpy.typing as npt

from fastnorm import arguments
from fastnorm.gradients import Gradients
from fastnorm.nn.channels import channel_axis_repr, checked_channel_axis
from fastnorm.nn.layer import Layer
from fastnorm.norms.pixel import pixel_norm, pixel_norm_backward

Array = npt.NDArray[Any]


class PixelNorm(Layer):
    """Scale the channels of each pixel to a root mean square of 1, `fastnorm.pixel_norm` as a layer.

    For x of (N, C, ...). Karras et al., "Progressive Growing of GANs", 2018, section 4.2. It has no
    parameters.

    Parameters
    ----------
    eps : float, default 1e-8
        Added to the mean square; at least 0.
    channel_axis : int, default 1
        The axis of the channels; -1 for NHWC. Not 0.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x has no such axis.

    Examples
    --------
    >>> from fastnorm import nn
    >>> nn.PixelNorm()([[[1.0], [7.0]]]).ravel()
    array([0.2, 1.4])
    """

    def __init__(self, eps: float = 1e-8, *, channel_axis: int = 1) -> None:
        super().__init__()
        self.eps = arguments.number(eps, self._name, "eps", minimum=0)
        self.channel_axis = checked_channel_axis(channel_axis, self._name)

    def _forward(self, x: Array) -> Any:
        return pixel_norm(x, eps=self.eps, channel_axis=self.channel_axis)

    def _backward(self, dy: Array, x: Array, training: bool) -> Any:
        dx = pixel_norm_backward(dy, x, eps=self.eps, channel_axis=self.channel_axis)
        return Gradients(dx, None, None)

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the layer's repr.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.PixelNorm(channel_axis=-1).extra_repr()
        'eps=1e-08, channel_axis=-1'
        """
        return f"eps={self.eps}{channel_axis_repr(self.channel_axis)}"
