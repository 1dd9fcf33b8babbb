"""Norms by the statistics of some elements: where= and weights= of batch, instance and group norm."""

from typing import Any

import numpy as np
import pytest
from masked_cases import (
    CONTRACT,
    GROUPS,
    LAYOUTS,
    NORMS,
    along,
    backward,
    counting,
    each_kind,
    each_layout,
    each_norm,
    exact,
    norm,
    options,
    sample,
)
from variants import implementation

import fastnorm
from fastnorm.backends import registry

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_constant_line_becomes_the_bias_whatever_its_elements_count(dtype: str, backend: str) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = np.full((2, 3, 7), rng.random() * 10).astype(dtype)
        for shape in ((2, 3, 7), (2, 1, 7), (2, 3, 1)):
            weights = rng.random(shape)
            for y in (
                fastnorm.group_norm(x, 1, weights=weights, eps=0, backend=backend),
                fastnorm.instance_norm(x, weights=weights, eps=0, backend=backend),
                fastnorm.batch_norm(x, training=True, weights=weights, eps=0, backend=backend),
            ):
                np.testing.assert_allclose(y, 0, atol=1e-13)


@each_norm
@each_layout
@each_kind
@pytest.mark.parametrize("affine", [False, True])
def test_statistics_are_those_of_what_counts(
    name: str, shape: tuple[int, ...], axis: int, kind: str, affine: bool, backend: str
) -> None:
    x = sample(shape)
    given, counts = counting(kind, shape)
    right = exact(name, x, counts, axis)
    weight, bias = np.linspace(-2, 2, 6, dtype=np.float32), np.linspace(1, 3, 6, dtype=np.float32)
    parameters = {"weight": weight, "bias": bias} if affine else {}
    with fastnorm.config(backend=backend):
        y, stats = norm(name, x, **options(name, axis), **given, **parameters, return_stats=True)
    w, b = (along(part, axis, x.ndim) for part in (weight, bias)) if affine else (np.float32(1), np.float32(0))
    # With a weight the contract's error is multiplied by it, and the sum with the bias is rounded.
    limit = CONTRACT * (np.maximum(1, np.abs(right.xhat)) * np.maximum(1, np.abs(w)) + np.abs(b))
    assert y.dtype == x.dtype
    assert (np.abs(y - (right.xhat * w + b)) <= limit).all()
    # float64 sums of at most 80 elements about a mean that is as large as the deviations.
    assert stats.mean.dtype == stats.rstd.dtype == np.float64
    np.testing.assert_allclose(np.broadcast_to(stats.mean, shape), right.mean.astype(float), rtol=1e-13)
    np.testing.assert_allclose(np.broadcast_to(stats.rstd, shape), right.rstd.astype(float), rtol=1e-13)


@each_norm
def test_statistics_have_the_shape_they_have_without_a_mask(name: str) -> None:
    for shape, axis in LAYOUTS:
        x = sample(shape)
        plain = norm(name, x, **options(name, axis), return_stats=True)[1]
        masked = norm(name, x, **options(name, axis), where=True, return_stats=True)[1]
        assert masked.mean.shape == plain.mean.shape
        assert masked.rstd.shape == plain.rstd.shape


@pytest.mark.parametrize("name", ["instance_norm", "group_norm"])
@pytest.mark.parametrize("axis", [1, -1])
def test_padded_sequences_are_normalised_as_they_are_alone(name: str, axis: int, backend: str) -> None:
    lengths = np.array([9, 4, 1, 7])
    alone = [sample((1, 6, length), seed) for seed, length in enumerate(lengths)]
    x = np.full((4, 6, 9), 77, np.float32)
    for row, sequence in zip(x, alone, strict=True):
        row[:, : sequence.shape[2]] = sequence[0]
    where = (np.arange(9) < lengths[:, np.newaxis])[:, np.newaxis]
    turned = [np.ascontiguousarray(np.moveaxis(array, 1, axis)) for array in (x, where)]
    with fastnorm.config(backend=backend):
        y = np.moveaxis(norm(name, turned[0], where=turned[1], **options(name, axis)), axis, 1)
        expected = [norm(name, sequence, **options(name)) for sequence in alone]
    for row, right in zip(y, expected, strict=True):
        limit = 2 * CONTRACT * np.maximum(1, np.abs(right[0]))  # each is as close as the contract says
        assert (np.abs(row[:, : right.shape[2]] - right[0]) <= limit).all()


