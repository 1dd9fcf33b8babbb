"""ONNX's operators on fastnorm: onnx's own node tests, and the formulas of the others."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx_cases import CHANNELS, LINE, MICROSOFT, STATISTICS, X4, Array, evaluator, onnx, run
from peer_cases import affine, sample, statistics

import fastnorm

load_node_model_tests = importlib.import_module("onnx.backend.test.loader").load_node_model_tests
SINGLE = 2.0**-24  # the unit roundoff of float32

# How many cases onnx has of each operator; those whose names end in _expanded consist of other operators.
COUNTS = {
    "BatchNormalization": 4,
    "GroupNormalization": 2,
    "InstanceNormalization": 2,
    "LRN": 2,
    "LayerNormalization": 19,
    "LpNormalization": 6,
    "MeanVarianceNormalization": 1,
    "RMSNormalization": 19,
}


def node_cases() -> list[Any]:
    """Onnx's own cases of these operators; building those of all operators warns of divisions by 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_node_model_tests()
    return [
        case
        for case in cases
        if case.model is not None and {node.op_type for node in case.model.graph.node} & set(COUNTS)
    ]


NODE_CASES = node_cases()


def assert_normalized(y: Array, n: Array, weight: Any = 1.0, bias: Any = 0.0) -> None:
    """Compare with n * weight + bias in float64.

    The contract: n has an error of 4 u max(1, |n|), n times weight is rounded, and so is the sum; a result of 16 bits
    is rounded once more, by half a unit in its last place.
    """
    expected = n * weight + bias
    allowed = SINGLE * (5 * np.maximum(1, np.abs(n)) * np.abs(weight) + np.abs(expected))
    if y.dtype.itemsize == 2:
        allowed = allowed + (2.0**-11 if y.dtype == np.float16 else 2.0**-8) * np.abs(expected)
    assert y.shape == expected.shape
    assert (np.abs(y.astype(np.float64) - expected) <= allowed).all()


def standardized(x: Array, axes: Any, eps: float) -> Array:
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def scaled(x: Array, axes: Any, eps: float) -> Array:
    x = x.astype(np.float64)
    return x / np.sqrt(np.square(x).mean(axes, keepdims=True) + eps)


# ONNX's node tests


def test_onnx_has_the_cases_that_it_had() -> None:
    assert Counter(node.op_type for case in NODE_CASES for node in case.model.graph.node) == COUNTS


@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: case.name)
def test_node_case(case: Any) -> None:
    # The expected values are NumPy's, in float32: sums of up to 120 numbers in at most 8 + 15 additions one after the
    # other, and fewer than 9 further roundings, each of half a unit of the largest numbers. Where these cancel, the
    # error of a small result is theirs.
    roundings = 32
    for inputs, expected in case.data_sets:
        results = evaluator(case.model).run(
            None, dict(zip((i.name for i in case.model.graph.input), inputs, strict=True))
        )
        assert len(results) == len(expected)
        for ours, theirs in zip(results, expected, strict=True):
            assert ours.dtype == theirs.dtype
            largest = max(1.0, float(np.abs(theirs).max()))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=roundings * SINGLE * largest, strict=True)


# operator, inputs, options, the function that serves it
SERVED = [
    ("LayerNormalization", (X4, LINE, LINE), {}, "layer_norm"),
    ("RMSNormalization", (X4, LINE), {}, "rms_norm"),
    ("BatchNormalization", (X4, *CHANNELS, *STATISTICS), {}, "batch_norm"),
    ("BatchNormalization", (X4, *CHANNELS, *STATISTICS), {"outputs": 3, "training_mode": 1}, "batch_norm"),
    ("InstanceNormalization", (X4, *CHANNELS), {}, "instance_norm"),
    ("GroupNormalization", (X4, *CHANNELS), {"num_groups": 3}, "group_norm"),
    ("MeanVarianceNormalization", (X4,), {}, "standardize"),
    ("LpNormalization", (X4,), {}, "lp_normalize"),
    ("LRN", (X4,), {"size": 3}, "local_response_norm"),
    ("SkipLayerNormalization", (X4[0], X4[1], LINE), {"domain": MICROSOFT}, "layer_norm"),
    ("SkipSimplifiedLayerNormalization", (X4[0], X4[1], LINE), {"domain": MICROSOFT}, "rms_norm"),
    ("SimplifiedLayerNormalization", (X4, LINE), {"domain": MICROSOFT}, "rms_norm"),
    ("SimplifiedLayerNormalization", (X4, LINE), {}, "rms_norm"),
]


