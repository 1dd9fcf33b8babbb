"""float16 and bfloat16 beside PyTorch's, parameters of the same dtype.

python bench/dtypes.py [--rounds 7] [--only '* bfloat16']
"""

from collections.abc import Callable

import numpy as np
import race

LIBRARIES = ("fastnorm", "torch")
CELLS = tuple(
    f"{op} {shape} {dtype}"
    for op in ("layer_norm", "rms_norm")
    for shape in ("128x768", "1024x768", "4096x4096")
    for dtype in ("float16", "bfloat16")
)


def build(library: str, cell: str) -> Callable[[], object]:
    """Return the call of a cell."""
    op, sizes, dtype = cell.split()
    shape = tuple(int(size) for size in sizes.split("x"))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size, dtype=np.float32) for size in (shape, shape[-1:], shape[-1:])]
    if library == "fastnorm":
        import ml_dtypes

        import fastnorm

        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
        x, weight, bias = (array.astype(kind) for array in arrays)
        if op == "rms_norm":
            return lambda: fastnorm.rms_norm(x, weight)
        return lambda: fastnorm.layer_norm(x, weight, bias)
    import torch
    from torch.nn import functional

    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    tensors = [torch.from_numpy(array).to(getattr(torch, dtype)) for array in arrays]
    if op == "rms_norm":
        return lambda: functional.rms_norm(tensors[0], shape[-1:], tensors[1], 1e-6)
    return lambda: functional.layer_norm(tensors[0], shape[-1:], *tensors[1:])


if __name__ == "__main__":
    race.main(__file__)
