"""Group normalization as a layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.nn.channels import ChannelLayer
from fastnorm.nn.masked import MaskedLayer
from fastnorm.norms.group import group_norm, group_norm_backward

Array = npt.NDArray[Any]


class GroupNorm(ChannelLayer, MaskedLayer):
    """Normalise groups of adjacent channels of each item, `fastnorm.group_norm` as a layer, for x of (N, C, ...).

    Wu and He, "Group Normalization", 2018. The same in training and in inference.

    ``layer(x, where=..., weights=...)`` takes the statistics of the elements that count, as `fastnorm.group_norm` does.

    Parameters
    ----------
    num_groups : int
        How many groups the channels make; divides `num_channels`.
    num_channels : int
        C, at least 1.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    affine : bool, default True
        Whether there are `weight` and `bias`, (C,).
    bias : bool, default True
        With False there is no `bias`, even if `affine`.
    channel_axis : int, default 1
        The axis of the channels; -1 for NHWC. Not 0.
    dtype : dtype, default float32
        Of the parameters. The result has that of x, as from the function.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x has another number of channels.

    Warns
    -----
    UserWarning
        When called: x has another number of channels, and the layer has no weight and no bias.

    Examples
    --------
    >>> from fastnorm import nn
    >>> nn.GroupNorm(2, 4)([[0.0, 2.0, 10.0, 30.0]]).round(4)
    array([[-1.,  1., -1.,  1.]])
    """

    _channels_name: ClassVar[str] = "num_channels"

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        channel_axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_channels, eps, affine, bias, channel_axis, dtype)
        self.num_groups = arguments.integer(num_groups, self._name, "num_groups", minimum=1)
        if self.num_channels % self.num_groups:
            raise ValueError(
                f"{self._name}: num_groups must divide num_channels, got {self.num_groups} and {self.num_channels}"
            )

    @property
    def num_channels(self) -> int:
        """The number of channels."""
        return self._channels

    def _forward(self, x: Array, where: Array | None = None, weights: Array | None = None) -> Any:
        self._check_channels(x)
        return group_norm(
            x, self.num_groups, self.weight, self.bias,
            eps=self.eps, channel_axis=self.channel_axis, where=where, weights=weights,
        )  # fmt: skip

    def _backward(
        self, dy: Array, x: Array, training: bool, where: Array | None = None, weights: Array | None = None
    ) -> Any:
        return group_norm_backward(
            dy, x, self.num_groups, self.weight,
            eps=self.eps, channel_axis=self.channel_axis, where=where, weights=weights,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the layer's repr.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.GroupNorm(2, 4).extra_repr()
        '2, 4, eps=1e-05, affine=True, bias=True'
        """
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={'bias' in self._parameters}{self._options_repr()}"
        )
