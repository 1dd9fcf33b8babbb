"""Layers told which elements count: where= and weights= of a call, and of the backward pass after it."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from masked_cases import counting, each_kind
from nn_cases import BATCH, CHANNELS, DIMENSIONS, INSTANCE, SHAPES, randomized, sample, unchanged

import fastnorm
from fastnorm import nn

Array = np.ndarray
Masked = Any  # one of the layers that take a mask

LAYERS: list[tuple[Masked, tuple[int, ...]]] = [
    *((BATCH[name](CHANNELS), SHAPES[ndim]) for name, dimensions in DIMENSIONS.items() for ndim in dimensions),
    *((INSTANCE[name](CHANNELS, affine=True), SHAPES[dimensions[-1]]) for name, dimensions in DIMENSIONS.items()),
    *((INSTANCE[name](CHANNELS), SHAPES[dimensions[-1]][1:]) for name, dimensions in DIMENSIONS.items()),
    (nn.BatchNorm2d(CHANNELS, convention="keras", channel_axis=-1), (3, 5, 4, CHANNELS)),
    (nn.BatchNorm1d(CHANNELS, track_running_stats=False, bias=False), SHAPES[3]),
    (nn.InstanceNorm1d(CHANNELS, channel_axis=-1), (4, 7, CHANNELS)),
    (nn.GroupNorm(3, CHANNELS), SHAPES[4]),
    (nn.GroupNorm(2, CHANNELS, affine=False, channel_axis=-1), (3, 5, 4, CHANNELS)),
]
each_layer = pytest.mark.parametrize(
    ("layer", "shape"), [pytest.param(*case, id=f"{case[0]!r} {case[1]}") for case in LAYERS]
)


def function_of(layer: Masked) -> tuple[str, dict[str, Any]]:
    """Return the function that a layer is in training, and its options."""
    options = {"channel_axis": layer.channel_axis, "eps": layer.eps}
    if isinstance(layer, nn.GroupNorm):
        return "group_norm", options | {"num_groups": layer.num_groups}
    return ("instance_norm", options) if "Instance" in type(layer).__name__ else ("batch_norm", options)


# What they compute


@each_layer
@each_kind
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_with_a_mask_is_the_function(layer: Masked, shape: tuple[int, ...], kind: str, training: bool) -> None:
    layer = randomized(copy.deepcopy(layer)).train(training)
    name, options = function_of(layer)
    x, dy, (given, _) = sample(shape), sample(shape, 1), counting(kind, shape)
    running = {} if layer.buffers() == {} else {"running_mean": layer.running_mean, "running_var": layer.running_var}
    if training or not running:
        expected_running = {key: value.copy() for key, value in running.items()}
        mode = {"training": True} if name == "batch_norm" else {}
        forward = expected_running | mode | given
        backward = mode | given
        if running and name == "batch_norm":
            forward |= {"convention": layer.convention, "momentum": layer.momentum}
    else:  # there is nothing to count
        name, expected_running, forward, backward = "batch_norm", running, running, running
    alone = name == "instance_norm" and len(shape) == min(type(layer)._dimensions)
    inputs = (x[np.newaxis], dy[np.newaxis]) if alone else (x, dy)
    expected = getattr(fastnorm, name)(inputs[0], weight=layer.weight, bias=layer.bias, **options, **forward)
    gradients = getattr(fastnorm, f"{name}_backward")(inputs[1], inputs[0], weight=layer.weight, **options, **backward)

    np.testing.assert_array_equal(layer(x, **given), expected[0] if alone else expected)
    np.testing.assert_array_equal(layer.backward(dy), gradients.dx[0] if alone else gradients.dx)
    for key, gradient in layer.gradients().items():
        np.testing.assert_array_equal(gradient, getattr(gradients, f"d{key}"))
    for key, value in expected_running.items():
        np.testing.assert_array_equal(layer.buffers()[key], value)


@each_layer
def test_lists_do_as_well(layer: Masked, shape: tuple[int, ...]) -> None:
    x, dy, (given, _) = sample(shape), sample(shape, 1), counting("both", shape)
    one, other = copy.deepcopy(layer), copy.deepcopy(layer)
    np.testing.assert_array_equal(
        one(x.astype(np.float64), **given), other(x.tolist(), **{key: value.tolist() for key, value in given.items()})
    )
    np.testing.assert_array_equal(one.backward(dy), other.backward(dy.tolist()))


# Padded sequences


LENGTHS = (7, 3, 5, 2)
LONGEST = max(LENGTHS)


def descend(layer: nn.Layer, gradients: dict[str, Array]) -> None:
    for name, parameter in layer.parameters().items():
        parameter -= 0.1 * gradients[name]


def sequences(step: int) -> tuple[list[Array], list[Array], Array]:
    """Return sequences (C, L) of unequal lengths, the gradients of their results, and which positions are theirs."""
    rng = np.random.default_rng(step)
    x, dy = ([rng.normal(1, 2, (CHANNELS, length)) for length in LENGTHS] for _ in range(2))
    mask = np.arange(LONGEST) < np.array(LENGTHS)[:, np.newaxis]
    return x, dy, mask[:, np.newaxis]


def padded(parts: list[Array], value: float) -> Array:
    return np.stack(
        [np.pad(part, ((0, 0), (0, LONGEST - part.shape[1])), constant_values=value) for part in parts]
    )  # fmt: skip


@pytest.mark.parametrize("padding", [0.0, 1e30, np.nan])
def test_a_padded_batch_trains_as_its_positions_do(padding: float) -> None:
    """BatchNorm: the batch is all positions of all sequences, in any arrangement."""
    masked, plain = (nn.BatchNorm1d(CHANNELS, dtype=np.float64) for _ in range(2))
    for step in range(5):
        x, dy, mask = sequences(step)
        y = masked(padded(x, padding), where=mask)
        dx = masked.backward(padded(dy, 0.0))
        expected = plain(np.concatenate(x, axis=1).T)
        expected_dx = plain.backward(np.concatenate(dy, axis=1).T)
        kept = np.broadcast_to(mask, y.shape)
        # float64 sums of 17 elements of the order of 10, and at most 5 steps with them.
        for ours, theirs in ((y, expected), (dx, expected_dx)):
            np.testing.assert_allclose(ours.transpose(0, 2, 1)[mask[:, 0]], theirs, rtol=1e-12, atol=1e-12)
        assert not dx[~kept].any()
        for layer in (masked, plain):
            descend(layer, layer.gradients())
    for name, value in masked.state_dict().items():
        np.testing.assert_allclose(value, plain.state_dict()[name], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("padding", [0.0, 1e30, np.nan])
@pytest.mark.parametrize(
    "made",
    [
        lambda: nn.GroupNorm(2, CHANNELS, dtype=np.float64),
        lambda: nn.InstanceNorm1d(CHANNELS, affine=True, dtype=np.float64),
        lambda: nn.InstanceNorm1d(CHANNELS, affine=True, track_running_stats=True, momentum=None, dtype=np.float64),
    ],
    ids=["group", "instance", "instance, tracking"],
)
def test_a_padded_batch_trains_as_its_sequences_do_one_by_one(made: Any, padding: float) -> None:
    """Group and instance normalization: items know nothing of each other, so the gradients of parameters add up."""
    masked, plain = made(), made()
    for step in range(5):
        x, dy, mask = sequences(step)
        # An item that is all padding comes along.
        where = np.concatenate([mask, np.zeros((1, 1, LONGEST), bool)])
        batch, upstream = (
            np.concatenate([part, np.full((1, *part.shape[1:]), value)])
            for part, value in ((padded(x, padding), padding), (padded(dy, 0.0), 0.0))
        )
        y = masked(batch, where=where)
        dx = masked.backward(upstream)
        totals = {name: np.zeros_like(parameter) for name, parameter in plain.parameters().items()}
        for item, (sequence, gradient) in enumerate(zip(x, dy, strict=True)):
            length = sequence.shape[1]
            expected = plain(sequence[np.newaxis])[0], plain.backward(gradient[np.newaxis])[0]
            for ours, theirs in zip((y, dx), expected, strict=True):
                np.testing.assert_allclose(ours[item, :, :length], theirs, rtol=1e-12, atol=1e-12)
            for name in totals:
                totals[name] += plain.gradients()[name]
        assert not dx[~np.broadcast_to(where, dx.shape)].any()
        descend(masked, masked.gradients())
        descend(plain, totals)
    for name, value in masked.parameters().items():
        np.testing.assert_allclose(value, plain.parameters()[name], rtol=1e-12, atol=1e-12, err_msg=name)


# Running statistics


@pytest.mark.parametrize("channel_axis", [1, -1])
@each_kind
def test_instance_norm_averages_the_items_that_count(channel_axis: int, kind: str) -> None:
    layer: Masked = nn.InstanceNorm1d(
        CHANNELS, track_running_stats=True, momentum=0.25, channel_axis=channel_axis, dtype=np.float64
    )
    x = sample((4, CHANNELS, 9), dtype=np.float64)
    given, counts = counting(kind, x.shape, 3)
    given = {name: part.copy() for name, part in given.items()}
    for name in given:
        given[name][2, :3] = 0  # nothing counts in these
    counts = np.where(np.indices(counts.shape)[0] == 2, counts * (np.indices(counts.shape)[1] > 2), counts)
    x[2, :3] = np.nan
    expected_mean, expected_var = np.zeros(CHANNELS), np.zeros(CHANNELS)
    for c in range(CHANNELS):
        items = [n for n in range(4) if counts[n, c].any()]
        assert len(items) == (3 if c < 3 else 4)
        means = [np.average(x[n, c], weights=counts[n, c]) for n in items]
        variances = [
            (counts[n, c] * (x[n, c] - mean) ** 2).sum() / (counts[n, c].sum() - 1)
            for n, mean in zip(items, means, strict=True)
        ]
        expected_mean[c], expected_var[c] = np.mean(means), np.mean(variances)
    layer(np.moveaxis(x, 1, channel_axis), **{name: np.moveaxis(part, 1, channel_axis) for name, part in given.items()})
    # float64 sums of 9 elements.
    np.testing.assert_allclose(layer.running_mean, 0.25 * expected_mean, rtol=1e-13)
    np.testing.assert_allclose(layer.running_var, 0.75 + 0.25 * expected_var, rtol=1e-13)


def test_weights_of_an_average_over_all_batches() -> None:
    layer = nn.BatchNorm1d(2, momentum=None, dtype=np.float64)
    batches, times = sample((3, 8, 2), dtype=np.float64), np.array([1, 2, 0, 1, 3, 1, 0, 1])
    for batch in batches:
        layer(batch, weights=times[:, np.newaxis])
    repeated = np.repeat(batches, times, axis=1)
    np.testing.assert_allclose(layer.running_mean, repeated.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, repeated.var(axis=1, ddof=1).mean(axis=0), rtol=1e-12)


# Modes, and what is kept


def test_the_mask_is_that_of_the_last_call() -> None:
    x, dy, (given, _) = sample(SHAPES[4]), sample(SHAPES[4], 1), counting("both", SHAPES[4])
    for layer in (nn.BatchNorm2d(CHANNELS), nn.GroupNorm(2, CHANNELS), nn.InstanceNorm2d(CHANNELS)):
        layer(x)
        plain = layer.backward(dy)
        layer(x, **given)
        layer.eval()
        masked = layer.backward(dy)
        layer.train()(x, **given)
        layer(x)
        np.testing.assert_array_equal(layer.backward(dy), plain)
        assert not np.allclose(masked, plain)


def test_training_keeps_the_mask_until_the_backward_pass_without_a_copy() -> None:
    x, layer = sample(SHAPES[3]), nn.GroupNorm(2, CHANNELS)
    where, weights = np.ones((4, 1, 7), bool), np.ones(7)
    kept = weakref.ref(where), weakref.ref(weights)
    layer(x, where=where, weights=weights)
    del where, weights
    gc.collect()
    assert all(part() is not None for part in kept)
    layer.backward(x)
    gc.collect()
    assert all(part() is None for part in kept)


@pytest.mark.parametrize("name", ["where", "weights"])
def test_inference_keeps_no_mask_alive(name: str) -> None:
    x, layer = sample(SHAPES[3]), nn.GroupNorm(2, CHANNELS).eval()
    mask = np.ones((4, 1, 7), bool)
    layer(x, **{name: mask})
    layer.backward(x)  # the caller has it still
    layer(x, **{name: mask})
    del mask
    gc.collect()
    with pytest.raises(RuntimeError, match=f"GroupNorm: {name} of the last call is gone: in inference"):
        layer.backward(x)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(CHANNELS), nn.InstanceNorm1d(CHANNELS, track_running_stats=True)])
def test_inference_by_running_statistics_needs_no_mask_to_go_backward(layer: Masked) -> None:
    layer, x = randomized(copy.deepcopy(layer)).eval(), sample(SHAPES[3])
    y = layer(x, where=np.zeros((1, 1, 7), bool))
    dx = layer.backward(x)
    np.testing.assert_array_equal(y, layer(x))
    np.testing.assert_array_equal(dx, layer.backward(x))


# Errors

BAD: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "where must be of bool, got float64", {"where": np.ones((4, 6, 7))}),
    (TypeError, "where must be an array of numbers", {"where": [[True], [True, False]]}),
    (TypeError, "weights must have a real number dtype", {"weights": np.ones(7, complex)}),
    (
        ValueError,
        r"where must broadcast to the shape of x, \(4, 6, 7\), got \(4, 7\)",
        {"where": np.ones((4, 7), bool)},
    ),
    (ValueError, "where must broadcast", {"where": np.ones((1, 4, 6, 7), bool)}),
    (ValueError, "weights must be finite and not negative, got -1", {"weights": -np.ones(7)}),
    (ValueError, "weights must be finite and not negative, got inf", {"weights": np.full(7, np.inf)}),
]


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(CHANNELS), nn.InstanceNorm1d(CHANNELS, track_running_stats=True), nn.GroupNorm(2, CHANNELS)],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("error", "message", "bad"), BAD, ids=[row[1][:40] for row in BAD])
def test_a_bad_mask_is_refused_in_either_mode(
    layer: Masked, training: bool, error: type[Exception], message: str, bad: dict[str, Any]
) -> None:
    layer, x = randomized(copy.deepcopy(layer)).train(training), sample((4, 6, 7))
    layer(x)
    expected = layer.backward(x)
    layer(x)
    state = layer.state_dict()
    with pytest.raises(error, match=f"^{type(layer).__name__}: {message}"):
        layer(x, **bad)
    assert unchanged(layer, state)
    np.testing.assert_array_equal(layer.backward(x), expected, "that of the last call that was one")


@pytest.mark.parametrize(
    "weights",
    [np.full((4, 6, 7), 1 / 7), np.zeros((4, 6, 7)), np.eye(4)[0].reshape(4, 1, 1) / 7],
    ids=["1 in all", "0 in all", "1 in one item"],
)
def test_running_variances_need_weights_of_more_than_one(weights: Array) -> None:
    x, where = sample((4, 6, 7)), np.ones((4, 6, 7), bool)
    layer = nn.InstanceNorm1d(CHANNELS, track_running_stats=True)
    state = layer.state_dict()
    for given in ({"weights": weights}, {"where": where, "weights": weights}):
        with pytest.raises(ValueError, match=r"^InstanceNorm1d: where and weights must add up to more than 1"):
            layer(x, **given)
    assert unchanged(layer, state)
    for other in (nn.InstanceNorm1d(CHANNELS), nn.InstanceNorm1d(CHANNELS, track_running_stats=True, momentum=None)):
        assert np.isfinite(other(x, weights=weights)).all()


def test_training_by_the_batch_needs_two_values_that_count() -> None:
    layer, x = nn.BatchNorm1d(CHANNELS), sample((4, 6, 7))
    where = np.ones((4, 6, 7), bool)
    where[:, 3] = False
    state = layer.state_dict()
    with pytest.raises(ValueError, match="training needs more than one value per channel, got 0"):
        layer(x, where=where)
    assert unchanged(layer, state)


@pytest.mark.parametrize("layer", [nn.LayerNorm(7), nn.RMSNorm(7), nn.PixelNorm(), nn.SwitchableNorm2d(CHANNELS)])
def test_other_layers_take_no_mask(layer: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'where'"):
        layer(sample(SHAPES[4]), where=True)
