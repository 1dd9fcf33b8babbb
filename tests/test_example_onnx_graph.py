"""examples/onnx_graph.py at its smallest: both evaluators agree, and the graph is the encoder that it says it is."""

import importlib
import sys

import numpy as np
import pytest

import fastnorm

pytest.importorskip("onnx", reason="onnx, which this example needs, is not installed")
onnx_graph = importlib.import_module("onnx_graph")

SMALLEST = ["--layers", "1", "--hidden", "4", "--heads", "2", "--batch", "1", "--length", "2", "--rounds", "1"]


def test_main_prints_times_and_the_difference(capsys):
    assert onnx_graph.main(SMALLEST) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "encoder layers: 1, 1 x 2 tokens of 4: 6 norms among 37 nodes"
    for line, name in zip(printed[4:6], ("onnx", "fastnorm"), strict=True):
        assert line.split()[0] == name
        total, in_norms = map(float, line.split()[1:])
        assert total >= in_norms >= 0
    assert printed[6].startswith("largest difference of the vectors: ")


def test_main_fails_where_the_vectors_differ(monkeypatch, capsys):
    ops = fastnorm.onnx.ops()

    class LayerNormalization(next(operator for operator in ops if operator.__name__ == "LayerNormalization")):
        def run(self, *inputs, **options):
            return (super().run(*inputs, **options)[0] + np.float32(0.5),)

    monkeypatch.setattr(fastnorm.onnx, "ops", lambda: [LayerNormalization, *ops])
    assert onnx_graph.main(SMALLEST) == 1
    assert "more than 1e-05" in capsys.readouterr().err


def test_every_sequence_has_its_own_vector_of_length_1():
    model = onnx_graph.build_encoder(layers=2, hidden=8, heads=2, length=5)
    evaluator = onnx_graph.ReferenceEvaluator(model, new_ops=fastnorm.onnx.ops())
    tokens = np.random.default_rng(0).integers(0, onnx_graph.VOCABULARY, (3, 5))
    (together,) = evaluator.run(None, {"tokens": tokens})
    assert together.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(together.astype(np.float64), axis=1), 1, rtol=0, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.01
    for row, expected in zip(tokens, together, strict=True):
        (alone,) = evaluator.run(None, {"tokens": row[None]})
        np.testing.assert_allclose(alone[0], expected, rtol=0, atol=onnx_graph.TOLERANCE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "at least 1"),
        (["--hidden", "10", "--heads", "4"], "--heads must divide --hidden, got 4 and 10"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        onnx_graph.main(arguments)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_without_onnx_the_example_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "onnx_graph")
    with pytest.raises(ImportError, match=r"pip install 'fastnorm\[onnx\]'"):
        importlib.import_module("onnx_graph")
