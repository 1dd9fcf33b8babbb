"""onnx's evaluator with fastnorm's norms: inside functions of a model, beside others' operators, from files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_cases import LINE, X4, Array, evaluator, model_of, onnx

import fastnorm

inliner = importlib.import_module("onnx.inliner")

# Functions of the model: one that calls another, and both branches of a condition, whose attribute is the caller's.
NESTED = """
    <ir_version: 10, opset_import: ["": 21, "local": 1]>
    graph (float[N, 4] x, float[4] scale, bool deep) => (float[N, 4] y) { y = local.outer <e = 0.25> (x, scale, deep) }
    <domain: "local", opset_import: ["": 21]>
    inner <e> (x, scale) => (y) { y = LayerNormalization <epsilon: float = @e> (x, scale) }
    <domain: "local", opset_import: ["": 21, "local": 1]>
    outer <e> (x, scale, deep) => (y) {
        once = local.inner <e: float = @e> (x, scale)
        y = If (deep) <
            then_branch = then () => (float[N, 4] a) { a = local.inner <e: float = @e> (once, scale) },
            else_branch = otherwise () => (float[N, 4] b) { b = LpNormalization <axis = 1, p = 2> (once) }
        >
    }
"""


def run_nested(run_model: Any, deep: bool) -> Array:
    (y,) = run_model.run(None, {"x": X4[0, 0], "scale": LINE, "deep": np.array(deep)})
    return y


@pytest.mark.parametrize("deep", [True, False])
def test_local_functions_are_served(deep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(name: str) -> Any:
        norm = getattr(fastnorm, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return norm(*args, **kwargs)

        return call

    for name in ("layer_norm", "lp_normalize"):
        monkeypatch.setattr(fastnorm.onnx.lines, name, counted(name))
    model = onnx.parser.parse_model(NESTED)
    once = fastnorm.layer_norm(X4[0, 0], LINE, eps=0.25)
    expected = fastnorm.layer_norm(once, LINE, eps=0.25) if deep else fastnorm.lp_normalize(once, p=2, axis=1)
    np.testing.assert_array_equal(run_nested(fastnorm.onnx.Evaluator(model), deep), expected)
    assert calls == ["layer_norm", "layer_norm" if deep else "lp_normalize"]
    # Onnx's own evaluator serves them where they have been inlined.
    np.testing.assert_array_equal(run_nested(evaluator(inliner.inline_local_functions(model)), deep), expected)
    assert len(calls) == 4


def test_operators_of_the_user_stand_in_front() -> None:
    class LayerNormalization(fastnorm.onnx.base.OpRun):
        op_domain = ""

        def _run(self, x: Array, scale: Array, **attributes: Any) -> tuple[Array]:
            return (x + scale,)

    model = model_of("LayerNormalization", X4, LINE)
    (y,) = fastnorm.onnx.Evaluator(model, new_ops=[LayerNormalization]).run(None, {"input0": X4, "input1": LINE})
    np.testing.assert_array_equal(y, X4 + LINE)


def test_a_model_is_taken_from_bytes_and_from_a_file(tmp_path: Path) -> None:
    model = model_of("LpNormalization", X4, axis=-1, p=2)
    onnx.save(model, tmp_path / "norm.onnx")
    for source in (model.SerializeToString(), str(tmp_path / "norm.onnx")):
        (y,) = fastnorm.onnx.Evaluator(source, verbose=0).run(None, {"input0": X4})
        np.testing.assert_array_equal(y, fastnorm.lp_normalize(X4, p=2, axis=-1))
