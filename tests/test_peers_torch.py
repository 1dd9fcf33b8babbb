"""Parity with PyTorch 2.13 on the CPU: the functions and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from peer_cases import DTYPES, Shape, affine, sample, sample_gradients, statistics
from torch_cases import assert_close, assert_gradient, leaf, tensor, torch

import fastnorm

functional = torch.nn.functional

# The functions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize(("shape", "length"), [((5, 768), 1), ((2, 3, 7), 1), ((3, 4, 5), 2), ((1, 1), 1), ((0, 4), 1)])
def test_layer_norm(shape: Shape, length: int, with_affine: bool, dtype: Any) -> None:
    x, lines, axes = sample(shape, dtype), shape[-length:], tuple(range(-length, 0))
    weight, bias = affine(lines, dtype, with_affine)
    for eps in (1e-5, 0.5):
        theirs = functional.layer_norm(tensor(x), lines, tensor(weight), tensor(bias), eps)
        assert_close(fastnorm.layer_norm(x, weight, bias, axis=axes, eps=eps), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize(("shape", "length"), [((5, 768), 1), ((2, 3, 7), 1), ((3, 4, 5), 2), ((1, 1), 1), ((0, 4), 1)])
def test_rms_norm(shape: Shape, length: int, with_affine: bool, dtype: Any) -> None:
    x, lines, axes = sample(shape, dtype), shape[-length:], tuple(range(-length, 0))
    weight, _ = affine(lines, dtype, with_affine)
    for eps in (1e-6, 0.5):
        theirs = functional.rms_norm(tensor(x), lines, tensor(weight), eps)
        assert_close(fastnorm.rms_norm(x, weight, axis=axes, eps=eps), theirs)


BATCHES = [(64, 5), (1, 5), (4, 6, 9), (3, 6, 8, 7), (2, 16, 32, 32), (2, 3, 4, 5, 6), (0, 3, 4)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_batch_norm_in_inference(shape: Shape, with_affine: bool, dtype: Any) -> None:
    x, channels = sample(shape, dtype), shape[1:2]
    weight, bias = affine(channels, dtype, with_affine)
    mean, var = statistics(channels, dtype)
    theirs = functional.batch_norm(tensor(x), tensor(mean), tensor(var), tensor(weight), tensor(bias), eps=1e-3)
    assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, eps=1e-3), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("shape", [shape for shape in BATCHES if shape != (1, 5)], ids=str)
def test_batch_norm_in_training(shape: Shape, with_affine: bool, dtype: Any) -> None:
    channels = shape[1:2]
    weight, bias = affine(channels, dtype, with_affine)
    mean, var = np.zeros(channels, dtype), np.ones(channels, dtype)
    their_mean, their_var = tensor(mean), tensor(var)
    for step, momentum in enumerate((0.1, 0.3, 1.0)):
        x = sample(shape, dtype, step)
        theirs = functional.batch_norm(
            tensor(x), their_mean, their_var, tensor(weight), tensor(bias), training=True, momentum=momentum
        )
        assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, training=True, momentum=momentum), theirs)
        assert_close(mean, their_mean)
        assert_close(var, their_var)
    last = fastnorm.batch_norm(np.moveaxis(x, 1, -1), None, None, weight, bias, training=True, channel_axis=-1)
    assert_close(np.moveaxis(last, -1, 1), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("shape", [(4, 6, 9), (3, 6, 8, 7), (2, 16, 32, 32), (2, 3, 4, 5, 6)], ids=str)
def test_instance_norm(shape: Shape, with_affine: bool, dtype: Any) -> None:
    x = sample(shape, dtype)
    weight, bias = affine(shape[1:2], dtype, with_affine)
    theirs = functional.instance_norm(tensor(x), weight=tensor(weight), bias=tensor(bias), eps=1e-3)
    assert_close(fastnorm.instance_norm(x, weight, bias, eps=1e-3), theirs)
    last = fastnorm.instance_norm(np.moveaxis(x, 1, -1), weight, bias, eps=1e-3, channel_axis=-1)
    assert_close(np.moveaxis(last, -1, 1), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("num_groups", [1, 2, 6])
@pytest.mark.parametrize(
    "shape", [(5, 12), (4, 6, 9), (3, 12, 8, 7), (2, 6, 32, 32), (2, 6, 4, 5, 6), (0, 6, 4)], ids=str
)
def test_group_norm(shape: Shape, num_groups: int, with_affine: bool, dtype: Any) -> None:
    x = sample(shape, dtype)
    weight, bias = affine(shape[1:2], dtype, with_affine)
    theirs = functional.group_norm(tensor(x), num_groups, tensor(weight), tensor(bias), 1e-3)
    assert_close(fastnorm.group_norm(x, num_groups, weight, bias, eps=1e-3), theirs)
    last = fastnorm.group_norm(np.moveaxis(x, 1, -1), num_groups, weight, bias, eps=1e-3, channel_axis=-1)
    assert_close(np.moveaxis(last, -1, 1), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 20])
@pytest.mark.parametrize("shape", [(2, 7, 9), (2, 7, 5, 6), (2, 3, 4, 5, 2), (0, 3, 4)], ids=str)
def test_local_response_norm(shape: Shape, size: int, dtype: Any) -> None:
    x = sample(shape, dtype)
    for options in ({}, {"alpha": 0.5, "beta": 0.75, "k": 2.0}, {"alpha": 1.0, "beta": 0.3}):
        theirs = functional.local_response_norm(tensor(x), size, **options)
        assert_close(fastnorm.local_response_norm(x, size, **options), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("shape", [(5, 384), (2, 3, 7), (2, 3, 4, 5), (2, 0, 4)], ids=str)
def test_l2_normalize(shape: Shape, axis: int, dtype: Any) -> None:
    x = sample(shape, dtype)
    x[:1] = 0  # lines of zeros stay so
    assert_close(fastnorm.l2_normalize(x, axis=axis), functional.normalize(tensor(x), dim=axis))
    theirs = functional.normalize(tensor(x), dim=axis, eps=3.0)
    assert_close(fastnorm.l2_normalize(x, axis=axis, eps=3.0), theirs)
    for power in (1, 3, np.inf) if x.size else (1, 3):  # an empty line has no largest element in torch
        assert_close(fastnorm.lp_normalize(x, p=power, axis=axis), functional.normalize(tensor(x), power, dim=axis))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 4), (3, 8), (5, 3, 2, 2)], ids=str)
def test_spectral_norm(shape: Shape, dtype: Any) -> None:
    w = sample(shape, dtype)
    matrix = tensor(w).flatten(1)
    holder = torch.nn.Module()
    holder.weight = torch.nn.Parameter(tensor(w))
    hooked = torch.nn.utils.spectral_norm(holder, n_power_iterations=2)
    u = hooked.weight_u.numpy().copy()
    for hook in hooked._forward_pre_hooks.values():  # the three steps of a forward pass in training
        hook(hooked, ())
    ours = fastnorm.spectral_norm(w, u, n_power_iterations=2)
    assert_close(ours.weight, hooked.weight)
    np.testing.assert_allclose(ours.u, hooked.weight_u, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.sigma, hooked.weight_u @ matrix @ hooked.weight_v, rtol=1e-5)
    converged = fastnorm.spectral_norm(w, n_power_iterations=300)
    np.testing.assert_allclose(converged.sigma, torch.linalg.matrix_norm(matrix, ord=2), rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("shape", [(6, 4), (5, 3, 2, 2)], ids=str)
def test_weight_norm(shape: Shape, axis: int | None, dtype: Any) -> None:
    holder = torch.nn.Module()
    holder.weight = torch.nn.Parameter(tensor(sample(shape, dtype)))
    torch.nn.utils.parametrizations.weight_norm(holder, dim=axis)
    parts = holder.parametrizations.weight
    with torch.no_grad():
        parts.original0.mul_(1.5).add_(0.25)
    g, v = (part.detach().numpy() for part in (parts.original0, parts.original1))
    assert_close(fastnorm.weight_norm(v, g, axis=axis), holder.weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [0.5, 7.0, 1e3])
def test_clip_by_global_norm(max_norm: float, dtype: Any) -> None:
    gradients = sample_gradients(dtype)
    parameters = [torch.nn.Parameter(tensor(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = tensor(gradient)
    theirs = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    clipped, norm = fastnorm.clip_by_global_norm(gradients, max_norm)
    np.testing.assert_allclose(norm, theirs, rtol=1e-6)
    for ours, parameter in zip(clipped, parameters, strict=True):  # torch divides by norm + 1e-6
        np.testing.assert_allclose(ours, parameter.grad, rtol=1e-5)
    parameters[0].grad = torch.full_like(parameters[0], torch.nan)
    with pytest.raises(RuntimeError, match="non-finite"):
        torch.nn.utils.clip_grad_norm_(parameters, max_norm, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="nan"):
        fastnorm.clip_by_global_norm([np.full((6, 4), np.nan), *gradients[1:]], max_norm, error_if_nonfinite=True)


# Their gradients, by autograd in float64


def assert_gradients(found: Any, x: Any, weight: Any, bias: Any = None) -> None:
    """Compare with what autograd has left in the leaves."""
    assert_gradient(found.dx, x)
    if weight is not None:
        assert_gradient(found.dweight, weight)
    if bias is not None:
        assert_gradient(found.dbias, bias)


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize(
    ("shape", "length"), [((5, 768), 1), ((2, 3, 7), 1), ((3, 4, 5), 2), ((1, 1), 1), ((0, 4), 1), ((2, 9001), 1)]
)
def test_gradients_of_layer_and_rms_norm(shape: Shape, length: int, with_affine: bool) -> None:
    x, dy, lines, axes = sample(shape, float), sample(shape, float, 9), shape[-length:], tuple(range(-length, 0))
    weight, bias = affine(lines, float, with_affine)
    for eps in (1e-5, 0.5):
        leaves = leaf(x), leaf(weight), leaf(bias)
        functional.layer_norm(leaves[0], lines, *leaves[1:], eps).backward(tensor(dy))
        assert_gradients(fastnorm.layer_norm_backward(dy, x, weight, axis=axes, eps=eps), *leaves)
        leaves = leaf(x), leaf(weight)
        functional.rms_norm(leaves[0], lines, leaves[1], eps).backward(tensor(dy))
        assert_gradients(fastnorm.rms_norm_backward(dy, x, weight, axis=axes, eps=eps), *leaves)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("shape", [shape for shape in BATCHES if shape != (1, 5)], ids=str)
def test_gradients_of_batch_norm(shape: Shape, with_affine: bool, training: bool) -> None:
    x, dy, channels = sample(shape, float), sample(shape, float, 9), shape[1:2]
    weight, bias = affine(channels, float, with_affine)
    mean, var = statistics(channels, float)
    leaves = leaf(x), leaf(weight), leaf(bias)
    functional.batch_norm(leaves[0], tensor(mean), tensor(var), *leaves[1:], training, eps=1e-3).backward(tensor(dy))
    options: dict[str, Any] = {"running_mean": mean, "running_var": var, "training": training, "eps": 1e-3}
    assert_gradients(fastnorm.batch_norm_backward(dy, x, weight, **options), *leaves)
    last = (np.moveaxis(part, 1, -1) for part in (dy, x))
    found = fastnorm.batch_norm_backward(*last, weight, **options, channel_axis=-1)
    assert_gradients(found._replace(dx=np.moveaxis(found.dx, -1, 1)), *leaves)


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("shape", [(4, 6, 9), (3, 6, 8, 7), (2, 6, 32, 32), (2, 6, 4, 5, 6)], ids=str)
def test_gradients_of_instance_and_group_norm(shape: Shape, with_affine: bool) -> None:
    x, dy = sample(shape, float), sample(shape, float, 9)
    weight, bias = affine(shape[1:2], float, with_affine)
    last = tuple(np.moveaxis(part, 1, -1) for part in (dy, x))
    leaves = leaf(x), leaf(weight), leaf(bias)
    functional.instance_norm(leaves[0], weight=leaves[1], bias=leaves[2], eps=1e-3).backward(tensor(dy))
    assert_gradients(fastnorm.instance_norm_backward(dy, x, weight, eps=1e-3), *leaves)
    found = fastnorm.instance_norm_backward(*last, weight, eps=1e-3, channel_axis=-1)
    assert_gradients(found._replace(dx=np.moveaxis(found.dx, -1, 1)), *leaves)
    for groups in (1, 2, 6):
        leaves = leaf(x), leaf(weight), leaf(bias)
        functional.group_norm(leaves[0], groups, *leaves[1:], 1e-3).backward(tensor(dy))
        assert_gradients(fastnorm.group_norm_backward(dy, x, groups, weight, eps=1e-3), *leaves)
        found = fastnorm.group_norm_backward(*last, groups, weight, eps=1e-3, channel_axis=-1)
        assert_gradients(found._replace(dx=np.moveaxis(found.dx, -1, 1)), *leaves)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 20])
@pytest.mark.parametrize("shape", [(2, 7, 9), (2, 7, 5, 6), (2, 3, 4, 5, 2)], ids=str)
def test_gradients_of_local_response_norm(shape: Shape, size: int) -> None:
    x, dy = sample(shape, float), sample(shape, float, 9)
    for options in ({}, {"alpha": 0.5, "beta": 0.75, "k": 2.0}, {"alpha": 1.0, "beta": 0.3}):
        source = leaf(x)
        functional.local_response_norm(source, size, **options).backward(tensor(dy))
        assert_gradient(fastnorm.local_response_norm_backward(dy, x, size, **options), source)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("shape", [(5, 384), (2, 3, 7), (2, 3, 4, 5), (2, 0, 4)], ids=str)
def test_gradients_of_l2_normalize_and_pixel_norm(shape: Shape, axis: int) -> None:
    x, dy = sample(shape, float), sample(shape, float, 9)
    for eps in (1e-12, 3.0):
        source = leaf(x)
        functional.normalize(source, dim=axis, eps=eps).backward(tensor(dy))
        assert_gradient(fastnorm.l2_normalize_backward(dy, x, axis=axis, eps=eps), source)
    source = leaf(x)
    functional.rms_norm(source.movedim(axis, -1), (shape[axis],), eps=1e-8).movedim(-1, axis).backward(tensor(dy))
    assert_gradient(fastnorm.pixel_norm_backward(dy, x, channel_axis=axis), source)
