"""Calls of ONNX Runtime and OpenVINO: a model of one node, its parameters inside as in a deployed model."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from fastnorm.cli.benchmark.arrays import Inputs
from fastnorm.cli.benchmark.grid import Cell
from fastnorm.cli.benchmark.with_numpy import EPSILON


class _Node(NamedTuple):
    operator: str
    opset: int
    parameters: tuple[str, ...]
    attributes: dict[str, Any]
    outputs: int = 1


def _node(cell: Cell) -> _Node | None:
    epsilon = {"epsilon": EPSILON}
    affine, running = ("weight", "bias"), ("weight", "bias", "mean", "var")
    nodes = {
        "layer_norm": _Node("LayerNormalization", 17, affine, {"axis": -1, **epsilon}),
        "rms_norm": _Node("RMSNormalization", 23, ("weight",), {"axis": -1, **epsilon}),
        "batch_norm inference": _Node("BatchNormalization", 15, running, epsilon),
        "batch_norm training": _Node("BatchNormalization", 15, running, {"training_mode": 1, **epsilon}, outputs=3),
        "group_norm": _Node("GroupNormalization", 21, affine, {"num_groups": cell.groups, **epsilon}),
        "instance_norm": _Node("InstanceNormalization", 17, affine, epsilon),
        "l2_normalize": _Node("LpNormalization", 17, (), {"axis": -1, "p": 2}),
    }
    return nodes.get(cell.kind)


def _model(cell: Cell, given: Inputs, node: _Node) -> bytes:
    onnx = importlib.import_module("onnx")
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(given.x.dtype)
    outputs = ["y", "mean_out", "var_out"][: node.outputs]
    graph = helper.make_graph(
        [helper.make_node(node.operator, ["x", *node.parameters], outputs, **node.attributes)],
        cell.op,
        [helper.make_tensor_value_info("x", kind, cell.shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(getattr(given, name), name) for name in node.parameters],
    )
    # Runtimes lag behind the newest version of the format.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)], ir_version=10)
    encoded: bytes = model.SerializeToString()
    return encoded


def prepare_onnxruntime(cell: Cell, given: Inputs, threads: int) -> Callable[[], Any] | None:
    """Return a cell's call of ONNX Runtime, None if it has no node for that."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # a measurement should tell nobody
    node = _node(cell)
    if node is None:
        return None
    if cell.op == "rms_norm":
        # Its fused kernel goes by this name; the node of opset 23 is taken apart and slower.
        node = node._replace(operator="SimplifiedLayerNormalization", opset=17)
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(_model(cell, given, node), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "NotImplemented" in type(error).__name__:
            return None
        raise
    arguments = {"x": given.x}
    return lambda: session.run(None, arguments)


def prepare_openvino(cell: Cell, given: Inputs, threads: int) -> Callable[[], Any] | None:
    """Return a cell's call of OpenVINO, None if it has no node for that or does not compute in the cell's dtype."""
    node = _node(cell)
    if node is None or cell.training or cell.dtype == "float64":
        return None  # float64 is computed in float32 there
    core = importlib.import_module("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Else bfloat16 on processors that have it.
        "INFERENCE_PRECISION_HINT": "f16" if cell.dtype == "float16" else "f32",
    }
    compiled = core.compile_model(core.read_model(_model(cell, given, node)), "CPU", settings)
    x = given.x
    return lambda: compiled(x)[0]
