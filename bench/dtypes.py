"""float16 and bfloat16 beside PyTorch's, parameters of the same dtype, forward and backward.

python bench/dtypes.py [--rounds 7] [--only '* bfloat16']
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import race

LIBRARIES = ("fastnorm", "torch")
GROUPS = 32
SHAPES = {
    "layer_norm": ("128x768", "1024x768", "4096x4096"),
    "rms_norm": ("128x768", "1024x768", "4096x4096"),
    "l2_normalize": ("4096x384",),
    "batch_norm": ("4096x256", "1x64x56x56", "32x64x56x56"),
    "batch_norm_train": ("4096x256", "32x64x56x56"),
    "group_norm": ("32x256x14x14", "2x320x64x64"),
    "instance_norm": ("32x64x56x56",),
    "layer_norm_backward": ("1024x768", "4096x4096"),
    "batch_norm_backward": ("4096x256", "32x64x56x56"),
}
CELLS = tuple(f"{op} {shape} {dtype}" for dtype in ("float16", "bfloat16") for op in SHAPES for shape in SHAPES[op])


def _ours(op: str, x: Any, dy: Any, weight: Any, bias: Any) -> Callable[[], object]:
    import fastnorm

    mean, var = np.zeros(len(weight), np.float32), np.ones(len(weight), np.float32)
    calls: dict[str, Callable[[], object]] = {
        "layer_norm": lambda: fastnorm.layer_norm(x, weight, bias),
        "rms_norm": lambda: fastnorm.rms_norm(x, weight),
        "l2_normalize": lambda: fastnorm.l2_normalize(x),
        "batch_norm": lambda: fastnorm.batch_norm(x, mean, var, weight, bias),
        "batch_norm_train": lambda: fastnorm.batch_norm(x, None, None, weight, bias, training=True),
        "group_norm": lambda: fastnorm.group_norm(x, GROUPS, weight, bias),
        "instance_norm": lambda: fastnorm.instance_norm(x, weight, bias),
        "layer_norm_backward": lambda: fastnorm.layer_norm_backward(dy, x, weight),
        "batch_norm_backward": lambda: fastnorm.batch_norm_backward(dy, x, weight, training=True),
    }
    return calls[op]


def _torch(op: str, x: Any, dy: Any, weight: Any, bias: Any) -> Callable[[], object]:
    import torch
    from torch.nn import functional

    lines = x.shape[-1:]
    mean, var = torch.zeros_like(weight), torch.ones_like(weight)
    calls: dict[str, Callable[[], Any]] = {
        "layer_norm": lambda: functional.layer_norm(x, lines, weight, bias),
        "rms_norm": lambda: functional.rms_norm(x, lines, weight, 1e-6),
        "l2_normalize": lambda: functional.normalize(x, dim=-1),
        "batch_norm": lambda: functional.batch_norm(x, mean, var, weight, bias),
        "batch_norm_train": lambda: functional.batch_norm(x, None, None, weight, bias, training=True),
        "group_norm": lambda: functional.group_norm(x, GROUPS, weight, bias),
        "instance_norm": lambda: functional.instance_norm(x, weight=weight, bias=bias),
    }
    forward = calls[{"batch_norm_backward": "batch_norm_train"}.get(op, op.removesuffix("_backward"))]
    torch.set_grad_enabled(op.endswith("_backward"))
    if not op.endswith("_backward"):
        return forward
    arguments = tuple(tensor.requires_grad_() for tensor in (x, weight, bias))
    y = forward()
    return lambda: torch.autograd.grad(y, arguments, dy, retain_graph=True)


def build(library: str, cell: str) -> Callable[[], object]:
    """Return the call of a cell."""
    op, sizes, dtype = cell.split()
    shape = tuple(int(size) for size in sizes.split("x"))
    parameters = shape[-1:] if op.startswith(("layer", "rms", "l2")) else shape[1:2]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size, dtype=np.float32) for size in (shape, shape, parameters, parameters)]
    if library == "fastnorm":
        import ml_dtypes

        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
        return _ours(op, *(array.astype(kind) for array in arrays))
    import torch

    return _torch(op, *(torch.from_numpy(array).to(getattr(torch, dtype)) for array in arrays))


if __name__ == "__main__":
    race.main(__file__)
