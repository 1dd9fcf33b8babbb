"""Parity with PyTorch 2.13 on the CPU: every layer of `fastnorm.nn`, its gradients and its state_dict."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from peer_cases import DTYPES, Shape, sample
from torch_cases import as_tensors, assert_close, assert_gradient, assert_states_close, leaf, tensor, torch

import fastnorm
from fastnorm import nn

functional = torch.nn.functional

BATCH_SHAPES = {"1d": [(16, 6), (4, 6, 9)], "2d": [(3, 6, 8, 7)], "3d": [(2, 6, 4, 5, 3)]}
INSTANCE_SHAPES = {"1d": [(4, 6, 9), (6, 9)], "2d": [(3, 6, 8, 7), (6, 8, 7)], "3d": [(2, 6, 4, 5, 3), (6, 4, 5, 3)]}
TRACKING_OPTIONS = [
    {"affine": True, "track_running_stats": True, "momentum": 0.3},
    {"affine": True, "track_running_stats": True, "momentum": None, "eps": 1e-2},
    {"affine": False, "track_running_stats": True},
    {"affine": True, "track_running_stats": False, "bias": False},
    {"affine": False, "track_running_stats": False},
    {},
]
LAYERS: list[tuple[str, tuple[Any, ...], Mapping[str, Any], Shape]] = [
    *(("BatchNorm" + n, (6,), o, s) for n in BATCH_SHAPES for s in BATCH_SHAPES[n] for o in TRACKING_OPTIONS),
    *(("InstanceNorm" + n, (6,), o, s) for n in INSTANCE_SHAPES for s in INSTANCE_SHAPES[n] for o in TRACKING_OPTIONS),
    ("LayerNorm", (7,), {}, (5, 7)),
    ("LayerNorm", ((6, 7), 1e-2), {"bias": False}, (4, 6, 7)),
    ("LayerNorm", ((6, 7), 1e-2, False), {}, (4, 6, 7)),
    ("RMSNorm", (7,), {}, (5, 7)),
    ("RMSNorm", ((6, 7), 1e-2), {}, (4, 6, 7)),
    ("RMSNorm", ((6, 7), None, False), {}, (4, 6, 7)),
    ("GroupNorm", (2, 6), {}, (3, 6, 8, 7)),
    ("GroupNorm", (3, 6, 1e-2), {"bias": False}, (3, 6)),
    ("GroupNorm", (6, 6, 1e-2, False), {}, (3, 6, 9)),
    ("LocalResponseNorm", (3,), {}, (3, 6, 8, 7)),
    ("LocalResponseNorm", (4, 0.5, 0.6, 2.0), {}, (3, 6, 9)),
]


def pair(name: str, arguments: tuple[Any, ...], options: Mapping[str, Any], dtype: Any) -> tuple[Any, Any]:
    """Return the layer of that name of ours and of torch."""
    if name == "LocalResponseNorm":
        return nn.LocalResponseNorm(*arguments), torch.nn.LocalResponseNorm(*arguments)
    theirs = getattr(torch.nn, name)(*arguments, **options, dtype=tensor(np.zeros(0, dtype)).dtype)
    return getattr(nn, name)(*arguments, **options, dtype=dtype), theirs


def randomize(theirs: Any, dtype: Any, seed: int = 10) -> None:
    """Give the parameters values that are not the first ones."""
    with torch.no_grad():
        for index, parameter in enumerate(theirs.parameters()):
            parameter.copy_(tensor(sample(tuple(parameter.shape), dtype, seed + index)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS, ids=str)
def test_layer(name: str, arguments: tuple[Any, ...], options: Mapping[str, Any], shape: Shape, dtype: Any) -> None:
    ours, theirs = pair(name, arguments, options, dtype)
    assert repr(ours) == repr(theirs)
    assert_states_close(ours, theirs)
    randomize(theirs, dtype)
    ours.load_state_dict(theirs.state_dict())
    for step in range(3):
        x = sample(shape, dtype, step)
        assert_close(ours(x), theirs(tensor(x)))
        assert_states_close(ours, theirs)
    assert_close(ours.eval()(x), theirs.eval()(tensor(x)))
    assert_states_close(ours, theirs)

    fresh_ours, fresh_theirs = pair(name, arguments, options, dtype)
    fresh_ours.load_state_dict(theirs.state_dict())
    fresh_theirs.load_state_dict(as_tensors(ours.state_dict()))
    assert_close(fresh_ours.eval()(x), theirs(tensor(x)))
    assert_close(ours(x), fresh_theirs.eval()(tensor(x)))


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS, ids=str)
def test_gradients_of_layers(name: str, arguments: tuple[Any, ...], options: Mapping[str, Any], shape: Shape) -> None:
    ours, theirs = pair(name, arguments, options, np.float64)
    randomize(theirs, float)
    ours.load_state_dict(theirs.state_dict())
    compare_gradients(ours, theirs, shape)


def compare_gradients(ours: nn.Layer, theirs: Any, shape: Shape) -> None:
    """Take two passes in training, the second with running statistics that have moved, and one in inference."""
    for step, training in enumerate((True, True, False)):
        x, dy, source = sample(shape, float, step), sample(shape, float, step + 5), leaf(sample(shape, float, step))
        theirs.train(training).zero_grad()
        theirs(source).backward(tensor(dy))
        ours.train(training)(x)
        assert_gradient(ours.backward(dy), source)
        gradients, named = ours.gradients(), dict(theirs.named_parameters())
        assert list(gradients) == list(named)
        for key, gradient in gradients.items():
            assert_gradient(gradient, named[key])


def test_rms_norm_of_half_precision_has_the_eps_of_float32() -> None:
    x = np.full((2, 4), 1e-3, np.float16)
    theirs = torch.nn.RMSNorm(4, dtype=torch.float16)(tensor(x)).detach().numpy()
    np.testing.assert_allclose(nn.RMSNorm(4, dtype=np.float16)(x), theirs, rtol=2**-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixel_norm(dtype: Any) -> None:
    x = sample((2, 6, 5, 4), dtype)
    theirs = functional.rms_norm(tensor(x).movedim(1, -1), (6,), eps=1e-8).movedim(-1, 1)
    assert_close(nn.PixelNorm()(x), theirs)
    assert_close(fastnorm.pixel_norm(x), theirs)


class TorchSwitchableNorm(torch.nn.Module):
    """Equations 3 to 5 of the paper, with the running statistics of torch's BatchNorm."""

    def __init__(self, channels: int, dtype: Any) -> None:
        super().__init__()
        options = {"dtype": dtype}
        self.weight = torch.nn.Parameter(torch.ones(channels, **options))
        self.bias = torch.nn.Parameter(torch.zeros(channels, **options))
        self.mean_weight = torch.nn.Parameter(torch.ones(3, **options))
        self.var_weight = torch.nn.Parameter(torch.ones(3, **options))
        self.register_buffer("running_mean", torch.zeros(channels, **options))
        self.register_buffer("running_var", torch.ones(channels, **options))

    def forward(self, x: Any) -> Any:
        if self.training:
            batch = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            unbiased = x.var((0, 2, 3))
            with torch.no_grad():
                self.running_mean.lerp_(batch[0], 0.1)
                self.running_var.lerp_(unbiased, 0.1)
        else:
            batch = self.running_mean, self.running_var
        means = x.mean((2, 3), keepdim=True), x.mean((1, 2, 3), keepdim=True), batch[0].view(1, -1, 1, 1)
        variances = (
            x.var((2, 3), correction=0, keepdim=True),
            x.var((1, 2, 3), correction=0, keepdim=True),
            batch[1].view(1, -1, 1, 1),
        )
        mean = sum(share * part for share, part in zip(self.mean_weight.softmax(0), means, strict=True))
        variance = sum(share * part for share, part in zip(self.var_weight.softmax(0), variances, strict=True))
        scaled = (x - mean) / (variance + 1e-5).sqrt()
        return scaled * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_switchable_norm(dtype: Any) -> None:
    theirs = TorchSwitchableNorm(6, tensor(np.zeros(0, dtype)).dtype)
    randomize(theirs, dtype, seed=0)
    ours = nn.SwitchableNorm2d(6, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    for step in range(3):
        x = sample((3, 6, 5, 4), dtype, step)
        assert_close(ours(x), theirs(tensor(x)))
        assert_states_close(ours, theirs)
    assert_close(ours.eval()(x), theirs.eval()(tensor(x)))
    again = copy.deepcopy(theirs)
    again.load_state_dict(as_tensors(ours.state_dict()))
    assert_close(ours(x), again(tensor(x)))
    if dtype == np.float64:
        compare_gradients(ours, theirs, (3, 6, 5, 4))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("BatchNorm1d", (2, 6, 3, 3)),
        ("BatchNorm1d", (1, 6)),
        ("BatchNorm2d", (6, 3, 3)),
        ("InstanceNorm1d", (6,)),
        ("InstanceNorm1d", (2, 6, 1)),
        ("InstanceNorm2d", (2, 6)),
        ("InstanceNorm3d", (6, 3, 3)),
    ],
)
def test_layers_reject_the_same_shapes(name: str, shape: Shape) -> None:
    ours, theirs = pair(name, (6,), {}, np.float32)
    x = sample(shape, np.float32)
    with pytest.raises(ValueError, match="input"):
        theirs(tensor(x))
    with pytest.raises(ValueError, match=f"{name}|batch_norm"):
        ours(x)