@each_norm
@each_layout
def test_a_mask_of_true_changes_nothing(name: str, shape: tuple[int, ...], axis: int, backend: str) -> None:
    x = sample(shape)
    with fastnorm.config(backend=backend):
        plain = norm(name, x, **options(name, axis))
        for given in ({"where": np.ones(shape, bool)}, {"weights": np.full(shape, 2.5)}):
            masked = norm(name, x, **options(name, axis), **given)
            assert (np.abs(masked - plain) <= 2 * CONTRACT * np.maximum(1, np.abs(plain))).all()


@each_norm
def test_weights_count_as_repetitions_do(name: str, backend: str) -> None:
    x = sample((4, 6, 7), dtype=np.float64)
    times = np.array([2, 0, 1, 3, 1, 0, 2])
    running = [(np.zeros(6), np.ones(6)) for _ in range(2)] if name == "batch_norm" else [(), ()]
    keywords = [options(name, **dict(zip(("running_mean", "running_var"), pair, strict=False))) for pair in running]
    with fastnorm.config(backend=backend):
        repeated, expected = norm(name, np.repeat(x, times, axis=2), **keywords[0], return_stats=True)
        y, stats = norm(name, x, **keywords[1], weights=times, return_stats=True)
    # float64: sums of 36 elements, and deviations up to ten times smaller than the values they come from.
    np.testing.assert_allclose(np.repeat(y, times, axis=2), repeated, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(stats.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(stats.rstd, expected.rstd, rtol=1e-13)
    for ours, theirs in zip(running[1], running[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@each_norm
@pytest.mark.parametrize("axis", [1, -1])
@each_kind
@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 1e4), (np.float64, 2.0**40)])
def test_means_of_many_standard_deviations_cost_nothing(
    name: str, axis: int, kind: str, dtype: Any, offset: float, backend: str
) -> None:
    shape = (4, 6, 300) if axis == 1 else (4, 300, 6)
    x = (np.random.default_rng(3).standard_normal(shape) + offset).astype(dtype)
    given, counts = counting(kind, shape)
    x[counts == 0] = 0  # padding, as many standard deviations away
    right = exact(name, x.astype(np.longdouble) - offset, counts, axis)  # the same, and easy
    with fastnorm.config(backend=backend):
        y = norm(name, x, **options(name, axis), **given)
    # In float64 the sum of squares has roundings of its own: 16 and a few for NumPy's pairwise sums, half in the root.
    units = 4 if dtype == np.float32 else 16
    limit = units * float(np.finfo(dtype).eps) / 2 * np.maximum(1, np.abs(right.xhat))
    assert (np.abs(y - right.xhat) <= limit).all()


@each_norm
@each_kind
def test_whatever_lies_under_the_mask_changes_nothing_else(name: str, kind: str, backend: str) -> None:
    x = sample((4, 6, 7))
    given, counts = counting(kind, x.shape)
    left_out = counts == 0
    running = {"running_mean": np.zeros(6), "running_var": np.ones(6)} if name == "batch_norm" else {}
    found = []
    with fastnorm.config(backend=backend):
        for padding in (0.0, 3e38, np.inf, -np.inf, np.nan):
            damaged = np.where(left_out, np.float32(padding), x)
            kept = {key: value.copy() for key, value in running.items()}
            y, stats = norm(name, damaged, **options(name), **given, **kept, return_stats=True)
            assert left_out.any()
            assert np.isfinite(padding) or not np.isfinite(y[left_out]).any()
            found.append((y[~left_out], *stats, *kept.values()))
    assert all(np.isfinite(part).all() for part in found[0])
    for other in found[1:]:
        for part, expected in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(part, expected)


@each_norm
@pytest.mark.parametrize("form", [(7,), (6, 1), (1, 7), (4, 1, 7), (4, 6, 1), (1, 6, 7), (4, 1, 1)], ids=str)
def test_masks_and_weights_broadcast(name: str, form: tuple[int, ...], backend: str) -> None:
    x, dy = sample((4, 6, 7)), sample((4, 6, 7), 1)
    rng = np.random.default_rng(2)
    where, weights = rng.random(form) < 0.8, rng.random((7,)) + 0.5
    where[(0,) * len(form)] = True
    if name == "batch_norm" and form == (6, 1):
        where[...] = True  # each channel needs values
    with fastnorm.config(backend=backend):
        for given in ({"where": where}, {"weights": where * 1.5}, {"where": where, "weights": weights}):
            full = {key: np.broadcast_to(value, x.shape).copy() for key, value in given.items()}
            y = norm(name, x, **options(name), **given)
            np.testing.assert_array_equal(y, norm(name, x, **options(name), **full))
            found, expected = (backward(name, dy, x, **options(name), **part) for part in (given, full))
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "sizes", [(3, 5, 70), (2, 150, 3), (1, 1, 1), (40, 7, 1), (2, 64, 16), (1, 3, 40_000)], ids=str
)
def test_kernels_agree_with_the_reference_and_to_the_bit_with_each_other(
    last: bool, dtype: Any, sizes: tuple[int, int, int], cython_labels: list[str], threads_for_all: None
) -> None:
    items, channels, spatial = sizes
    rng = np.random.default_rng(0)
    shape = (items, spatial, channels) if last else sizes
    x, dy = (rng.standard_normal(shape).astype(dtype) + dtype(3) for _ in range(2))
    numbers = [rng.standard_normal((items, channels)) for _ in range(5)]
    reference = registry.load("reference")
    for shared in (False, True):
        weights = rng.random(shape) * (rng.random(shape) < 0.7)
        if shared:
            weights = np.ascontiguousarray(weights[..., :1] if last else weights[:, :1])
        x[np.broadcast_to(weights == 0, shape)] = np.nan
        dy[np.broadcast_to(weights == 0, shape)] = 0
        found = []
        for label in cython_labels:
            for threads in (1, 4):
                with fastnorm.config(num_threads=threads):
                    made = [*implementation(label).counted_moments(x, weights, last)]
                    made += implementation(label).counted_dots(x, dy, weights, last, numbers[0])
                    dx = np.empty_like(x)
                    implementation(label).counted_grad(x, dy, dx, weights, last, *numbers)
                    found.append([*made, dx])
        for other in found[1:]:
            assert [part.tobytes() for part in other] == [part.tobytes() for part in found[0]]
        expected = [*reference.counted_moments(x, weights, last)]
        expected += reference.counted_dots(x, dy, weights, last, numbers[0])
        dx = np.empty_like(x)
        reference.counted_grad(x, dy, dx, weights, last, *numbers)
        # Chains of up to 1,024 float64 additions, one of up to 40 of these, of terms of the order of 10; NumPy's are
        # pairwise. Each addition rounds a sum that grows up to `spatial` terms.
        additions = min(spatial, 1024) + spatial // 1024
        limit = float(np.finfo(np.float64).eps) / 2 * additions * 10
        (hi, lo, m2, sums, products, ours), (his, los, m2s, *others) = found[0], expected
        np.testing.assert_allclose(hi + lo, his + los, rtol=0, atol=limit)
        for part, right in zip((m2, sums, products), (m2s, *others), strict=True):
            np.testing.assert_allclose(part, right, rtol=0, atol=limit * spatial)
        np.testing.assert_allclose(ours, dx, rtol=0, atol=float(np.finfo(dtype).eps) * 100)


