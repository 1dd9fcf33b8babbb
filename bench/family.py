"""The norms that the grid has not, beside the libraries that have them: PyTorch, ONNX Runtime, scikit-learn, NumPy.

What a library has no function for is written with its own operations, as its users write it. Small cells and large
ones, forward and backward.

    python bench/family.py [--rounds 7] [--only 'local_response*']
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import race

LIBRARIES = ("fastnorm", "torch", "onnxruntime", "sklearn", "numpy")
IMAGES, ROWS, FILTERS = ("1x64x14x14", "8x64x56x56"), ("32x64", "4096x256"), ("64x3x7x7", "512x512x3x3")
CELLS = (
    *(
        f"{op} {shape}"
        for op in ("local_response_norm", "local_response_norm_backward", "pixel_norm", "pixel_norm_backward")
        for shape in IMAGES
    ),
    *(f"switchable_norm {shape}" for shape in IMAGES),
    *(f"{op} {shape}" for op in ("weight_norm", "weight_standardize", "spectral_norm") for shape in FILTERS),
    *(
        f"{op} {shape}"
        for op in (
            "standardize", "min_max_scale", "max_abs_scale", "lp_normalize_1", "lp_normalize_3", "lp_normalize_max",
            "clip_by_norm", "clip_by_value", "l2_normalize_backward",
        )
        for shape in ROWS
    ),
    *(f"clip_by_global_norm {shape}" for shape in ROWS),
)  # fmt: skip
SIZE = 5  # of local response normalization; its other options are at the defaults of all
ARRAYS = 8  # that are clipped together
LEAST = 1e-12


def _fastnorm(op: str, x: Any, dy: Any) -> Callable[[], object]:
    import fastnorm as fn

    channels = np.ones(x.shape[0 if op == "weight_norm" else 1], np.float32)
    mixture = np.zeros(3, np.float32)
    parts = [x.copy() for _ in range(ARRAYS)]
    return {
        "local_response_norm": lambda: fn.local_response_norm(x, SIZE),
        "local_response_norm_backward": lambda: fn.local_response_norm_backward(dy, x, SIZE),
        "pixel_norm": lambda: fn.pixel_norm(x),
        "pixel_norm_backward": lambda: fn.pixel_norm_backward(dy, x),
        "switchable_norm": lambda: fn.switchable_norm(x, mixture, mixture, channels, channels, training=True),
        "weight_norm": lambda: fn.weight_norm(x, channels),
        "weight_standardize": lambda: fn.weight_standardize(x),
        "spectral_norm": lambda: fn.spectral_norm(x),
        "standardize": lambda: fn.standardize(x),
        "min_max_scale": lambda: fn.min_max_scale(x),
        "max_abs_scale": lambda: fn.max_abs_scale(x),
        "lp_normalize_1": lambda: fn.lp_normalize(x, p=1),
        "lp_normalize_3": lambda: fn.lp_normalize(x, p=3),
        "lp_normalize_max": lambda: fn.lp_normalize(x, p=np.inf),
        "clip_by_norm": lambda: fn.clip_by_norm(x, 1.0),
        "clip_by_value": lambda: fn.clip_by_value(x, -1.0, 1.0),
        "l2_normalize_backward": lambda: fn.l2_normalize_backward(dy, x),
        "clip_by_global_norm": lambda: fn.clip_by_global_norm(parts, 1.0),
    }[op]


def _torch(op: str, x: Any, dy: Any) -> Callable[[], object] | None:
    import torch
    from torch.nn import functional

    torch.set_grad_enabled(op.endswith("_backward"))
    x, dy = torch.from_numpy(x), torch.from_numpy(dy)
    forward: dict[str, Callable[[Any], Any]] = {
        "local_response_norm": lambda x: functional.local_response_norm(x, SIZE),
        "pixel_norm": lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8),
        "l2_normalize": lambda x: functional.normalize(x, dim=-1),
        "lp_normalize_1": lambda x: functional.normalize(x, 1.0),
        "lp_normalize_3": lambda x: functional.normalize(x, 3.0),
        "lp_normalize_max": lambda x: functional.normalize(x, float("inf")),
        "clip_by_value": lambda x: x.clamp(-1.0, 1.0),
        "clip_by_norm": lambda x: x * (1.0 / (torch.linalg.vector_norm(x) + 1e-6)).clamp(max=1.0),
    }
    if op.endswith("_backward"):
        source = x.requires_grad_()
        y = forward[op.removesuffix("_backward")](source)
        return lambda: torch.autograd.grad(y, source, dy, retain_graph=True)
    if op == "weight_norm":
        g = torch.ones(x.shape[0], *[1] * (x.ndim - 1))
        return lambda: torch._weight_norm(x, g, 0)
    if op == "weight_standardize":

        def standardize() -> object:
            var, mean = torch.var_mean(x, tuple(range(1, x.ndim)), correction=0, keepdim=True)
            return (x - mean) * torch.rsqrt(var + 1e-5)

        return standardize
    if op == "spectral_norm":
        layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(x.shape[1], x.shape[0], x.shape[2]))
        layer.parametrizations.weight.original.copy_(x)
        return lambda: layer.weight
    if op == "clip_by_global_norm":
        parts = [torch.nn.Parameter(x.clone()) for _ in range(ARRAYS)]
        for part in parts:
            part.grad = x.clone()
        return lambda: torch.nn.utils.clip_grad_norm_(parts, 1.0)
    return (lambda: forward[op](x)) if op in forward else None


def _onnxruntime(op: str, x: Any, dy: Any) -> Callable[[], object] | None:
    if op != "local_response_norm":
        return None
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node("LRN", ["x"], ["y"], size=SIZE)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph([node], op, ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = race.threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda: session.run(None, {"x": x})


def _sklearn(op: str, x: Any, dy: Any) -> Callable[[], object] | None:
    from sklearn import preprocessing

    functions: dict[str, Callable[[], object]] = {
        "standardize": lambda: preprocessing.scale(x),
        "min_max_scale": lambda: preprocessing.minmax_scale(x),
        "max_abs_scale": lambda: preprocessing.maxabs_scale(x),
        "lp_normalize_1": lambda: preprocessing.normalize(x, "l1"),
        "lp_normalize_max": lambda: preprocessing.normalize(x, "max"),
    }
    return functions.get(op)


def _numpy(op: str, x: Any, dy: Any) -> Callable[[], object] | None:
    def norms(p: float) -> Any:
        return x / np.maximum(np.linalg.norm(x, p, axis=-1, keepdims=True), LEAST)

    def clip_together() -> object:
        norm = np.sqrt(sum(np.vdot(part, part) for part in parts))
        return [part * np.float32(min(1.0, 1.0 / norm)) for part in parts]

    def min_max() -> object:
        low = x.min(axis=0)
        return (x - low) / (x.max(axis=0) - low)

    parts = [x.copy() for _ in range(ARRAYS)] if op == "clip_by_global_norm" else []
    rows = tuple(range(1, x.ndim))
    functions: dict[str, Callable[[], object]] = {
        "pixel_norm": lambda: x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(1e-8)),
        "weight_norm": lambda: x / np.sqrt(np.square(x).sum(axis=rows, keepdims=True)),
        "weight_standardize": lambda: (x - x.mean(axis=rows, keepdims=True)) / x.std(axis=rows, keepdims=True),
        "standardize": lambda: (x - x.mean(axis=0)) / x.std(axis=0),
        "min_max_scale": min_max,
        "max_abs_scale": lambda: x / np.abs(x).max(axis=0),
        "lp_normalize_1": lambda: norms(1),
        "lp_normalize_3": lambda: norms(3),
        "lp_normalize_max": lambda: norms(np.inf),
        "clip_by_norm": lambda: x * np.float32(min(1.0, 1.0 / np.sqrt(np.vdot(x, x)))),
        "clip_by_value": lambda: np.clip(x, np.float32(-1), np.float32(1)),
        "clip_by_global_norm": clip_together,
    }
    return functions.get(op)


def build(library: str, cell: str) -> Callable[[], object] | None:
    """Return the call of a cell, None where a library has none."""
    op, sizes = cell.split()
    shape = tuple(int(size) for size in sizes.split("x"))
    x, dy = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    builders = {
        "fastnorm": _fastnorm, "torch": _torch, "onnxruntime": _onnxruntime, "sklearn": _sklearn, "numpy": _numpy
    }  # fmt: skip
    return builders[library](op, x, dy)


if __name__ == "__main__":
    race.main(__file__)
