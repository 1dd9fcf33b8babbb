"""What Python or NumPy would refuse in words of their own: the message names function and argument all the same."""

from typing import Any

import numpy as np
import pytest

import fastnorm

IMAGE = np.zeros((2, 2, 3), np.uint8)
LINE = np.ones(3)
RAGGED = [[1], [1, 2]]
PAIR = [0.5] * 3, [0.5] * 3


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "message"),
    [
        ("lp_normalize", (LINE,), {"p": 2, "out": np.ones(4)}, ValueError, "out must have the shape"),
        ("lp_normalize", (LINE,), {"p": np.inf, "out": np.ones(4)}, ValueError, "out must have the shape"),
        ("lp_normalize", (LINE,), {"p": 2, "dtype": "int8"}, TypeError, "dtype must be float16"),
        ("lp_normalize", (LINE,), {"p": np.inf, "backend": "fast"}, ValueError, "backend must be one of"),
        ("clip_by_global_norm", (3, 1.0), {}, TypeError, "arrays must be an iterable of arrays, got int"),
        ("clip_by_global_norm", (None, 1.0), {}, TypeError, "arrays must be an iterable of arrays, got NoneType"),
        ("moments", (LINE,), {"algorithm": ["naive"]}, ValueError, r"algorithm must be one of .* got \['naive'\]"),
        ("moments", (LINE,), {"weights_kind": LINE}, ValueError, "weights_kind must be 'frequency' or 'reliability'"),
        ("layer_norm", (LINE,), {"quantize": LINE}, ValueError, "quantize must be 'int8' or None"),
        ("layer_norm", (LINE,), {"eps": 10**400}, ValueError, "eps must be within the range of float64, got an int"),
        ("moments", (LINE,), {"ddof": 10**400}, ValueError, "ddof must be within the range of float64, got an int"),
        ("min_max_scale", (LINE,), {"feature_range": (0, np.inf)}, ValueError, "feature_range must be finite"),
        ("normalize_image", (RAGGED, *PAIR), {}, TypeError, "image must be an array of numbers"),
        ("normalize_image", (IMAGE, *PAIR), {"dtype": "nonsense"}, TypeError, "dtype must be float32 or float16"),
        ("explain", ("layer_norm", None), {}, TypeError, "shape must be an int or a tuple of int, got None"),
        ("explain", ("layer_norm", ("a",)), {}, TypeError, "shape must be an int or a tuple of int, got"),
        ("explain", ("layer_norm", (3, -4)), {}, ValueError, r"shape must have sizes of at least 0, got \(3, -4\)"),
        ("explain", ("layer_norm", (3, 4), "nonsense"), {}, TypeError, "dtype must be a real number dtype, got"),
        ("Welford", (0, "nonsense"), {}, TypeError, "dtype must be a floating dtype, got nonsense"),
        ("set_num_threads", ("2",), {}, TypeError, "num_threads must be an int, got str"),
        ("set_num_threads", (0,), {}, ValueError, "num_threads must be at least 1, got 0"),
        ("set_num_threads", (2**31,), {}, ValueError, "num_threads must be at most 2147483647, got 2147483648"),
    ],
)  # fmt: skip
def test_the_message_names_function_and_argument(
    name: str, arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{name}: {message}"):
        getattr(fastnorm, name)(*arguments, **options)


@pytest.mark.parametrize("options", [{"backend": "fast"}, {"num_threads": "2"}, {"num_threads": 0}], ids=str)
def test_config_names_itself(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^config: {next(iter(options))} must be"):
        fastnorm.config(**options).__enter__()


def test_welford_names_its_methods() -> None:
    state = fastnorm.Welford().update([[1.0], [3.0]])
    text: Any = "1"
    number: Any = 3
    with pytest.raises(TypeError, match=r"^Welford.variance: ddof must be a real number, got str"):
        state.variance(text)
    with pytest.raises(TypeError, match=r"^Welford.from_bytes: data must be bytes, got int"):
        fastnorm.Welford.from_bytes(number)
    with pytest.raises(ValueError, match=r"^Welford.from_bytes: these bytes are not a Welford state"):
        fastnorm.Welford.from_bytes(state.to_bytes().replace(b"f8", b"zz", 1))


@pytest.mark.parametrize("value", ["False", 1, None, np.array([True, False])])
def test_flags_are_bools(value: Any) -> None:
    x, running = np.ones((2, 3)), np.zeros(3)
    for call, name in (
        (lambda: fastnorm.batch_norm(x, running, running, training=value), "batch_norm: training"),
        (lambda: fastnorm.batch_norm_backward(x, x, training=value), "batch_norm_backward: training"),
        (lambda: fastnorm.switchable_norm(x, running, running, training=value), "switchable_norm: training"),
        (lambda: fastnorm.nn.BatchNorm1d(3, affine=value), "BatchNorm1d: affine"),
        (lambda: fastnorm.nn.BatchNorm1d(3, track_running_stats=value), "BatchNorm1d: track_running_stats"),
        (lambda: fastnorm.nn.LayerNorm(3, elementwise_affine=value), "LayerNorm: elementwise_affine"),
        (lambda: fastnorm.nn.GroupNorm(1, 3, bias=value), "GroupNorm: bias"),
        (lambda: fastnorm.nn.LayerNorm(3).train(value), "LayerNorm: train: mode"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be a bool"):
            call()
    assert not running.any()


def test_masked_elements_are_refused() -> None:
    masked = np.ma.array([1.0, 2.0, 1e6], mask=[False, False, True])
    with pytest.raises(TypeError, match=r"layer_norm: x must have no masked elements"):
        fastnorm.layer_norm(masked)
    np.testing.assert_array_equal(fastnorm.layer_norm(masked[:2]), fastnorm.layer_norm([1.0, 2.0]))


def test_what_only_looks_like_an_array_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"^layer_norm: x"):
        fastnorm.layer_norm(np.ndarray)
