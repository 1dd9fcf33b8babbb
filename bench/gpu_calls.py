"""What `bench/gpu.py` calls: the lines of its table, small calls that take every path, and PyTorch's beside ours."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import fastnorm
from fastnorm.backends.cuda import compat

Call = Callable[..., Any]

ROWS = ((8192, 1024), (8192, 4096), (8192, 8192), (32768, 768), (4096, 32768))
IMAGES = ((32, 256, 56, 56), (128, 64, 112, 112))
# The unit roundoff of a dtype, and how many of them a result may be away: bfloat16's is float32's, rounded once.
ROUNDOFF = {"float32": 2.0**-24, "bfloat16": 2.0**-8}
BOUND = {"float32": 8.0, "bfloat16": 1.1}


class Cell(NamedTuple):
    """One line of the table. `passes` is how often an array of x's size has to be read or written."""

    op: str
    shape: tuple[int, ...]
    dtype: str
    passes: int = 2
    aim: float = 0.9

    @property
    def name(self) -> str:
        """What `--only` matches."""
        return f"{self.op} {'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def bytes(self) -> int:
        """The size of x."""
        return math.prod(self.shape) * (4 if self.dtype == "float32" else 2)

    @property
    def channels(self) -> int:
        """How many parameters there are."""
        return self.shape[-1] if len(self.shape) == 2 else self.shape[1]


def cells() -> Iterator[Cell]:
    """Yield the table's lines."""
    for op, shapes, passes, aim in (
        ("layer_norm", ROWS, 2, 0.9),
        ("rms_norm", ROWS, 2, 0.9),
        ("layer_norm_backward", ROWS, 3, 0.8),
        ("rms_norm_backward", ROWS, 3, 0.8),
        ("batch_norm inference", IMAGES, 2, 0.9),
        ("batch_norm training", IMAGES, 3, 0.8),
    ):
        for shape in shapes:
            for dtype in ROUNDOFF:
                yield Cell(op, shape, dtype, passes, aim)


def small_cells() -> Iterator[Cell]:
    """Yield a cell for every path: each step of the ladder of rows and beyond it, lanes, channels, odd lengths."""
    lengths = (3, 40, 140) if compat.SIMULATED else (8, 64, 768, 1023, 4096, 8192, 32768, 70001)
    images = ((3, 4, 2, 6),) if compat.SIMULATED else ((3, 8, 14, 14), (2, 8, 7, 7), (2, 4, 120, 120))
    for dtype in ROUNDOFF:
        for length in lengths:
            for op in ("layer_norm", "rms_norm", "layer_norm_backward", "rms_norm_backward"):
                yield Cell(op, (3, length), dtype)
        for op in ("layer_norm over axis 0", "layer_norm_backward over axis 0"):
            yield Cell(op, (lengths[-2], 3), dtype)
        for shape in images:
            for op in (
                "batch_norm inference", "batch_norm training", "batch_norm_backward", "group_norm",
                "group_norm_backward", "instance_norm_backward", "pixel_norm_backward",
            ):  # fmt: skip
                yield Cell(op, shape, dtype)


class Inputs(NamedTuple):
    """What the calls take, each what it needs. `mean` and `rstd` are of the rows of x, `rms_rstd` without the mean."""

    x: Any
    dy: Any
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    mean: Any
    rstd: Any
    rms_rstd: Any


FASTNORM: dict[str, Call] = {
    "layer_norm": lambda i: fastnorm.layer_norm(i.x, i.weight, i.bias),
    "layer_norm over axis 0": lambda i: fastnorm.layer_norm(i.x, axis=0),
    "rms_norm": lambda i: fastnorm.rms_norm(i.x, i.weight),
    "layer_norm_backward": lambda i: fastnorm.layer_norm_backward(i.dy, i.x, i.weight, mean=i.mean, rstd=i.rstd),
    "layer_norm_backward over axis 0": lambda i: fastnorm.layer_norm_backward(i.dy, i.x, axis=0),
    "rms_norm_backward": lambda i: fastnorm.rms_norm_backward(i.dy, i.x, i.weight, rstd=i.rms_rstd),
    "batch_norm inference": lambda i: fastnorm.batch_norm(i.x, i.running_mean, i.running_var, i.weight, i.bias),
    "batch_norm training": lambda i: fastnorm.batch_norm(
        i.x, i.running_mean, i.running_var, i.weight, i.bias, training=True
    ),
    "batch_norm_backward": lambda i: fastnorm.batch_norm_backward(i.dy, i.x, i.weight, training=True),
    "group_norm": lambda i: fastnorm.group_norm(i.x, 2, i.weight, i.bias),
    "group_norm_backward": lambda i: fastnorm.group_norm_backward(i.dy, i.x, 2, i.weight),
    "instance_norm_backward": lambda i: fastnorm.instance_norm_backward(i.dy, i.x, i.weight),
    "pixel_norm_backward": lambda i: fastnorm.pixel_norm_backward(i.dy, i.x),
}


def by_torch(op: str) -> Call:
    """Return PyTorch's; where it has no backward of RMS normalization of its own, the formula."""
    import torch
    from torch.nn import functional

    aten = torch.ops.aten

    def rms_backward(i: Inputs) -> Any:
        if hasattr(aten, "_fused_rms_norm_backward") and not torch.compiler.is_compiling():
            return aten._fused_rms_norm_backward(i.dy, i.x, i.x.shape[-1:], i.rms_rstd, i.weight, [True, True])
        xhat, g = i.x * i.rms_rstd, (i.dy * i.weight).float()
        dx = i.rms_rstd * (g - xhat * (g * xhat).mean(-1, keepdim=True))
        return dx.to(i.x.dtype), (i.dy * xhat).sum(0).to(i.x.dtype)

    calls: dict[str, Call] = {
        "layer_norm": lambda i: functional.layer_norm(i.x, i.x.shape[-1:], i.weight, i.bias),
        "rms_norm": lambda i: functional.rms_norm(i.x, i.x.shape[-1:], i.weight, 1e-6),
        "layer_norm_backward": lambda i: aten.native_layer_norm_backward(
            i.dy, i.x, i.x.shape[-1:], i.mean, i.rstd, i.weight, i.bias, [True, True, True]
        ),
        "rms_norm_backward": rms_backward,
        "batch_norm inference": lambda i: functional.batch_norm(i.x, i.running_mean, i.running_var, i.weight, i.bias),
        "batch_norm training": lambda i: functional.batch_norm(
            i.x, i.running_mean, i.running_var, i.weight, i.bias, training=True
        ),
    }
    return calls[op]