@pytest.mark.parametrize("name", ["instance_norm", "group_norm"])
def test_an_item_that_is_all_padding_becomes_the_bias_and_harms_no_gradient(name: str, backend: str) -> None:
    x, dy = sample((3, 6, 5)), sample((3, 6, 5), 1)
    where = np.array([True, False, True]).reshape(3, 1, 1)
    weight, bias = np.linspace(1, 2, 6, dtype=np.float32), np.linspace(-1, 1, 6, dtype=np.float32)
    with fastnorm.config(backend=backend):
        y, stats = norm(name, x, weight=weight, bias=bias, **options(name), where=where, return_stats=True)
        without = norm(name, x[::2], weight=weight, bias=bias, **options(name), where=True)
        found = backward(name, dy, x, weight=weight, **options(name), where=where)
        again = backward(name, dy, x, weight=weight, **options(name), where=where, **stats._asdict())
        others = backward(name, dy[::2], x[::2], weight=weight, **options(name), where=True)
        x[1] = np.nan
        of_nan = backward(name, dy, x, weight=weight, **options(name), where=where)
    np.testing.assert_array_equal(y[::2], without)
    np.testing.assert_array_equal(y[1], np.broadcast_to(bias[:, np.newaxis], (6, 5)))
    np.testing.assert_array_equal(stats.mean[1], np.zeros((6, 1)))
    np.testing.assert_array_equal(stats.rstd[1], np.zeros((6, 1)))
    np.testing.assert_array_equal(found.dx[1], np.zeros((6, 5)))
    for gradients in (found, again, of_nan):
        np.testing.assert_array_equal(gradients.dx[::2], others.dx)
        np.testing.assert_array_equal(gradients.dweight, others.dweight)


