"""ONNX's norms of channels, which are the second axis."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.norms.batch import batch_norm
from fastnorm.norms.group import group_norm, instance_norm
from fastnorm.norms.local_response import local_response_norm
from fastnorm.onnx.base import Operator, rounded
from fastnorm.stats.moments import moments

Array = npt.NDArray[Any]


class BatchNormalization(Operator):
    """ONNX BatchNormalization-7 to -15.

    It trains where training_mode says so, before opset 14 where the node names more outputs than Y: momentum weighs the
    old statistics, the variance is the biased one. Of -7's `spatial` there is the default alone: a mean a channel.
    """

    def _compute(
        self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float, momentum: float,
        training_mode: int, spatial: int = 1,
    ) -> tuple[Array, ...]:  # fmt: skip
        opset = self.run_params["opsets"][self.domain]
        count = max(place for place, name in enumerate(self.output, start=1) if name)
        if opset < 7:
            raise ValueError(f"{self.op_type}: the opset must be at least 7, got {opset}")
        if opset >= 14 and count > 1 and not training_mode:
            raise ValueError(f"{self.op_type}: there is 1 output unless training_mode is 1, the node names {count}")
        batch = x if x.ndim > 1 else x.reshape(-1, 1)  # one channel
        if count == 1 and not training_mode:
            return (batch_norm(batch, mean, var, scale, bias, eps=epsilon).reshape(x.shape),)
        mean, var = mean.copy(), var.copy()
        y = batch_norm(
            batch, mean, var, scale, bias, training=True, momentum=momentum, eps=epsilon, convention="onnx"
        ).reshape(x.shape)
        if count <= 3:
            return y, mean, var
        saved = moments(batch, axis=(0, *range(2, batch.ndim)))
        return y, mean, var, *rounded(mean.dtype, saved.mean, saved.var)


class InstanceNormalization(Operator):
    """ONNX InstanceNormalization-6 to -22."""

    def _compute(self, x: Array, scale: Array, bias: Array, *, epsilon: float) -> tuple[Array, ...]:
        return (instance_norm(x, scale, bias, eps=epsilon),)


class GroupNormalization(Operator):
    """ONNX GroupNormalization: scale and bias of each channel, in opset 18 of each group."""

    def _compute(
        self, x: Array, scale: Array, bias: Array, *, epsilon: float, num_groups: int, stash_type: np.dtype[Any]
    ) -> tuple[Array, ...]:
        if self.run_params["opsets"][self.domain] < 21:
            arguments.parameter(scale, (num_groups,), self.op_type, "scale")
            arguments.parameter(bias, (num_groups,), self.op_type, "bias")
            channels = arguments.channel_index(x, 1, self.op_type)
            scale, bias = (np.repeat(part, x.shape[channels] // num_groups) for part in (scale, bias))
        return (group_norm(x, num_groups, scale, bias, eps=epsilon),)


class LRN(Operator):
    """ONNX LRN-1 and -13."""

    def _compute(self, x: Array, *, alpha: float, beta: float, bias: float, size: int) -> tuple[Array, ...]:
        # An even window begins a channel later than fastnorm's: there it is the same, seen from the last channel.
        order = np.s_[:, ::-1] if size % 2 == 0 and x.ndim > 1 else np.s_[:]
        return (local_response_norm(x[order], size, alpha=alpha, beta=beta, k=bias)[order],)
