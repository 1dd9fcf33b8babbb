"""Batch normalization as a layer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fastnorm.nn.masked import MaskedLayer
from fastnorm.nn.running import RunningLayer
from fastnorm.nn.state import Entry
from fastnorm.norms.batch import batch_norm, batch_norm_backward
from fastnorm.norms.conventions import LEFT_OPEN, ConventionName, find_convention, left_open

Array = npt.NDArray[Any]


class BatchNorm(RunningLayer, MaskedLayer):
    """Batch normalization of any of its numbers of dimensions; see `BatchNorm1d`."""

    num_batches_tracked = Entry("(), int64: how many batches the running statistics have seen, or None.")

    def __init__(
        self,
        num_features: int,
        eps: float | Literal["convention"] = LEFT_OPEN,
        momentum: float | Literal["convention"] | None = LEFT_OPEN,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        channel_axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
        convention: ConventionName = "torch",
    ) -> None:
        rules = find_convention(convention, self._name)
        if isinstance(eps, str):
            eps = left_open(eps, rules.eps, self._name, "eps")
        if isinstance(momentum, str):
            momentum = left_open(momentum, rules.momentum, self._name, "momentum")
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, channel_axis=channel_axis, dtype=dtype
        )
        self.convention = convention

    def _options_repr(self) -> str:
        shown = "" if self.convention == "torch" else f", convention={self.convention!r}"
        return super()._options_repr() + shown

    def _forward(self, x: Array, where: Array | None = None, weights: Array | None = None) -> Any:
        self._check_dimensions(x)
        self._check_channels(x)
        mean, var = self._statistics()
        seen = self.num_batches_tracked if self._updates else None
        if seen is not None and seen < 0:
            raise ValueError(f"{self._name}: num_batches_tracked must be at least 0, got {seen}")
        momentum = self.momentum
        if momentum is None:  # the average of all batches
            new = 0.0 if seen is None else 1.0 / (int(seen) + 1)
            momentum = 1.0 - new if find_convention(self.convention, self._name).old_weighs else new
        result = batch_norm(
            x, mean, var, self.weight, self.bias,
            training=self._uses_batch, momentum=momentum, eps=self.eps, channel_axis=self.channel_axis,
            convention=self.convention, where=where, weights=weights,
        )  # fmt: skip
        if seen is not None:
            seen += 1
        return result

    def _backward(
        self, dy: Array, x: Array, training: bool, where: Array | None = None, weights: Array | None = None
    ) -> Any:
        statistics = self._statistics_of(training)
        return batch_norm_backward(
            dy, x, self.weight, **statistics, eps=self.eps, channel_axis=self.channel_axis,
            convention=self.convention, where=where, weights=weights,
        )  # fmt: skip


class BatchNorm1d(BatchNorm):
    """Normalise each channel over the batch, `fastnorm.batch_norm` as a layer, for x of (N, C) or (N, C, L).

    Ioffe and Szegedy, "Batch Normalization", 2015. In training by the mean and the variance of the batch, and the
    running ones move towards them (the variance unbiased); in inference by the running ones. A layer without running
    statistics always uses those of the batch.

    ``layer(x, where=..., weights=...)`` takes the statistics of the elements that count, as `fastnorm.batch_norm` does.

    Parameters
    ----------
    num_features : int
        C, at least 1.
    eps : float, default that of the convention
        Added to the variance; at least 0. 1e-5, with "keras" 1e-3.
    momentum : float or None, default that of the convention
        From 0 to 1: the weight of a new batch in the running statistics ("torch", 0.1) or that of the old ones
        ("keras" and "flax", 0.99; "onnx", 0.9). None: 1 / ``num_batches_tracked`` for a new batch, so that they are
        the averages over all batches.
    affine : bool, default True
        Whether there are `weight` and `bias`, (C,).
    track_running_stats : bool, default True
        Whether there are `running_mean` and `running_var`, (C,), and `num_batches_tracked`, ().
    bias : bool, default True
        With False there is no `bias`, even if `affine`.
    channel_axis : int, default 1
        The axis of the channels; -1 where they come last. Not 0.
    dtype : dtype, default float32
        Of the parameters and the running statistics. The result has that of x, as from the function.
    convention : {"torch", "keras", "onnx", "flax"}, default "torch"
        The library whose rule the running statistics follow, and whose defaults hold; as in `fastnorm.batch_norm`.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x has another number of dimensions or of channels, or in
        training fewer values per channel than the convention needs; nothing has changed then.

    Warns
    -----
    UserWarning
        When called: x has another number of channels, and no array of the layer depends on it.

    Examples
    --------
    >>> from fastnorm import nn
    >>> layer = nn.BatchNorm1d(3)
    >>> layer([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])[0].round(4)
    array([-1.2247, -1.2247, -1.2247])
    >>> layer.running_mean
    array([0.3, 0.4, 0.5], dtype=float32)
    >>> layer.eval()([[1.3, 1.4, 1.5]]).round(4)
    array([[0.7454, 0.7454, 0.7454]])
    """

    _dimensions: ClassVar[tuple[int, ...]] = (2, 3)


class BatchNorm2d(BatchNorm):
    """Normalise each channel over the batch, `fastnorm.batch_norm` as a layer, for x of (N, C, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, channel_axis, dtype, convention
        As in `BatchNorm1d`; ``channel_axis=-1`` for (N, H, W, C).

    Raises
    ------
    TypeError, ValueError
        As in `BatchNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> layer = nn.BatchNorm2d(3, channel_axis=-1)
    >>> layer(np.ones((2, 8, 8, 3), np.float32)).shape
    (2, 8, 8, 3)
    """

    _dimensions: ClassVar[tuple[int, ...]] = (4,)


class BatchNorm3d(BatchNorm):
    """Normalise each channel over the batch, `fastnorm.batch_norm` as a layer, for x of (N, C, D, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, channel_axis, dtype, convention
        As in `BatchNorm1d`; ``channel_axis=-1`` for (N, D, H, W, C).

    Raises
    ------
    TypeError, ValueError
        As in `BatchNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.BatchNorm3d(3)(np.ones((2, 3, 4, 4, 4), np.float32)).shape
    (2, 3, 4, 4, 4)
    """

    _dimensions: ClassVar[tuple[int, ...]] = (5,)
