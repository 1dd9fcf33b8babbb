"""Models of one node, and arrays for them, for the tests of ONNX's operators."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import fastnorm

onnx = pytest.importorskip("onnx", reason="onnx, whose operators these are, is not installed")

ReferenceEvaluator = importlib.import_module("onnx.reference").ReferenceEvaluator

Array = np.ndarray[Any, Any]

MICROSOFT = "com.microsoft"


def evaluator(model: Any) -> Any:
    return ReferenceEvaluator(model, new_ops=fastnorm.onnx.ops())


def model_of(
    operator: str, *inputs: Array | None, outputs: int = 1, opset: int = 23, domain: str = "", **attributes: Any
) -> Any:
    """A model of one node; None is an input that is left out."""
    helper = onnx.helper
    names = ["" if array is None else f"input{i}" for i, array in enumerate(inputs)]
    results = [f"output{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, results, domain=domain, **attributes)],
        operator,
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip(names, inputs, strict=True)
            if array is not None
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in results],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)])


def run(operator: str, *inputs: Array | None, **options: Any) -> list[Array]:
    """Run a model of one node on fastnorm."""
    feeds = {f"input{i}": array for i, array in enumerate(inputs) if array is not None}
    before = {name: array.copy() for name, array in feeds.items()}
    results: list[Array] = evaluator(model_of(operator, *inputs, **options)).run(None, feeds)
    for name, array in feeds.items():
        np.testing.assert_array_equal(array, before[name])
    return results


def sample(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(1.0, 2.0, size=shape).astype(dtype)


X4 = sample((2, 6, 3, 4))
CHANNELS = sample((6,), seed=1), sample((6,), seed=2)
STATISTICS = sample((6,), seed=3), np.square(sample((6,), seed=4)) + np.float32(0.1)
LINE = sample((4,), seed=5)