@pytest.mark.parametrize(("operator", "inputs", "options", "function"), SERVED)
def test_fastnorm_serves_every_operator(
    operator: str, inputs: Any, options: Any, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    norm = getattr(fastnorm, function)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(function)
        return norm(*args, **kwargs)

    key = options.get("domain", ""), operator
    served_by = next(cls for cls in fastnorm.onnx.ops() if (cls.op_domain, cls.__name__) == key)
    monkeypatch.setattr(sys.modules[served_by.__module__], function, counted)
    run(operator, *inputs, **options)
    assert calls == [function]


def test_every_operator_of_the_list_is_among_those() -> None:
    listed = {(operator.op_domain, operator.__name__) for operator in fastnorm.onnx.ops()}
    assert listed == {(options.get("domain", ""), operator) for operator, _, options, _ in SERVED}
    assert len(listed) == len(fastnorm.onnx.ops())


def test_an_output_without_a_name_is_no_later_input() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        graph (float[N, 4] x, float[4] scale) => (float[N, 4] y, float[N, 4] z) {
            y, , , total = com.microsoft.SkipLayerNormalization (x, x, scale, , scale)
            z = LayerNormalization (total, scale, )
        }
    """)
    x = X4[0, 0]
    y, z = evaluator(model).run(None, {"x": x, "scale": LINE})
    total = x + x + LINE
    np.testing.assert_array_equal(y, fastnorm.layer_norm(total, LINE, eps=float(np.float32(1e-12))))
    np.testing.assert_array_equal(z, fastnorm.layer_norm(total, LINE, eps=float(np.float32(1e-5))))


# Norms of lines


@pytest.mark.parametrize(("stash_type", "dtype"), [(1, "float32"), (11, "float64"), (16, "bfloat16")])
def test_mean_and_inverse_deviation_have_the_dtype_of_stash_type(stash_type: int, dtype: str) -> None:
    scale, bias = sample((3, 4), seed=1), sample((3, 4), seed=2)
    y, mean, rstd = run("LayerNormalization", X4, scale, bias, outputs=3, axis=2, epsilon=0.5, stash_type=stash_type)
    expected, stats = fastnorm.layer_norm(X4, scale, bias, axis=(2, 3), eps=0.5, return_stats=True)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == np.float32
    for ours, theirs in ((mean, stats.mean), (rstd, stats.rstd)):
        assert ours.dtype.name == dtype
        np.testing.assert_array_equal(ours, theirs.astype(ours.dtype), strict=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lines_in_every_dtype(axis: int, dtype: str) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(
        getattr(onnx.TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper()))
    )
    x = sample((3, 4, 5), dtype)
    scale, bias = sample(x.shape[axis:], dtype, 1), sample(x.shape[axis:], dtype, 2)
    axes = tuple(range(axis % 3, 3))
    wide = scale.astype(np.float64), bias.astype(np.float64)
    (y,) = run("LayerNormalization", x, scale, bias, axis=axis, epsilon=0.125)
    assert y.dtype == x.dtype
    assert_normalized(y, standardized(x, axes, 0.125), *wide)
    (y,) = run("RMSNormalization", x, scale, axis=axis, epsilon=0.125)
    assert y.dtype == x.dtype
    assert_normalized(y, scaled(x, axes, 0.125), wide[0])


@pytest.mark.parametrize("operator", ["RMSNormalization", "SimplifiedLayerNormalization"])
def test_y_has_the_dtype_of_scale(operator: str) -> None:
    x = sample((3, 4), np.float16)
    (y,) = run(operator, x, LINE, axis=-1, epsilon=0.125)
    assert y.dtype == np.float32
    assert_normalized(y, scaled(x, -1, 0.125), LINE.astype(np.float64))


@pytest.mark.parametrize(
    "shape", [(), (1,), (4,), (3, 1), (1, 3, 4), (1, 1, 1, 4), (6, 1, 1), (2, 6, 1, 1), (2, 6, 3, 4)]
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_scale_and_bias_broadcast_to_x(shape: tuple[int, ...], outputs: int) -> None:
    scale, bias = sample(shape, seed=1), sample(shape, seed=2)
    y = run("LayerNormalization", X4, scale, bias, axis=2, epsilon=0.5, outputs=outputs)[0]
    assert_normalized(y, standardized(X4, (2, 3), 0.5), scale.astype(np.float64), bias.astype(np.float64))


@pytest.mark.parametrize("domain", ["", MICROSOFT])
@pytest.mark.parametrize("axis", [None, 1, -2])
def test_simplified_layer_normalization(axis: int | None, domain: str) -> None:
    first = -1 if axis is None else axis
    scale, axes = sample(X4.shape[first:], seed=1), tuple(range(first % 4, 4))
    options = {} if axis is None else {"axis": axis, "epsilon": 0.5}
    eps = 0.5 if options else 1e-5
    y, rstd = run("SimplifiedLayerNormalization", X4, scale, outputs=2, domain=domain, **options)
    assert_normalized(y, scaled(X4, axes, eps), scale.astype(np.float64))
    expected = 1 / np.sqrt(np.square(X4.astype(np.float64)).mean(axes, keepdims=True) + eps)
    assert rstd.dtype == np.float32
    assert rstd.shape == expected.shape
    np.testing.assert_allclose(rstd, expected, rtol=5 * SINGLE)  # the contract's 4 units, rounded to float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("skip_shape", [(2, 5, 8), (1, 5, 8), (5, 8)])
@pytest.mark.parametrize("operator", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_skip(operator: str, skip_shape: tuple[int, ...], with_bias: bool, dtype: Any) -> None:
    x, skip = sample((2, 5, 8), dtype), sample(skip_shape, dtype, 1)
    gamma, beta, bias = (sample((8,), dtype, seed) for seed in (2, 3, 4))
    simplified = "Simplified" in operator
    inputs = (x, skip, gamma, *(() if simplified else (beta,)), *((bias,) if with_bias else ()))
    y, mean, rstd, total = run(operator, *inputs, outputs=4, domain=MICROSOFT, epsilon=0.5)
    expected = x.astype(np.float32) + skip.astype(np.float32)  # the sum is float32's
    if with_bias:
        expected += bias
    np.testing.assert_array_equal(total, expected.astype(dtype), strict=True)
    shift = 0.0 if simplified else beta.astype(np.float64)
    assert y.dtype == x.dtype
    assert_normalized(y, (scaled if simplified else standardized)(expected, -1, 0.5), gamma.astype(np.float64), shift)
    wide = expected.astype(np.float64)
    centre = np.zeros((2, 5, 1)) if simplified else wide.mean(-1, keepdims=True)
    assert mean.dtype == rstd.dtype == np.float32
    # Sums of 8 numbers in float32 have 7 roundings, and the results are rounded to float32.
    np.testing.assert_allclose(mean, centre, rtol=0, atol=8 * SINGLE * np.abs(wide).max())
    root = np.sqrt(np.square(wide - centre).mean(-1, keepdims=True) + 0.5)
    np.testing.assert_allclose(rstd, 1 / root, rtol=8 * SINGLE)


@pytest.mark.parametrize("operator", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_defaults_of_skip(operator: str) -> None:
    x, skip = np.full((1, 2, 4), 1e-6, np.float32) * LINE, np.zeros((1, 2, 4), np.float32)
    (y,) = run(operator, x, skip, LINE, domain=MICROSOFT)
    norm = scaled if "Simplified" in operator else standardized
    assert_normalized(y, norm(x, -1, float(np.float32(1e-12))), LINE.astype(np.float64))


# Norms of channels


def batch_inputs(shape: tuple[int, ...], dtype: Any = np.float32) -> tuple[Array, ...]:
    channels = shape[1:2] or (1,)
    return sample(shape, dtype), *affine(channels, dtype), *statistics(channels, dtype)


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (4, 3, 2, 5)], ids=str)
def test_batch_normalization_in_inference(shape: tuple[int, ...], opset: int) -> None:
    x, scale, bias, mean, var = batch_inputs(shape)
    (y,) = run("BatchNormalization", x, scale, bias, mean, var, opset=opset, epsilon=0.5)
    matrix = x if x.ndim > 1 else x.reshape(-1, 1)
    expected = fastnorm.batch_norm(matrix, mean, var, scale, bias, eps=0.5).reshape(shape)
    np.testing.assert_array_equal(y, expected, strict=True)


def test_batch_normalization_of_nodes_that_name_outputs_nothing() -> None:
    inputs = batch_inputs((5, 3))
    (expected,) = run("BatchNormalization", *inputs, opset=15)
    for opset, outputs in ((15, 3), (9, 5)):
        (y,) = run("BatchNormalization", *inputs, opset=opset, outputs=outputs, keep=(0,))
        np.testing.assert_array_equal(y, expected)


def test_batch_normalization_of_opset_7_has_a_mean_a_channel() -> None:
    inputs = batch_inputs((4, 3, 2, 5))
    (expected,) = run("BatchNormalization", *inputs, opset=7)
    np.testing.assert_array_equal(run("BatchNormalization", *inputs, opset=7, spatial=1)[0], expected)


@pytest.mark.parametrize(("opset", "outputs"), [(9, 5), (9, 3), (14, 3), (15, 3), (15, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (4, 3, 2, 5), (1, 3)], ids=str)
def test_batch_normalization_in_training(shape: tuple[int, ...], dtype: Any, opset: int, outputs: int) -> None:
    x, scale, bias, mean, var = batch_inputs(shape)
    x = x.astype(dtype)
    options = {} if opset < 14 else {"training_mode": 1}
    results = run(
        "BatchNormalization",
        x,
        scale,
        bias,
        mean,
        var,
        outputs=outputs,
        opset=opset,
        momentum=0.75,
        epsilon=0.5,
        **options,
    )
    wide = x.astype(np.float64)
    axes = (0, *range(2, x.ndim))
    column = (-1, *[1] * max(0, x.ndim - 2)) if x.ndim > 1 else (1,)
    assert results[0].dtype == x.dtype
    parameters = (part.astype(np.float64).reshape(column) for part in (scale, bias))
    assert_normalized(results[0], standardized(x, axes, 0.5), *parameters)
    found = wide.mean(axes).reshape(mean.shape), wide.var(axes).reshape(mean.shape)  # the biased variance
    moved = [0.75 * old.astype(np.float64) + 0.25 * new for old, new in zip((mean, var), found, strict=True)]
    for ours, expected in zip(results[1:], [*moved, *found], strict=False):
        assert ours.dtype == np.float32
        # Rounded once, from float32 sums of at most 40 numbers of up to 10 whose errors are below those of a line.
        np.testing.assert_allclose(ours, expected, rtol=8 * SINGLE, atol=8 * SINGLE)


def test_group_normalization_of_opset_18_has_a_scale_for_each_group() -> None:
    scale, bias = affine((3,))
    (groups,) = run("GroupNormalization", X4, scale, bias, opset=18, num_groups=3, epsilon=0.5)
    (channels,) = run(
        "GroupNormalization", X4, np.repeat(scale, 2), np.repeat(bias, 2), opset=21, num_groups=3, epsilon=0.5
    )
    np.testing.assert_array_equal(groups, channels)
    n = standardized(X4.reshape(2, 3, -1), 2, 0.5).reshape(X4.shape)
    wide = (np.repeat(part.astype(np.float64), 2).reshape(-1, 1, 1) for part in (scale, bias))
    assert_normalized(groups, n, *wide)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-9])
@pytest.mark.parametrize("axes", [None, (1,), (0, 3), (-1,), (0, 1, 2, 3)])
def test_mean_variance_normalization_adds_to_the_deviation(axes: Any, size: float, dtype: Any) -> None:
    x = (X4 * dtype(size)).astype(dtype)
    options, over = ({}, (0, 2, 3)) if axes is None else ({"axes": axes}, axes)
    (y,) = run("MeanVarianceNormalization", x, **options)
    wide = x.astype(np.float64)
    assert y.dtype == dtype
    assert_normalized(y, (wide - wide.mean(over, keepdims=True)) / (wide.std(over, keepdims=True) + 1e-9))


def test_mean_variance_normalization_of_constants_is_zero() -> None:
    (y,) = run("MeanVarianceNormalization", np.full((2, 3, 2, 2), 7, np.float32))
    assert not y.any()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 12])
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (3, 5), (2, 7, 3)])
def test_lrn_of_every_size(shape: tuple[int, ...], size: int) -> None:
    x = sample(shape)
    (y,) = run("LRN", x, size=size, alpha=0.5, beta=0.75, bias=2.0)
    wide, before, after = x.astype(np.float64), (size - 1) // 2, size // 2  # floor and ceiling of (size - 1) / 2
    sums = np.stack([np.square(wide[:, max(0, c - before) : c + after + 1]).sum(1) for c in range(shape[1])], axis=1)
    # As many additions as the window has channels, and fewer than 8 other operations on numbers that are all positive.
    np.testing.assert_allclose(y, wide / (2 + 0.5 / size * sums) ** 0.75, rtol=(size + 8) * SINGLE)


def test_group_normalization_of_groups_until_opset_20() -> None:
    scale, bias = affine((3,))
    (first,) = run("GroupNormalization", X4, scale, bias, opset=18, num_groups=3, epsilon=0.5)
    (last,) = run("GroupNormalization", X4, scale, bias, opset=20, num_groups=3, epsilon=0.5)
    np.testing.assert_array_equal(last, first)


def test_layer_normalization_with_a_bias_of_the_shape_of_x() -> None:
    scale, bias = sample((4,)), sample((2, 6, 3, 4), seed=1)
    y = run("LayerNormalization", X4, scale, bias, axis=-1, epsilon=0.5)[0]
    np.testing.assert_allclose(y, fastnorm.layer_norm(X4, eps=0.5) * scale + bias, rtol=1e-5, atol=1e-5)
