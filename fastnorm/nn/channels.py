"""What layers with a weight and a bias a channel have in common: the axis of the channels and its length."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from fastnorm import arguments
from fastnorm.nn.layer import Layer
from fastnorm.nn.state import Entry

Array = npt.NDArray[Any]


class ChannelLayer(Layer):
    """A layer whose weight and bias belong to channels.

    Parameters
    ----------
    channels : int
        C, at least 1.
    eps : float
        Added to the variance; at least 0.
    affine : bool
        Whether there is a weight, ones at first.
    bias : bool
        Whether there is a bias too, zeros at first.
    channel_axis : int
        The axis of the channels, not 0.
    dtype : dtype
        Of the weight and the bias.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.
    """

    # How many dimensions x may have; none: what the function accepts.
    _dimensions: ClassVar[tuple[int, ...]] = ()
    # What the number of channels is called.
    _channels_name: ClassVar[str] = "num_features"

    weight = Entry("(C,), the scale of each channel, or None.")
    bias = Entry("(C,), the shift of each channel, or None.")

    def __init__(
        self, channels: int, eps: float, affine: bool, bias: bool, channel_axis: int, dtype: npt.DTypeLike
    ) -> None:
        super().__init__()
        self._channels = arguments.integer(channels, self._name, self._channels_name, minimum=1)
        self.eps = arguments.number(eps, self._name, "eps", minimum=0)
        self.affine = arguments.flag(affine, self._name, "affine")
        self.channel_axis = checked_channel_axis(channel_axis, self._name)
        with_bias = arguments.flag(bias, self._name, "bias")
        self._add_affine((self._channels,), self.affine, self.affine and with_bias, dtype)

    @classmethod
    def _told_by(cls, state: Mapping[str, Array]) -> dict[str, Any]:
        told: dict[str, Any] = {"affine": "weight" in state or "bias" in state, "bias": "bias" in state}
        for name in ("weight", "bias", "running_mean", "running_var"):
            if name in state:  # of another shape than (C,) where the layer takes those, (1, C, 1, 1)
                return told | {cls._channels_name: max(state[name].shape, default=1)}
        return told

    def _check_dimensions(self, x: Array) -> None:
        if self._dimensions and x.ndim not in self._dimensions:
            wanted = " or ".join(map(str, self._dimensions))
            raise ValueError(f"{self._name}: x must have {wanted} dimensions, got {x.ndim}: shape {x.shape}")

    def _check_channels(self, x: Array) -> None:
        """Check how many channels a batch has; as torch does, only warn where no array of the layer depends on it.

        To be called by `_forward` itself: the warning is for the line that calls the layer.
        """
        index = arguments.channel_index(x, self.channel_axis, self._name)
        if x.shape[index] == self._channels:
            return
        message = (
            f"{self._name}: x must have {self._channels} channels ({self._channels_name}) along axis "
            f"{self.channel_axis}, got {x.shape[index]}: shape {x.shape}"
        )
        if self._entries():
            raise ValueError(message)
        warnings.warn(message, stacklevel=4)

    def _options_repr(self) -> str:
        """The end of the repr: `channel_axis` where it is not torch's."""
        return channel_axis_repr(self.channel_axis)


def checked_channel_axis(channel_axis: int, name: str) -> int:
    """Return the axis of the channels, which is not that of the batch."""
    axis = arguments.integer(channel_axis, name, "channel_axis")
    if axis == 0:
        raise ValueError(f"{name}: channel_axis must not be 0, the batch axis")
    return axis


def channel_axis_repr(channel_axis: int) -> str:
    """Return how a repr shows the axis of the channels: not at all where it is torch's."""
    return "" if channel_axis == 1 else f", channel_axis={channel_axis}"
