"""Models of one node, and arrays for them, for the tests of ONNX's operators."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from peer_cases import affine, sample, statistics

import fastnorm

onnx = pytest.importorskip("onnx", reason="onnx, whose operators these are, is not installed")

ReferenceEvaluator = importlib.import_module("onnx.reference").ReferenceEvaluator

Array = np.ndarray[Any, Any]

MICROSOFT = "com.microsoft"


def evaluator(model: Any) -> Any:
    return ReferenceEvaluator(model, new_ops=fastnorm.onnx.ops())


def model_of(
    operator: str, *inputs: Array | None, outputs: int = 1, opset: int = 23, domain: str = "",
    keep: tuple[int, ...] = (), **attributes: Any,
) -> Any:  # fmt: skip
    """A model of one node, whose outputs, those of `keep` alone if given, have the dtype of its first input.

    None is an input that is left out.
    """
    helper = onnx.helper
    kept = keep or range(outputs)
    names = ["" if array is None else f"input{i}" for i, array in enumerate(inputs)]
    results = [f"output{i}" if i in kept else "" for i in range(outputs)]
    kind = helper.np_dtype_to_tensor_dtype(inputs[0].dtype)
    graph = helper.make_graph(
        [helper.make_node(operator, names, results, domain=domain, **attributes)],
        operator,
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip(names, inputs, strict=True)
            if array is not None
        ],
        [helper.make_tensor_value_info(name, kind, None) for name in results if name],
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


X4 = sample((2, 6, 3, 4))
CHANNELS = affine((6,))
STATISTICS = statistics((6,))
LINE = sample((4,), seed=5)
