"""The backward passes beside PyTorch's, statistics of the forward pass given to both, on the grid's training shapes.

PyTorch is asked for its native backward functions, without the cost of its autograd; for RMSNorm, which it composes,
for the gradient of a graph that is kept.

    python bench/backward.py [--rounds 7] [--only 'layer_norm *']
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import race

LIBRARIES = ("fastnorm", "torch")
CELLS = (
    "layer_norm 128x768", "layer_norm 1024x768", "layer_norm 4096x64", "layer_norm 65536x64", "layer_norm 4096x1024",
    "layer_norm 8192x4096", "layer_norm 65536x768", "rms_norm 128x4096", "rms_norm 4096x4096", "rms_norm 65536x128",
    "batch_norm 64x1024", "batch_norm 4096x256", "batch_norm 32x64x56x56", "batch_norm 32x256x14x14",
    "batch_norm 32x512x7x7", "group_norm 1x64x56x56", "group_norm 32x256x14x14", "group_norm 2x512x64x64",
    "instance_norm 1x64x56x56", "instance_norm 32x64x56x56", "instance_norm 1x32x256x256",
)  # fmt: skip
GROUPS = 32


def _arrays(cell: str) -> tuple[str, Any, Any, Any]:
    op, sizes = cell.split()
    shape = tuple(int(size) for size in sizes.split("x"))
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    channels = shape[-1] if op in ("layer_norm", "rms_norm") else shape[1]
    return op, x, dy, rng.standard_normal(channels, dtype=np.float32)


def _fastnorm(op: str, x: Any, dy: Any, weight: Any) -> Callable[[], object]:
    import fastnorm

    groups = (GROUPS,) if op == "group_norm" else ()
    options = {"training": True} if op == "batch_norm" else {}
    _, stats = getattr(fastnorm, op)(x, *groups, weight=weight, return_stats=True, **options)
    backward = getattr(fastnorm, f"{op}_backward")
    return lambda: backward(dy, x, *groups, weight, mean=stats.mean, rstd=stats.rstd, **options)


def _torch(op: str, x: Any, dy: Any, weight: Any) -> Callable[[], object]:
    import torch

    x, dy, weight = (torch.from_numpy(array) for array in (x, dy, weight))
    bias, wanted, native = torch.zeros_like(weight), [True] * 3, torch.ops.aten
    n, channels, positions = x.shape[0], x.shape[1], x[0, 0].numel() if x.ndim > 2 else 1
    if op == "layer_norm":
        _, mean, rstd = native.native_layer_norm(x, weight.shape, weight, bias, 1e-5)
        return lambda: native.native_layer_norm_backward(dy, x, weight.shape, mean, rstd, weight, bias, wanted)
    if op == "group_norm":
        _, mean, rstd = native.native_group_norm(x, weight, bias, n, channels, positions, GROUPS, 1e-5)
        return lambda: native.native_group_norm_backward(
            dy, x, mean, rstd, weight, n, channels, positions, GROUPS, wanted
        )
    if op == "rms_norm":
        x.requires_grad_()
        weight.requires_grad_()
        y = torch.nn.functional.rms_norm(x, weight.shape, weight, 1e-6)
        return lambda: torch.autograd.grad(y, (x, weight), dy, retain_graph=True)
    if op == "instance_norm":  # as PyTorch does it: a batch norm of one item
        x, dy = (array.reshape(1, n * channels, *x.shape[2:]) for array in (x, dy))
        weight = weight.repeat(n)
        bias = torch.zeros_like(weight)
    _, mean, rstd = native.native_batch_norm(x, weight, bias, None, None, True, 0.1, 1e-5)
    return lambda: native.native_batch_norm_backward(dy, x, weight, None, None, mean, rstd, True, 1e-5, wanted)


def build(library: str, cell: str) -> Callable[[], object]:
    """Return the call of a cell."""
    return (_fastnorm if library == "fastnorm" else _torch)(*_arrays(cell))


if __name__ == "__main__":
    race.main(__file__)
