"""What layers with running statistics have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.nn.channels import ChannelLayer
from fastnorm.nn.state import Entry
from fastnorm.norms.conventions import check_momentum

Array = npt.NDArray[Any]


class RunningLayer(ChannelLayer):
    """A layer that can keep running statistics of its channels; the parameters are those of `BatchNorm1d`."""

    # Whether the batches are counted.
    _counts_batches: ClassVar[bool] = True

    running_mean = Entry("(C,), zeros at first, or None.")
    running_var = Entry("(C,), ones at first, or None.")

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        *,
        bias: bool,
        channel_axis: int,
        dtype: npt.DTypeLike,
    ) -> None:
        super().__init__(num_features, eps, affine, bias, channel_axis, dtype)
        self.momentum = None if momentum is None else check_momentum(momentum, self._name)
        self.track_running_stats = arguments.flag(track_running_stats, self._name, "track_running_stats")
        if self.track_running_stats:
            kind = self._parameter_dtype(dtype)
            self._buffers["running_mean"] = np.zeros(self.num_features, kind)
            self._buffers["running_var"] = np.ones(self.num_features, kind)
            if self._counts_batches:
                self._buffers["num_batches_tracked"] = np.zeros((), np.int64)

    @classmethod
    def _told_by(cls, state: Mapping[str, Array]) -> dict[str, Any]:
        tracked = "running_mean" in state or "running_var" in state
        return super()._told_by(state) | {"track_running_stats": tracked}

    @property
    def num_features(self) -> int:
        """The number of channels."""
        return self._channels

    def reset_running_stats(self) -> None:
        """Forget the batches seen: mean 0, variance 1, in place; such as to take them again with ``momentum=None``.

        Examples
        --------
        >>> from fastnorm import nn
        >>> layer = nn.BatchNorm1d(1)
        >>> y = layer([[1.0], [3.0]])
        >>> layer.reset_running_stats()
        >>> layer.running_mean, layer.running_var, layer.num_batches_tracked
        (array([0.], dtype=float32), array([1.], dtype=float32), array(0))
        """
        for name, buffer in self._buffers.items():
            buffer[...] = name == "running_var"

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the layer's repr.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.BatchNorm2d(3).extra_repr()
        '3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True'
        """
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={'bias' in self._parameters}, track_running_stats={self.track_running_stats}"
            f"{self._options_repr()}"
        )

    @property
    def _uses_batch(self) -> bool:
        return self._is_by_batch(self.training)

    def _is_by_batch(self, training: bool) -> bool:
        """Whether the statistics are those of the batch: in training, and where there are no others."""
        return training or not self._buffers

    def _statistics_of(self, training: bool) -> dict[str, Any]:
        """The keywords by which a backward pass knows the statistics of a call in that mode."""
        if self._is_by_batch(training):
            return {"training": True}
        return {"training": False, "running_mean": self.running_mean, "running_var": self.running_var}

    @property
    def _updates(self) -> bool:
        """Whether the running statistics move."""
        return self.training and self.track_running_stats and bool(self._buffers)

    def _statistics(self) -> tuple[Array | None, Array | None]:
        """The running statistics that a call uses or moves; none if it does neither."""
        if self._uses_batch and not self._updates:
            return None, None
        return self.running_mean, self.running_var
