"""The gradients of numbers that are none, of constant lines, and near the ends of the range."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import named
from variants import serving

import fastnorm

Array = np.ndarray[Any, Any]


def backward(op: str) -> Callable[..., Any]:
    return getattr(fastnorm, f"{op}_backward")


# Norms of x (4, 6, 35): the call, a line apart, and the weights that belong to it (or all, for a weight a position).
Line = tuple[Callable[..., Any], tuple[Any, ...], Any]
RUNNING = {"running_mean": np.full(6, 3.0), "running_var": np.full(6, 0.25)}
BY_LINE: dict[str, Line] = {
    "layer_norm, rows": (lambda dy, x, **k: fastnorm.layer_norm_backward(dy, x, np.full(35, 1.5), **k), (1, 2), ...),
    "layer_norm, lanes": (lambda dy, x, **k: fastnorm.layer_norm_backward(dy, x, axis=1, **k), (1, ..., 3), ...),
    "rms_norm, rows": (fastnorm.rms_norm_backward, (1, 2), ...),
    "rms_norm, lanes": (lambda dy, x, **k: fastnorm.rms_norm_backward(dy, x, axis=0, **k), (..., 2, 3), ...),
    "batch_norm, second": (
        lambda dy, x, **k: fastnorm.batch_norm_backward(dy, x, np.full(6, 1.5), training=True, **k), (slice(None), 2), 2
    ),
    "batch_norm, last": (
        lambda dy, x, **k: fastnorm.batch_norm_backward(dy, x, training=True, channel_axis=-1, **k), (..., 3), 3
    ),
    "instance_norm, second": (fastnorm.instance_norm_backward, (1, 2), 2),
    "instance_norm, last": (
        lambda dy, x, **k: fastnorm.instance_norm_backward(dy, x, channel_axis=-1, **k), (1, slice(None), 3), 3
    ),
    "group_norm, second": (
        lambda dy, x, **k: fastnorm.group_norm_backward(dy, x, 3, np.full(6, 1.5), **k), (1, slice(2, 4)), slice(2, 4)
    ),
    "group_norm, last": (
        lambda dy, x, **k: fastnorm.group_norm_backward(dy, x, 7, channel_axis=-1, **k),
        (1, slice(None), slice(0, 5)),
        slice(0, 5),
    ),
    "pixel_norm": (fastnorm.pixel_norm_backward, (1, slice(None), 3), None),
    "l2_normalize": (fastnorm.l2_normalize_backward, (1, 2), None),
}  # fmt: skip
CENTRED = [name for name in BY_LINE if name.startswith(("layer", "batch", "inst", "group"))]
each_norm = pytest.mark.parametrize("name", BY_LINE)
each_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def samples(dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    return rng.standard_normal((4, 6, 35)).astype(dtype), (rng.standard_normal((4, 6, 35)) + 3).astype(dtype)


@each_norm
@each_float
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "dy"])
def test_what_is_no_number_stays_in_its_line(name: str, dtype: Any, value: float, where: str, backend: str) -> None:
    function, line, parameters = BY_LINE[name]
    dy, x = samples(dtype)
    clean = named(function(dy, x, backend=backend))
    (x if where == "x" else dy)[1, 2, 3] = value
    found = named(function(dy, x, backend=backend))
    others = np.ones(x.shape, bool)
    others[line] = False
    np.testing.assert_array_equal(found["dx"][others], clean["dx"][others])
    assert not np.isfinite(found["dx"][line]).all()
    if parameters is not ... and parameters is not None:
        for part in ("dweight", "dbias"):
            rest = np.delete(np.arange(len(found[part])), parameters)
            np.testing.assert_array_equal(found[part][rest], clean[part][rest], err_msg=part)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "dy"])
def test_what_is_no_number_stays_in_its_item_where_channels_are_mixed(value: float, where: str, backend: str) -> None:
    dy, x = samples(np.float32)
    mixture = {"mean_weight": [0.0] * 3, "var_weight": [0.0] * 3}
    for op, options in (("switchable_norm", {**mixture, **RUNNING}), ("local_response_norm", {"size": 3})):
        chosen = {**options, "backend": serving(op, backend)}
        clean = named(backward(op)(dy, x, **chosen))["dx"]
        strange = {"dy": dy.copy(), "x": x.copy()}
        strange[where][1, 2, 3] = value
        found = named(backward(op)(**strange, **chosen))["dx"]
        np.testing.assert_array_equal(found[[0, 2, 3]], clean[[0, 2, 3]])
        assert not np.isfinite(found[1, 2, 3])
    batch = fastnorm.switchable_norm_backward(**strange, **mixture, training=True, backend=backend)
    assert not np.isfinite(batch.dx[1]).any()


@pytest.mark.parametrize("name", CENTRED)
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e30, 1e-30, 3e38])
@pytest.mark.parametrize("eps", [0, 1e-5])
@each_float
def test_a_constant_line_passes_what_is_not_constant(
    name: str, value: float, eps: float, dtype: Any, backend: str
) -> None:
    """xhat is 0 there: dx = rstd * (g - mean(g)), and rstd = 1 / sqrt(eps), or 1 if that is 0."""
    function, line, _ = BY_LINE[name]
    dy, x = samples(dtype)
    x[line] = dtype(value)
    found = named(function(dy, x, eps=eps, backend=backend))
    weight = 1.5 if ("second" in name and "instance" not in name) or name == "layer_norm, rows" else 1.0
    g = dy[line].astype(np.float64) * weight
    expected = (g - g.mean()) / (np.sqrt(eps) if eps else 1.0)
    assert all(np.isfinite(part).all() for part in found.values())
    # As many roundings as in `roundings`, of |g| + mean(|g|).
    allowed = (g.size / 16 + 23) * np.finfo(dtype).eps * 2 * np.abs(g).max() / (np.sqrt(eps) if eps else 1.0)
    np.testing.assert_allclose(found["dx"][line], expected, rtol=0, atol=allowed)


@each_norm
def test_a_line_of_zeros_has_a_finite_gradient(name: str, backend: str) -> None:
    function, line, _ = BY_LINE[name]
    dy, x = samples(np.float32)
    x[line] = 0
    assert all(np.isfinite(part).all() for part in named(function(dy, x, backend=backend)).values())


@each_float
@pytest.mark.parametrize("eps", [49.0, 1e-5, 1e-9, 1e-11, 1e-12, 1e-18])
@pytest.mark.parametrize("shape", [(5, 7), (5, 300), (2, 5000), (3, 7, 5), (2, 300, 7)], ids=str)
def test_a_line_shorter_than_eps_is_divided_by_a_constant(
    shape: tuple[int, ...], eps: float, dtype: Any, backend: str
) -> None:
    rng = np.random.default_rng(0)
    dy, x = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    dx = fastnorm.l2_normalize_backward(dy, x * dtype(eps / 1e4), axis=1, eps=eps, backend=backend)
    np.testing.assert_allclose(dx, dy.astype(np.float64) / eps, rtol=2 * np.finfo(dtype).eps)


@each_norm
@pytest.mark.parametrize(
    ("scale", "upstream"),
    [(2.0**100, 1.0), (2.0**-100, 1.0), (2.0**-33, 2.0**66), (2.0**46, 2.0**-66), (2.0**-60, 2.0**-80)],
)
def test_gradients_go_with_the_reciprocal_of_the_scale(name: str, scale: float, upstream: float, backend: str) -> None:
    """Powers of two: y stays to the bit, dx is divided by the scale, and nothing leaves float32 on the way."""
    function, *_ = BY_LINE[name]
    dy, x = samples(np.float32)
    expected = named(function(dy, x, eps=0, backend=backend))
    found = named(function(dy * np.float32(upstream), x * np.float32(scale), eps=0, backend=backend))
    assert np.isfinite(found["dx"]).all()
    # Another path may round otherwise: the allowance of `roundings` for lines of at most 140 elements, twice.
    unit = 2 * (140 / 32 + 23) * 2.0**-24
    for part, value in expected.items():
        actual = found[part].astype(np.float64) / upstream * (scale if part == "dx" else 1)
        np.testing.assert_allclose(actual, value, rtol=0, atol=unit * 3 * np.abs(value).max(), err_msg=part)


@each_norm
@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100], ids=["1e30", "1e-30"])
def test_a_line_near_the_ends_of_the_range_leaves_the_others_their_bits(name: str, scale: float, backend: str) -> None:
    function, line, _ = BY_LINE[name]
    dy, x = samples(np.float32)
    clean = named(function(dy, x, eps=0, backend=backend))
    others = np.ones(x.shape, bool)
    others[line] = False
    x[line] *= np.float32(scale)
    found = named(function(dy, x, eps=0, backend=backend))
    np.testing.assert_array_equal(found["dx"][others], clean["dx"][others])
    # xhat does not depend on the scale, so neither do the parameters' gradients; roundings as in the test before.
    unit = 2 * (140 / 32 + 23) * 2.0**-24
    found["dx"] = np.where(others, found["dx"], found["dx"].astype(np.float64) * scale)
    for part, value in clean.items():
        np.testing.assert_allclose(found[part], value, rtol=0, atol=unit * 3 * np.abs(value).max(), err_msg=part)


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_parameters_gradients_are_summed_in_float64_over_lines(op: str, backend: str) -> None:
    """Between 2^27 and -2^27 float32 has no place for ones: it would lose up to all 1000 of them."""
    x = np.tile(np.float32([1, -1, 1, -1]), (1002, 1))
    dy = np.ones_like(x)
    dy[0], dy[-1] = 2.0**27, -(2.0**27)
    found = backward(op)(dy, x, eps=0, backend=backend)
    np.testing.assert_array_equal(found.dweight, [1000, -1000, 1000, -1000])
    if found.dbias is not None:
        np.testing.assert_array_equal(found.dbias, [1000] * 4)


@pytest.mark.parametrize("op", ["batch_norm", "instance_norm", "group_norm"])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_parameters_gradients_are_summed_in_float64_over_items(op: str, channel_axis: int, backend: str) -> None:
    x = np.tile(np.float32([[1, -1], [-1, 1]]), (1002, 1, 1))  # (N, C, S)
    dy = np.ones_like(x)
    dy[0], dy[-1] = 2.0**27, -(2.0**27)
    options = {"batch_norm": {"training": True}, "group_norm": {"num_groups": 1}}.get(op, {})
    dy, x = (np.moveaxis(part, 1, channel_axis) for part in (dy, x))
    found = backward(op)(dy, x, **options, eps=0, channel_axis=channel_axis, backend=backend)
    np.testing.assert_array_equal(found.dbias, [2000, 2000])
    dy = dy * x  # now the products do not cancel in a row
    found = backward(op)(dy, x, **options, eps=0, channel_axis=channel_axis, backend=backend)
    np.testing.assert_array_equal(found.dweight, [2000, 2000])
