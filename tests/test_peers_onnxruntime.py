"""Parity with ONNX Runtime 1.31 on the CPU: models of one node each."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from onnx_cases import MICROSOFT, ReferenceEvaluator, model_of, onnx, run
from peer_cases import DTYPES, Array, Shape, affine, assert_close, sample, statistics

import fastnorm
from fastnorm import nn

# Otherwise its wheels report the models they run, under an identifier that they keep in the home directory.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, which these tests compare with, is not installed")

OPSET = 22  # where an operator needs no other
# Attributes of a node are float32: powers of two are the same number in float64, and so is what a float32 holds.
EPS = [2.0**-10, 0.5, float(np.float32(1e-5))]


def infer(operator: str, *inputs: Array, opset: int = OPSET, **options: Any) -> list[Array]:
    """Return what ONNX Runtime makes of the inputs by a model of one node, which `options` describe."""
    model = model_of(operator, *inputs, opset=opset, **options)
    model.ir_version = 10
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options, providers=providers)
    return session.run(None, {f"input{i}": array for i, array in enumerate(inputs)})


LINES = [((5, 768), 1), ((2, 3, 7), 1), ((3, 4, 5), 2), ((2, 3, 4, 5), 3), ((1, 1), 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("shape", "length"), LINES, ids=str)
def test_layer_normalization(shape: Shape, length: int, with_bias: bool, dtype: Any) -> None:
    x, axes = sample(shape, dtype), tuple(range(-length, 0))
    parameters = affine(shape[-length:], dtype)[: 1 + with_bias]
    for eps in EPS:
        (theirs,) = infer("LayerNormalization", x, *parameters, axis=-length, epsilon=eps)
        assert_close(fastnorm.layer_norm(x, *parameters, axis=axes, eps=eps), theirs)


@pytest.mark.parametrize(("shape", "length"), LINES, ids=str)
def test_statistics_of_layer_normalization(shape: Shape, length: int) -> None:
    x, axes = sample(shape, np.float32), tuple(range(-length, 0))
    weight, bias = affine(shape[-length:], np.float32)
    y, mean, rstd = infer("LayerNormalization", x, weight, bias, outputs=3, axis=-length)
    ours, stats = fastnorm.layer_norm(x, weight, bias, axis=axes, return_stats=True)
    assert_close(ours, y)
    assert_close(stats.mean.astype(np.float32), mean)
    assert_close(stats.rstd.astype(np.float32), rstd)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "length"), LINES, ids=str)
def test_rms_normalization(shape: Shape, length: int, dtype: Any) -> None:
    x, axes = sample(shape, dtype), tuple(range(-length, 0))
    weight, _ = affine(shape[-length:], dtype)
    for eps in EPS:
        (theirs,) = infer("RMSNormalization", x, weight, opset=23, axis=-length, epsilon=eps)
        assert_close(fastnorm.rms_norm(x, weight, axis=axes, eps=eps), theirs)


BATCHES = [(64, 5), (4, 6, 9), (3, 6, 8, 7), (2, 16, 32, 32), (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*BATCHES, (1, 5)], ids=str)
def test_batch_normalization_in_inference(shape: Shape, dtype: Any) -> None:
    x, channels = sample(shape, dtype), shape[1:2]
    weight, bias = affine(channels, dtype)
    mean, var = statistics(channels, dtype)
    for eps in EPS:
        (theirs,) = infer("BatchNormalization", x, weight, bias, mean, var, opset=15, epsilon=eps)
        assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, eps=eps, convention="onnx"), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_batch_normalization_in_training(shape: Shape, dtype: Any) -> None:
    """The text of BatchNormalization-15 and the runtime agree: momentum weighs the old, the variance is biased."""
    channels = shape[1:2]
    weight, bias = affine(channels, dtype)
    mean, var = np.zeros(channels, dtype), np.ones(channels, dtype)
    their_mean, their_var = mean.copy(), var.copy()
    for step, momentum in enumerate((0.875, 0.5, 0.0)):
        x = sample(shape, dtype, step)
        inputs = x, weight, bias, their_mean, their_var
        theirs, their_mean, their_var = infer(
            "BatchNormalization", *inputs, outputs=3, opset=15, training_mode=1, momentum=momentum, epsilon=EPS[0]
        )
        options = {"momentum": momentum, "eps": EPS[0], "convention": "onnx"}
        assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, training=True, **options), theirs)
        assert_close(mean, their_mean)
        assert_close(var, their_var)


@pytest.mark.parametrize("evaluate", ["onnxruntime", "onnx.reference"])
def test_batch_normalization_as_it_comes(evaluate: str) -> None:
    """Without attributes: the defaults of the operator, which hold 0.9 and 1e-5 in float32."""
    shape, name = (3, 6, 8, 7), "BatchNormalization"
    ours = nn.BatchNorm2d(6, convention="onnx")
    weight, bias = ours.weight, ours.bias
    mean, var = np.zeros(6, np.float32), np.ones(6, np.float32)
    for step in range(3):
        x = sample(shape, np.float32, step)
        inputs = x, weight, bias, mean, var
        if evaluate == "onnxruntime":
            y, mean, var = infer(name, *inputs, outputs=3, opset=15, training_mode=1)
        else:
            node = onnx.helper.make_node(name, list("abcde"), list("xyz"), training_mode=1)
            y, mean, var = ReferenceEvaluator(node).run(None, dict(zip("abcde", inputs, strict=True)))
        assert_close(ours(x), y)
        assert_close(ours.running_mean, mean)
        assert_close(ours.running_var, var)


# float32 only, as the runtime has no other kernel that computes in what it stores
@pytest.mark.parametrize("shape", BATCHES[1:], ids=str)
def test_instance_normalization(shape: Shape) -> None:
    x = sample(shape, np.float32)
    weight, bias = affine(shape[1:2], np.float32)
    for eps in EPS:
        (theirs,) = infer("InstanceNormalization", x, weight, bias, epsilon=eps)
        assert_close(fastnorm.instance_norm(x, weight, bias, eps=eps), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_groups", [1, 2, 6])
@pytest.mark.parametrize("shape", [(5, 12), (4, 6, 9), (3, 12, 8, 7), (2, 6, 4, 5, 6)], ids=str)
def test_group_normalization(shape: Shape, num_groups: int, dtype: Any) -> None:
    x = sample(shape, dtype)
    weight, bias = affine(shape[1:2], dtype)
    stash_type = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)  # the default computes in float32
    for eps in EPS:
        (theirs,) = infer(
            "GroupNormalization", x, weight, bias, opset=21, num_groups=num_groups, epsilon=eps, stash_type=stash_type
        )
        assert_close(fastnorm.group_norm(x, num_groups, weight, bias, eps=eps), theirs)


@pytest.mark.parametrize("axes", [(0, 2, 3), (1, 2, 3), (2, 3), (0,), (0, 1, 2, 3)], ids=str)
def test_mean_variance_normalization(axes: tuple[int, ...]) -> None:
    x = sample((3, 6, 8, 7), np.float32)
    (theirs,) = infer("MeanVarianceNormalization", x, opset=13, axes=axes)
    assert_close(fastnorm.standardize(x, axis=axes), theirs)
    if axes == tuple(range(4 - len(axes), 4)):
        assert_close(fastnorm.layer_norm(x, axis=axes, eps=0), theirs)
    if axes == (0, 2, 3):
        assert_close(fastnorm.batch_norm(x, training=True, eps=0), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("shape", [(5, 384), (2, 3, 7), (2, 3, 4, 5)], ids=str)
def test_lp_normalization(shape: Shape, axis: int, p: int, dtype: Any) -> None:
    x = sample(shape, dtype)
    x[:1] = 0  # lines of zeros stay so
    (theirs,) = infer("LpNormalization", x, axis=axis, p=p)
    assert_close(fastnorm.lp_normalize(x, p=p, axis=axis), theirs, absolute=0)  # of small numbers, without a sum
    if p == 2:
        assert_close(fastnorm.l2_normalize(x, axis=axis), theirs, absolute=0)


@pytest.mark.parametrize("size", [1, 3, 5, 21])  # the runtime has no even windows
@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 16, 9, 3)], ids=str)
def test_lrn(shape: Shape, size: int) -> None:
    x = sample(shape, np.float32)
    for alpha, beta, k in ((1e-4, 0.75, 1.0), (0.5, 0.75, 2.0), (1.0, 0.3, 1.0)):
        (theirs,) = infer("LRN", x, opset=13, size=size, alpha=alpha, beta=beta, bias=k)
        assert_close(fastnorm.local_response_norm(x, size, alpha=alpha, beta=beta, k=k), theirs)


# ONNX Runtime's own operators, in the same model on both: their names, defaults and outputs are what is compared.
SKIPS = [((2, 5, 64), (2, 5, 64)), ((2, 5, 64), (1, 5, 64)), ((2, 5, 64), (5, 64)), ((7, 48), (7, 48))]
# operator, how many parameters it gets after input and skip: gamma, (beta,) bias
SKIP_OPERATORS = [("SkipLayerNormalization", 1), ("SkipLayerNormalization", 2), ("SkipLayerNormalization", 3)]
SKIP_OPERATORS += [("SkipSimplifiedLayerNormalization", 1), ("SkipSimplifiedLayerNormalization", 2)]


# float32 only: they are not defined for float64
@pytest.mark.parametrize(("operator", "parameters"), SKIP_OPERATORS)
@pytest.mark.parametrize(("shape", "skip_shape"), SKIPS, ids=str)
def test_skip_layer_normalization(shape: Shape, skip_shape: Shape, operator: str, parameters: int) -> None:
    inputs = [sample(shape, np.float32), sample(skip_shape, np.float32, 1)]
    inputs += [sample(shape[-1:], np.float32, 2 + i) for i in range(parameters)]
    for options in ({}, {"epsilon": 0.5}):
        # The runtime computes no mean and no inverse deviation here.
        options |= {"domain": MICROSOFT, "outputs": 4, "keep": (0, 3), "opset": OPSET}
        ours, theirs = run(operator, *inputs, **options), infer(operator, *inputs, **options)
        for our, their in zip(ours, theirs, strict=True):
            assert_close(our, their)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(("shape", "length"), LINES, ids=str)
def test_simplified_layer_normalization(shape: Shape, length: int, outputs: int) -> None:
    x, weight = sample(shape, np.float32), sample(shape[-length:], np.float32, 1)
    for options in ({"axis": -length}, {"axis": -length, "epsilon": 0.5}):
        theirs = infer("SimplifiedLayerNormalization", x, weight, outputs=outputs, **options)
        for domain in ("", MICROSOFT):
            ours = run(
                "SimplifiedLayerNormalization", x, weight, outputs=outputs, domain=domain, opset=OPSET, **options
            )
            assert len(ours) == len(theirs) == outputs
            for our, their in zip(ours, theirs, strict=True):
                assert_close(our, their)
