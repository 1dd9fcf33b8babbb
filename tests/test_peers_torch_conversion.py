"""Modules of PyTorch 2.13 as layers, and their arrays in files that both read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn_cases import needs_safetensors
from peer_cases import Shape, sample
from torch_cases import as_tensors, assert_close, torch

from fastnorm import nn

DTYPES = [torch.float16, torch.float32, torch.float64]

TRACKING: list[Mapping[str, Any]] = [
    {"affine": True, "track_running_stats": True, "momentum": None, "eps": 1e-2},
    {"affine": False, "track_running_stats": True, "momentum": 0.3},
    {"affine": True, "track_running_stats": False, "bias": False},
    {"affine": False, "track_running_stats": False},
    {},
]
SHAPES = {"1d": (4, 6, 9), "2d": (3, 6, 8, 7), "3d": (2, 6, 4, 5, 3)}
MODULES: list[tuple[str, tuple[Any, ...], Mapping[str, Any], Shape]] = [
    *((kind + n, (6,), o, s) for kind in ("BatchNorm", "InstanceNorm") for n, s in SHAPES.items() for o in TRACKING),
    ("LayerNorm", (7, 1e-12), {}, (5, 7)),
    ("LayerNorm", ((6, 7),), {"bias": False}, (4, 6, 7)),
    ("LayerNorm", ((6, 7), 1e-2, False), {}, (4, 6, 7)),
    ("RMSNorm", (7,), {}, (5, 7)),
    ("RMSNorm", ((6, 7), 1e-2), {}, (4, 6, 7)),
    ("RMSNorm", (7, None, False), {}, (5, 7)),
    ("GroupNorm", (2, 6, 1e-2), {}, (3, 6, 8, 7)),
    ("GroupNorm", (3, 6), {"bias": False}, (3, 6, 9)),
    ("GroupNorm", (6, 6, 1e-2, False), {}, (3, 6, 9)),
    ("LocalResponseNorm", (4, 0.5, 0.6, 2.0), {}, (3, 6, 9)),
]


def sample_tensor(shape: Shape, seed: int = 0) -> Any:
    """Return a sample in float64, which becomes a tensor of another dtype by PyTorch's own rounding."""
    return torch.from_numpy(sample(shape, float, seed))


def randomized(module: Any, seed: int = 0) -> Any:
    """Give parameters and buffers values that are not the first ones."""
    with torch.no_grad():
        for index, array in enumerate([*module.parameters(), *module.buffers()]):
            least = 0.5 if array.is_floating_point() else 3
            array.copy_(sample_tensor(tuple(array.shape), seed + index).abs() + least)
    return module


def assert_states_equal(ours: nn.Layer, theirs: Any) -> None:
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    for name, array in state.items():
        np.testing.assert_array_equal(array, expected[name].float().numpy() if array.ndim else expected[name].numpy())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "arguments", "options", "shape"), MODULES, ids=str)
def test_a_module_becomes_the_layer_that_it_is(
    name: str, arguments: tuple[Any, ...], options: Mapping[str, Any], shape: Shape, dtype: Any, training: bool
) -> None:
    theirs = randomized(getattr(torch.nn, name)(*arguments, **options).to(dtype)).train(training)
    ours = nn.from_torch(theirs)
    assert type(ours) is getattr(nn, name)
    assert repr(ours) == repr(theirs)
    assert ours.training == training
    for array, tensor in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        np.testing.assert_array_equal(array, tensor.numpy(), strict=True)
    for step in range(2):
        x = sample_tensor(shape, step).to(dtype)
        assert_close(ours(x.numpy()), theirs(x))
    for key, tensor in theirs.state_dict().items():
        assert_close(ours.state_dict()[key], tensor)
    again = getattr(torch.nn, name)(*arguments, **options).to(dtype)
    again.load_state_dict(as_tensors(ours.state_dict()), strict=True)
    ours.load_state_dict(again.state_dict(), strict=True)
    assert_close(ours.eval()(x.numpy()), again.eval()(x))


def test_the_layer_is_a_copy() -> None:
    theirs = randomized(torch.nn.BatchNorm2d(6))
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    ours: Any = nn.from_torch(theirs)
    ours(sample_tensor((3, 6, 8, 7)).float().numpy())
    ours.weight *= 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.state_dict().items())


def test_bfloat16_becomes_float32() -> None:
    theirs = randomized(torch.nn.BatchNorm2d(6).bfloat16())
    ours = nn.from_torch(theirs)
    assert ours.parameters()["weight"].dtype == np.float32
    assert_states_equal(ours, theirs)
    assert_states_equal(nn.from_state_dict(theirs.state_dict()), theirs)
    fresh = nn.BatchNorm2d(6)
    fresh.load_state_dict(theirs.state_dict())
    assert_states_equal(fresh, theirs)


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm1d, torch.nn.InstanceNorm1d])
def test_tracking_that_was_switched_off_stays_so(kind: Any) -> None:
    theirs = randomized(kind(6, track_running_stats=True))
    theirs.track_running_stats = False
    ours, x = nn.from_torch(theirs), sample_tensor((9, 6, 5)).float()
    for mode in (True, False):
        assert_close(ours.train(mode)(x.numpy()), theirs.train(mode)(x))
    if kind is torch.nn.BatchNorm1d:  # torch's instances go on moving what they do not read, in inference too
        assert_states_equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_parameters_that_the_kind_has_not_are_named() -> None:
    reparametrized = torch.nn.utils.weight_norm(torch.nn.LayerNorm(6))
    with pytest.raises(TypeError, match=r"arrays of torch\.nn\.LayerNorm, weight, bias, got bias, weight_g"):
        nn.from_torch(reparametrized)
    lone = torch.nn.BatchNorm1d(6)
    lone.weight = None
    with pytest.raises(TypeError, match="module must have the arrays of "):
        nn.from_torch(lone)