@each_norm
@pytest.mark.parametrize("shape", [(0, 6, 4), (3, 6, 0), (3, 0, 4)])
def test_an_empty_batch_has_an_empty_result(name: str, shape: tuple[int, ...], backend: str) -> None:
    x = np.zeros(shape, np.float32)
    with fastnorm.config(backend=backend):
        y, stats = norm(name, x, **options(name), where=np.ones(shape[2], bool), return_stats=True)
        found = backward(name, x, x, **options(name), weights=np.ones(shape))
    assert y.shape == found.dx.shape == shape
    assert stats.mean.shape == stats.rstd.shape
    np.testing.assert_array_equal(found.dweight, np.zeros(shape[1]))


@each_norm
def test_out_dtype_and_strides(name: str, backend: str) -> None:
    x = sample((4, 6, 7))
    given, _ = counting("both", x.shape)
    with fastnorm.config(backend=backend):
        y = norm(name, x, **options(name), **given)
        out = np.empty_like(x)
        assert norm(name, x, **options(name), **given, out=out) is out
        np.testing.assert_array_equal(out, y)
        in_place = x.copy()
        assert norm(name, in_place, **options(name), **given, out=in_place) is in_place
        np.testing.assert_array_equal(in_place, y)
        turned = {key: np.ascontiguousarray(value[::-1, :, ::-1])[::-1, :, ::-1] for key, value in given.items()}
        strided = np.asfortranarray(x)
        np.testing.assert_array_equal(norm(name, strided, **options(name), **turned), y)
        wide = norm(name, x, **options(name), **given, dtype=np.float64)
        assert wide.dtype == np.float64
        np.testing.assert_array_equal(wide, norm(name, x.astype(np.float64), **options(name), **given))
        half = norm(name, x.astype(np.float16), **options(name), **given)
        np.testing.assert_array_equal(
            half, norm(name, x.astype(np.float16).astype(np.float32), **options(name), **given).astype(np.float16)
        )


@each_norm
def test_plain_calls_heed_the_mask(name: str) -> None:
    """Without any other keyword, where the fast path serves the call that has no mask."""
    x, dy = sample((4, 6, 7)), sample((4, 6, 7), 1)
    given, counts = counting("both", x.shape)
    own = {key: value for key, value in options(name).items() if key != "channel_axis"}
    right = exact(name, x, counts, 1)
    for part in ({"where": given["where"]}, {"weights": given["weights"]}, given):
        y = norm(name, x, **own, **part)
        dx = backward(name, dy, x, **own, **part).dx
        assert not np.allclose(y, norm(name, x, **own), atol=1e-3)
        assert not np.allclose(dx, backward(name, dy, x, **own).dx, atol=1e-3)
    assert (np.abs(y - right.xhat) <= CONTRACT * np.maximum(1, np.abs(right.xhat))).all()


