"""Switchable normalization as a layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnorm.nn.running import RunningLayer
from fastnorm.nn.state import Entry
from fastnorm.norms.conventions import check_momentum
from fastnorm.norms.switchable import switchable_norm, switchable_norm_backward

Array = npt.NDArray[Any]


class SwitchableNorm2d(RunningLayer):
    """Normalise by a learned mixture of statistics, `fastnorm.switchable_norm` as a layer, for x of (N, C, H, W).

    Luo et al., "Differentiable Learning-to-Normalize via Switchable Normalization", 2018: mean and variance are each
    a sum of those of the instance, the layer and the batch, weighted by the softmax of `mean_weight` and
    `var_weight`, (3,), ones at first. In training those of the batch move the running ones, which stand for them in
    inference, as in `BatchNorm2d`.

    Parameters
    ----------
    num_features : int
        C, at least 1.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    momentum : float, default 0.1
        The weight of a new batch in the running statistics, from 0 to 1 (1 less the authors' momentum).
    affine : bool, default True
        Whether there are `weight` and `bias`, (C,).
    track_running_stats : bool, default True
        Whether there are `running_mean` and `running_var`, (C,).
    bias : bool, default True
        With False there is no `bias`, even if `affine`.
    channel_axis : int, default 1
        The axis of the channels; -1 for (N, H, W, C). Not 0.
    dtype : dtype, default float32
        Of the parameters and the running statistics. The result has that of x, as from the function.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x has another number of dimensions or of channels, or in
        training one value per channel; nothing has changed then.

    Notes
    -----
    The keys of the state_dict are those of the authors' implementation for torch, and `load_state_dict` takes its
    arrays of shape (1, C, 1, 1) too.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> layer = nn.SwitchableNorm2d(2)
    >>> layer.mean_weight = layer.var_weight = [50.0, 0.0, 0.0]  # the instance alone
    >>> layer(np.arange(8.0).reshape(2, 2, 1, 2)).round(4)[0, 0]
    array([[-1.,  1.]])
    """

    _dimensions: ClassVar[tuple[int, ...]] = (4,)
    _counts_batches: ClassVar[bool] = False

    mean_weight = Entry("(3,): the weights of the instance's, the layer's and the batch's mean, before the softmax.")
    var_weight = Entry("(3,): the weights of the instance's, the layer's and the batch's variance, before the softmax.")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        channel_axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        check_momentum(momentum, self._name)  # None would need a count of the batches
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, channel_axis=channel_axis, dtype=dtype
        )
        for name in ("mean_weight", "var_weight"):
            self._parameters[name] = np.ones(3, self._parameter_dtype(dtype))

    def _forward(self, x: Array) -> Any:
        self._check_dimensions(x)
        self._check_channels(x)
        return switchable_norm(
            x, self._parameters["mean_weight"], self._parameters["var_weight"], self.weight, self.bias,
            *self._statistics(),
            training=self._uses_batch, momentum=check_momentum(self.momentum, self._name), eps=self.eps,
            channel_axis=self.channel_axis,
        )  # fmt: skip

    def _backward(self, dy: Array, x: Array, training: bool) -> Any:
        return switchable_norm_backward(
            dy, x, self._parameters["mean_weight"], self._parameters["var_weight"], self.weight,
            **self._statistics_of(training), eps=self.eps, channel_axis=self.channel_axis,
        )  # fmt: skip

    def _shape_fits(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        without_ones = tuple(size for size in shape if size > 1)
        return shape == wanted or (len(shape) > 1 and without_ones == tuple(size for size in wanted if size > 1))
