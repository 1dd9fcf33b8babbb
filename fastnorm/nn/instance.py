"""Instance normalization as a layer."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.nn.masked import MaskedLayer
from fastnorm.nn.running import RunningLayer
from fastnorm.nn.state import Entry
from fastnorm.norms.batch import batch_norm, batch_norm_backward
from fastnorm.norms.conventions import TORCH, check_momentum, update_running
from fastnorm.norms.group import instance_norm, instance_norm_backward
from fastnorm.recipe import Moments
from fastnorm.stats.moments import moments

Array = npt.NDArray[Any]

_UNBIASED = TORCH._replace(unbiased=False)  # of variances that are unbiased already


class InstanceNorm(RunningLayer, MaskedLayer):
    """Instance normalization of any of its numbers of dimensions, without and with a batch; see `InstanceNorm1d`."""

    num_batches_tracked = Entry("(), int64: 0 for ever, as in torch, or None.")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        channel_axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, channel_axis=channel_axis, dtype=dtype
        )

    def _is_by_batch(self, training: bool) -> bool:
        return training or not self.track_running_stats  # whether there are running ones or not, as in torch

    def _forward(self, x: Array, where: Array | None = None, weights: Array | None = None) -> Any:
        self._check_dimensions(x)
        unbatched = x.ndim == min(self._dimensions)
        batch = x[np.newaxis] if unbatched else x
        self._check_channels(batch)
        result = self._normalize(batch, where, weights)
        return result[0] if unbatched else result

    def _normalize(self, x: Array, where: Array | None, weights: Array | None) -> Any:
        options: dict[str, Any] = {"eps": self.eps, "channel_axis": self.channel_axis}
        if not self._uses_batch:
            return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, **options)
        channel = arguments.channel_index(x, self.channel_axis, self._name)
        positions = tuple(axis for axis in range(1, x.ndim) if axis != channel)
        if prod(x.shape[axis] for axis in positions) == 1:
            raise ValueError(f"{self._name}: x must have more than one value per channel, got shape {x.shape}")
        momentum = None if self.momentum is None else check_momentum(self.momentum, self._name)
        moved = self._updates and x.size and momentum is not None
        seen = self._statistics_seen(x, positions, where, weights) if moved else None
        result = instance_norm(x, self.weight, self.bias, **options, where=where, weights=weights)
        if seen is not None and momentum is not None:
            update_running(self.running_mean, self.running_var, seen, 1, momentum, _UNBIASED)
        return result

    def _statistics_seen(
        self, x: Array, positions: tuple[int, ...], where: Array | None, weights: Array | None
    ) -> Moments:
        """Return the means of the items, averaged, and their unbiased variances, averaged; items of padding left out.

        Raises
        ------
        ValueError
            An item counts, but for too little to have an unbiased variance, or none does.
        """
        counts = arguments.element_weights(weights, where, x.shape, self._name)
        counting: Any = np.True_
        if counts is not None:
            totals = counts.sum(axis=positions)
            counting = totals > 0
            # Of each channel: the least of an item that counts; 0 where none does.
            least = np.where(counting.any(axis=0), np.where(counting, totals, np.inf).min(axis=0), 0.0).min()
            if least <= 1:
                raise ValueError(
                    f"{self._name}: where and weights must add up to more than 1 in each channel of an item, or to 0 "
                    f"in some items of several, for an unbiased running variance, got {least:g}"
                )
            # Items of padding have no moments; theirs are taken as they are and left out.
            counts = np.where(np.expand_dims(counting, positions), counts, 1.0)
        found = moments(x, axis=positions, ddof=1, weights=counts)
        with np.errstate(all="ignore"):  # NaN and infinity stay in their channel
            mean, var = (np.mean(part, axis=0, where=counting) for part in (found.mean, found.var))
        return Moments(mean, np.zeros_like(mean), var)

    def _backward(
        self, dy: Array, x: Array, training: bool, where: Array | None = None, weights: Array | None = None
    ) -> Any:
        unbatched = x.ndim == min(self._dimensions)
        if unbatched:
            dy, x = dy[np.newaxis], x[np.newaxis]
        options: dict[str, Any] = {"eps": self.eps, "channel_axis": self.channel_axis}
        statistics = self._statistics_of(training)
        if statistics["training"]:
            found = instance_norm_backward(dy, x, self.weight, **options, where=where, weights=weights)
        else:
            found = batch_norm_backward(dy, x, self.weight, **statistics, **options)
        return found._replace(dx=found.dx[0]) if unbatched else found


class InstanceNorm1d(InstanceNorm):
    """Normalise each channel of each item, `fastnorm.instance_norm` as a layer, for x of (N, C, L) or (C, L).

    Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016. By the mean and the variance of the item itself;
    in inference by the running ones, if the layer tracks them.

    ``layer(x, where=..., weights=...)`` takes the statistics of the elements that count, as `fastnorm.instance_norm`
    does; items in which nothing counts move no running statistics.

    Parameters
    ----------
    num_features : int
        C, at least 1.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    momentum : float or None, default 0.1
        The weight of a new batch in the running statistics, from 0 to 1: of the items' means, averaged, and of their
        unbiased variances, averaged. None leaves them as they are, as in torch, which does not count the batches of
        this layer either.
    affine : bool, default False
        Whether there are `weight` and `bias`, (C,).
    track_running_stats : bool, default False
        Whether there are `running_mean` and `running_var`, (C,), and `num_batches_tracked`, ().
    bias : bool, default True
        With False there is no `bias`, even if `affine`.
    channel_axis : int, default 1
        The axis of the channels in a batch; -1 where they come last. Not 0.
    dtype : dtype, default float32
        Of the parameters and the running statistics. The result has that of x, as from the function.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit. When called, ValueError: x has another number of dimensions or of channels, or one
        value per channel to take statistics of; nothing has changed then.

    Warns
    -----
    UserWarning
        When called: x has another number of channels, and no array of the layer depends on it.

    Examples
    --------
    >>> from fastnorm import nn
    >>> nn.InstanceNorm1d(2)([[[1.0, 3.0], [10.0, 10.0]]]).round(4)
    array([[[-1.,  1.],
            [ 0.,  0.]]])
    """

    _dimensions: ClassVar[tuple[int, ...]] = (2, 3)


class InstanceNorm2d(InstanceNorm):
    """Normalise each channel of each item, `fastnorm.instance_norm` as a layer, for x of (N, C, H, W) or (C, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, channel_axis, dtype
        As in `InstanceNorm1d`; ``channel_axis=-1`` for (N, H, W, C) or (H, W, C).

    Raises
    ------
    TypeError, ValueError
        As in `InstanceNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.InstanceNorm2d(3, channel_axis=-1)(np.ones((8, 8, 3), np.float32)).shape
    (8, 8, 3)
    """

    _dimensions: ClassVar[tuple[int, ...]] = (3, 4)


class InstanceNorm3d(InstanceNorm):
    """Normalise each channel of each item, `fastnorm.instance_norm` as a layer.

    For x of (N, C, D, H, W) or (C, D, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, channel_axis, dtype
        As in `InstanceNorm1d`; ``channel_axis=-1`` for (N, D, H, W, C) or (D, H, W, C).

    Raises
    ------
    TypeError, ValueError
        As in `InstanceNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.InstanceNorm3d(3, affine=True)(np.ones((2, 3, 4, 4, 4), np.float32)).shape
    (2, 3, 4, 4, 4)
    """

    _dimensions: ClassVar[tuple[int, ...]] = (4, 5)