@pytest.mark.parametrize("shape", [(4, 6, 7), (4, 6)])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_residual_is_added_before_the_statistics_are_taken(
    shape: tuple[int, ...], activation: str | None, backend: str
) -> None:
    x, residual = sample(shape), sample(shape, 1)
    given, _ = counting("where", shape)
    with fastnorm.config(backend=backend):
        for keep in (False, True):
            found = fastnorm.group_norm(
                x, GROUPS, **given, residual=residual, return_residual=keep, activation=activation
            )
            expected = fastnorm.group_norm(x + residual, GROUPS, **given)
            y, total = found if keep else (found, x + residual)
            np.testing.assert_array_equal(y, expected if activation is None else np.maximum(expected, 0))
            np.testing.assert_array_equal(total, x + residual)


# Running statistics


@each_layout
@each_kind
@pytest.mark.parametrize("convention", ["torch", "keras", "onnx", "flax"])
def test_running_statistics_follow_the_convention(
    shape: tuple[int, ...], axis: int, kind: str, convention: str, backend: str
) -> None:
    x = sample(shape, dtype=np.float64)
    given, counts = counting(kind, shape, 5)
    running_mean, running_var = np.linspace(-1, 1, 6), np.linspace(0.5, 2, 6)
    expected_mean, expected_var = running_mean.copy(), running_var.copy()
    new = 0.3 if convention == "torch" else 0.7
    for c in range(6):
        w, values = np.take(counts, c, axis).ravel(), np.take(x, c, axis).ravel()
        mean = np.average(values, weights=w)
        m2 = (w * (values - mean) ** 2).sum()
        divisor = w.sum() - 1 if convention == "torch" else w.sum()
        expected_mean[c] += new * (mean - expected_mean[c])
        expected_var[c] += new * (m2 / divisor - expected_var[c])
    with fastnorm.config(backend=backend):
        fastnorm.batch_norm(
            x, running_mean, running_var, training=True, momentum=0.3, convention=convention, channel_axis=axis, **given
        )
    # float64 sums of at most 60 elements; means of the order of what they are made of.
    np.testing.assert_allclose(running_mean, expected_mean, rtol=1e-12)
    np.testing.assert_allclose(running_var, expected_var, rtol=1e-12)


# Errors: nothing is changed

BAD: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "where must be of bool, got float64", {"where": np.ones((4, 6, 7))}),
    (TypeError, "where must be of bool, got int64", {"where": np.ones((4, 6, 7), np.int64)}),
    (TypeError, "where must have a real number dtype", {"where": "all"}),
    (TypeError, "where must be an array", {"where": [[True], [True, False]]}),
    (
        ValueError,
        r"where must broadcast to the shape of x, \(4, 6, 7\), got \(4, 7\)",
        {"where": np.ones((4, 7), bool)},
    ),
    (ValueError, "where must broadcast", {"where": np.ones((1, 4, 6, 7), bool)}),
    (ValueError, r"weights must broadcast to the shape of x, \(4, 6, 7\), got \(6,\)", {"weights": np.ones(6)}),
    (ValueError, "weights must be finite and not negative, got -1", {"weights": [1, 1, 1, 1, 1, 1, -1.0]}),
    (ValueError, "weights must be finite and not negative, got nan", {"weights": np.nan}),
    (ValueError, "weights must be finite and not negative, got inf", {"weights": np.inf}),
    (TypeError, "weights must have a real number dtype", {"weights": np.ones((4, 6, 7), complex)}),
]


