"""Fused forms beside their parts, and beside PyTorch's: residual, norm, activation, int8.

"parts" are fastnorm's own: the sum by NumPy, the norm, then the activation or the quantisation as NumPy users write it.

    python bench/fusion.py [--rounds 7] [--only '* 1024x768']
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import race

LIBRARIES = ("fused", "parts", "torch")
ROWS = ("128x768", "1024x768", "4096x1024", "65536x768")
IMAGES = ("1x64x56x56", "32x64x56x56", "32x256x14x14")
CELLS = (
    *(f"layer_norm+{what} {shape}" for what in ("residual", "gelu", "residual+silu", "int8") for shape in ROWS),
    *(f"rms_norm+residual {shape}" for shape in ROWS),
    *(f"batch_norm+{what} {shape}" for what in ("relu", "residual+relu") for shape in IMAGES),
    *(f"group_norm+silu {shape}" for shape in IMAGES),
)
GROUPS = 32


def build(library: str, cell: str) -> Callable[[], object]:
    """Return the call of a cell."""
    name, sizes = cell.split()
    op, *steps = name.split("+")
    shape = tuple(int(size) for size in sizes.split("x"))
    rng = np.random.default_rng(0)
    x, residual = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    channels = shape[-1] if op in ("layer_norm", "rms_norm") else shape[1]
    weight, bias, mean = (rng.standard_normal(channels, dtype=np.float32) for _ in range(3))
    arrays = x, residual if "residual" in steps else None, weight, bias, mean, np.exp(bias)
    activation = next((step for step in steps if step not in ("residual", "int8")), None)
    return {"fused": _fused, "parts": _parts, "torch": _torch}[library](op, arrays, activation, "int8" in steps)


def _norm(op: str, weight: Any, bias: Any, mean: Any, var: Any) -> Callable[..., Any]:
    import fastnorm

    if op == "batch_norm":
        return lambda x, **options: fastnorm.batch_norm(x, mean, var, weight, bias, **options)
    if op == "group_norm":
        return lambda x, **options: fastnorm.group_norm(x, GROUPS, weight, bias, **options)
    return lambda x, **options: getattr(fastnorm, op)(x, weight, bias if op == "layer_norm" else None, **options)


def _fused(op: str, arrays: Any, activation: Any, int8: bool) -> Callable[[], object]:
    x, residual, *parameters = arrays
    norm = _norm(op, *parameters)
    options: dict[str, Any] = {"quantize": "int8"} if int8 else {}
    if residual is not None:
        options.update(residual=residual, return_residual=True)
    return lambda: norm(x, activation=activation, **options)


def _parts(op: str, arrays: Any, activation: Any, int8: bool) -> Callable[[], object]:
    from scipy.special import expit, ndtr

    x, residual, *parameters = arrays
    norm = _norm(op, *parameters)
    formulas = {None: lambda y: y, "relu": lambda y: np.maximum(y, 0), "gelu": lambda y: y * ndtr(y)}
    formulas["silu"] = lambda y: y * expit(y)

    def call() -> object:
        total = x if residual is None else x + residual
        y = formulas[activation](norm(total))
        if int8:
            scale = np.abs(y).max(axis=-1, keepdims=True) / np.float32(127)
            y = np.rint(y / scale).astype(np.int8), scale
        return y, total

    return call


def _torch(op: str, arrays: Any, activation: Any, int8: bool) -> Callable[[], object]:
    import torch
    from torch.nn import functional

    torch.set_grad_enabled(False)
    x, residual, weight, bias, mean, var = (None if part is None else torch.from_numpy(part) for part in arrays)
    norm = {
        "layer_norm": lambda x: functional.layer_norm(x, weight.shape, weight, bias),
        "rms_norm": lambda x: functional.rms_norm(x, weight.shape, weight, 1e-6),
        "batch_norm": lambda x: functional.batch_norm(x, mean, var, weight, bias),
        "group_norm": lambda x: functional.group_norm(x, GROUPS, weight, bias),
    }[op]
    activate = {None: lambda y: y, "relu": torch.relu, "gelu": functional.gelu, "silu": functional.silu}[activation]

    def call() -> object:
        total = x if residual is None else x + residual
        y = activate(norm(total))
        if int8:
            scale = y.abs().amax(-1, keepdim=True) / 127
            y = torch.round(y / scale).to(torch.int8), scale
        return y, total

    return call


if __name__ == "__main__":
    race.main(__file__)