class Renamed(torch.nn.LayerNorm):
    """Adds nothing."""


class ChannelsFirst(torch.nn.LayerNorm):
    """Does something else with the same parameters."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def test_statistics_that_were_taken_away() -> None:
    uncounted = torch.nn.BatchNorm2d(3)
    uncounted.num_batches_tracked = None
    assert nn.from_torch(uncounted).num_batches_tracked == 0
    module = torch.nn.BatchNorm2d(3)
    module.running_mean = module.running_var = None
    layer = nn.from_torch(module.eval())
    assert list(layer.state_dict()) == ["weight", "bias"]
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32)
    assert_close(layer(x), module(torch.from_numpy(x)))  # by those of the batch, for want of others


def test_parameters_that_are_elsewhere_are_refused() -> None:
    module = torch.nn.LayerNorm(3)
    torch.nn.utils.parametrize.register_parametrization(module, "weight", torch.nn.ReLU())
    with pytest.raises(TypeError, match="from_torch: module must have parameters of its own"):
        nn.from_torch(module)
    with pytest.raises(TypeError, match="from_torch: weight must be a tensor that NumPy can hold"):
        nn.from_torch(torch.nn.LayerNorm(3, device="meta"))


def test_derived_classes() -> None:
    assert repr(nn.from_torch(Renamed(6))) == repr(nn.LayerNorm(6))
    patched = torch.nn.LayerNorm(6)
    patched.forward = lambda x: x
    for module in (ChannelsFirst(6), patched):
        with pytest.raises(TypeError, match=f"got {type(module).__name__}, a LayerNorm with a forward of its own"):
            nn.from_torch(module)


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Linear(3, 4),
        torch.nn.Sequential(torch.nn.LayerNorm(3)),
        torch.nn.SyncBatchNorm(3),
        torch.nn.LazyBatchNorm2d(),
        torch.nn.LayerNorm,
    ],
    ids=lambda module: type(module).__name__,
)
def test_other_modules_are_refused(module: Any) -> None:
    with pytest.raises(TypeError, match="from_torch: module must be one of torch.*, got " + type(module).__name__):
        nn.from_torch(module)


def model() -> Any:
    layers = [
        ("stem", torch.nn.Conv2d(3, 6, 3)),
        ("norm", torch.nn.BatchNorm2d(6)),
        ("group", torch.nn.GroupNorm(2, 6)),
    ]
    return randomized(torch.nn.Sequential(OrderedDict([("body", torch.nn.Sequential(OrderedDict(layers)))])))


def test_norms_of_a_model() -> None:
    theirs = model()
    kinds = (torch.nn.BatchNorm2d, torch.nn.GroupNorm)
    by_module = {name: nn.from_torch(part) for name, part in theirs.named_modules() if isinstance(part, kinds)}
    assert list(by_module) == ["body.norm", "body.group"]
    state = theirs.state_dict()
    by_keys = {
        "body.norm": nn.from_state_dict(state, "body.norm"),
        "body.group": nn.from_state_dict(state, "body.group", kind="GroupNorm", num_groups=2),
    }
    for name, layer in by_module.items():
        assert repr(by_keys[name]) == repr(layer)
        assert_states_equal(by_keys[name], theirs.get_submodule(name))
        assert_states_equal(layer, theirs.get_submodule(name))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16], ids=str)
def test_files_of_safetensors_are_read_by_both(dtype: Any, tmp_path: Path) -> None:
    needs_safetensors()
    safetensors = pytest.importorskip("safetensors.torch", reason="this safetensors has no part for torch")
    theirs = model().to(dtype)
    safetensors.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    state = nn.load(tmp_path / "theirs.safetensors")
    nn.save(state, tmp_path / "ours.safetensors")
    loaded = safetensors.load_file(tmp_path / "ours.safetensors")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
        assert str(state[name].dtype) == str(tensor.dtype).removeprefix("torch.")
    layer = nn.from_state_dict(state, "body.norm")
    assert_states_equal(layer, theirs.get_submodule("body.norm"))
    nn.save({"body.norm": layer}, tmp_path / "norm.safetensors")
    found = torch.nn.BatchNorm2d(6).to(dtype)
    part = safetensors.load_file(tmp_path / "norm.safetensors")
    found.load_state_dict({name.removeprefix("body.norm."): tensor for name, tensor in part.items()}, strict=True)
    assert_states_equal(layer, found)


def test_tensors_can_be_saved(tmp_path: Path) -> None:
    theirs = model()
    nn.save(theirs.state_dict(), tmp_path / "model.npz")
    for name, array in nn.load(tmp_path / "model.npz").items():
        np.testing.assert_array_equal(array, theirs.state_dict()[name].numpy(), strict=True)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, device="meta"),
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.ones(3).to_sparse(),
    ],
    ids=["meta", "float8", "sparse"],
)
def test_tensors_that_numpy_cannot_hold_are_named(tensor: torch.Tensor, tmp_path: Path) -> None:
    layer = nn.RMSNorm(3)
    for name, call in (
        ("RMSNorm: weight", lambda: layer.load_state_dict({"weight": tensor})),
        ("RMSNorm: weight", lambda: setattr(layer, "weight", tensor)),
        ("save: a", lambda: nn.save({"a": tensor}, tmp_path / "a.npz")),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be a tensor that NumPy can hold"):
            call()
    np.testing.assert_array_equal(layer.weight, 1)


def test_tensors_that_are_negative_by_a_bit() -> None:
    layer = nn.RMSNorm(3)
    layer.load_state_dict({"weight": torch._neg_view(torch.ones(3))})
    np.testing.assert_array_equal(layer.weight, -1)