def refuse(error: type[Exception], message: str, function: str, **bad: Any) -> None:
    """Assert that a call is refused, and that nothing was written."""
    name = function.removesuffix("_backward")
    x, out = sample((4, 6, 7)), np.full((4, 6, 7), 9, np.float32)
    running = {"running_mean": np.zeros(6), "running_var": np.ones(6)} if function == "batch_norm" else {}
    arguments = (x,) if function == name else (x, x)
    with pytest.raises(error, match=f"^{function}: {message}"):
        getattr(fastnorm, function)(*arguments, **options(name, **running, out=out) | bad)
    assert (out == 9).all()
    if running:
        assert (running["running_mean"] == 0).all()
        assert (running["running_var"] == 1).all()


@pytest.mark.parametrize("function", [*NORMS, *(f"{name}_backward" for name in NORMS)])
@pytest.mark.parametrize(("error", "message", "bad"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_mask_or_weight_is_refused(
    function: str, error: type[Exception], message: str, bad: dict[str, Any]
) -> None:
    refuse(error, message, function, **bad)


@pytest.mark.parametrize("function", ["batch_norm", "batch_norm_backward"])
def test_inference_takes_no_mask(function: str) -> None:
    for given in ({"where": True}, {"weights": 1.0}):
        refuse(ValueError, "where and weights must not be given unless", function, training=False, **given)


@pytest.mark.parametrize("function", ["batch_norm", "batch_norm_backward"])
@pytest.mark.parametrize("left", [0, 1])
def test_training_needs_two_values_that_count(function: str, left: int) -> None:
    where = np.ones((4, 6, 7), bool)
    where[:, 3] = False
    where[2, 3, :left] = True
    message = f"training needs more than one value per channel, got {left}"
    refuse(ValueError, message, function, where=where)
    refuse(ValueError, message, function, weights=where * 5)
    refuse(ValueError, message, function, where=where, weights=5)


def test_an_unbiased_variance_needs_weights_of_more_than_one() -> None:
    shares = np.full((4, 1, 7), 1 / 28)
    refuse(ValueError, "weights must add up to more than 1 in each channel", "batch_norm", weights=shares / 2)
    x = sample((4, 6, 7), dtype=np.float64)
    expected = fastnorm.batch_norm(x, training=True)
    mean, var = np.zeros(6), np.zeros(6)
    for keywords in ({"running_mean": mean}, {"running_var": var, "convention": "keras", "eps": 1e-5}):
        y = fastnorm.batch_norm(x, training=True, weights=shares / 2, **keywords)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)  # float64 sums of 28 elements
    np.testing.assert_allclose(var, 0.01 * x.var(axis=(0, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_line_is_constant_whatever_was_left_out(dtype: Any, backend: str) -> None:
    rng = np.random.default_rng(0)
    for value in (0.7, 0.1, 1e5 / 3):
        for length in (3, 7, 50, 1001):
            x, weights = np.full((2, 4, length), value, dtype), rng.uniform(0.1, 3, (2, 4, length))
            x[..., 1], weights[..., 1] = 5, 0
            for y in (
                fastnorm.group_norm(x, 2, weights=weights, eps=0, backend=backend),
                fastnorm.batch_norm(x, training=True, weights=weights, eps=0, backend=backend),
            ):
                np.testing.assert_array_equal(np.delete(y, 1, 2), 0)


def test_weights_that_add_up_to_one_train_nothing(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 1)).astype(np.float32)
    with pytest.raises(ValueError, match="weights must add up to more than 1"):
        fastnorm.batch_norm(x, np.zeros(1), np.ones(1), training=True, weights=np.full((4, 1), 0.25), backend=backend)
    found = fastnorm.batch_norm_backward(x[::-1], x, training=True, weights=np.full((4, 1), 0.2), backend=backend)
    assert np.isfinite(found.dx).all()


def test_an_item_that_is_left_out_sends_nothing_to_the_weight(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    x[1] = np.nan
    where = np.ones((2, 1, 4), bool)
    where[1] = False
    found = fastnorm.instance_norm_backward(np.ones_like(x), x, np.ones(3), where=where, backend=backend)
    assert np.isfinite(found.dweight).all()
