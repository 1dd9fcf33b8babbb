"""Layers from the arrays of a state_dict, and as HTML; what `from_torch` refuses where there is no torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from nn_cases import layers, randomized, sample, unchanged

from fastnorm import nn

Array = np.ndarray

# What the keys do not tell.
OPTIONS = ("eps", "momentum", "channel_axis", "num_groups")


def with_prefix(prefix: str, state: Mapping[str, Array]) -> dict[str, Array]:
    return {prefix + name: array for name, array in state.items()}


# From a state_dict


@pytest.mark.parametrize("prefix", ["", "norm", "encoder.0.norm."])
@pytest.mark.parametrize("layer", [case for case in layers() if case.values[0].state_dict()])
def test_a_layer_is_made_from_its_arrays(layer: Any, prefix: str) -> None:
    source = randomized(copy.deepcopy(layer))
    start = prefix if not prefix or prefix.endswith(".") else prefix + "."
    model = with_prefix(start, source.state_dict()) | {f"{start}0.weight": np.ones(2), "other.bias": np.ones(3)}
    model |= {"normal.weight": np.ones(9), "encoder.weight": np.ones(8)}
    options = {name: getattr(source, name) for name in OPTIONS if hasattr(source, name)}
    if not {"weight", "running_mean"} & set(source.state_dict()):  # a SwitchableNorm2d with its mixtures alone
        options["num_features"] = source.num_features
    for kind in (type(source), type(source).__name__):
        made = nn.from_state_dict(model, prefix, kind=kind, **options)
        assert type(made) is type(source)
        assert repr(made) == repr(source)
        assert unchanged(made, source.state_dict())
        assert made.training
        for name, array in {**made.parameters(), **made.buffers()}.items():
            assert not np.may_share_memory(array, model[start + name])


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.SwitchableNorm2d(4),
        nn.SwitchableNorm2d(4, track_running_stats=False),
        nn.LayerNorm((3, 4)),
    ],
    ids=repr,
)
def test_the_kind_is_inferred_where_the_keys_tell_it(layer: nn.Layer) -> None:
    assert repr(nn.from_state_dict(layer.state_dict())) == repr(layer)


@pytest.mark.parametrize(
    ("layer", "likely"),
    [
        (nn.LayerNorm(4), "kind='LayerNorm', 'GroupNorm' or 'InstanceNorm2d'"),
        (nn.GroupNorm(2, 4), "kind='LayerNorm', 'GroupNorm' or 'InstanceNorm2d'"),
        (nn.LayerNorm((3, 4), bias=False), "kind='RMSNorm' or 'LayerNorm'"),
        (nn.RMSNorm(4), "kind='RMSNorm' or 'LayerNorm'"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_kind_must_be_given_where_the_keys_do_not_tell_it(layer: nn.Layer, likely: str) -> None:
    with pytest.raises(ValueError, match=r"from_state_dict: the keys 'weight'.* do not tell the kind: give ") as caught:
        nn.from_state_dict(layer.state_dict())
    assert str(caught.value).endswith(likely)


def test_the_dtype_is_that_of_the_arrays_or_what_is_asked_for() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        state = nn.BatchNorm2d(3, dtype=dtype).state_dict()
        assert nn.from_state_dict(state).running_mean.dtype == dtype
        assert nn.from_state_dict(state, dtype="float64").weight.dtype == np.float64
    mixed = nn.BatchNorm2d(3, dtype=np.float16).state_dict() | {"running_var": np.ones(3, np.float32)}
    assert nn.from_state_dict(mixed).weight.dtype == np.float32
    assert nn.from_state_dict({"weight": [1, 2]}, kind="RMSNorm").weight.dtype == np.float32


def test_options_that_the_keys_do_not_tell() -> None:
    state = nn.BatchNorm3d(3, affine=False).state_dict()
    made = nn.from_state_dict(state, kind=nn.BatchNorm3d, convention="keras", channel_axis=-1)
    assert repr(made) == repr(nn.BatchNorm3d(3, affine=False, convention="keras", channel_axis=-1))
    assert nn.from_state_dict({"weight": np.ones(3)}, kind="LayerNorm", eps=1e-12).eps == 1e-12


def test_arrays_of_the_authors_of_switchable_norm() -> None:
    state = randomized(nn.SwitchableNorm2d(3)).state_dict()
    theirs = {name: a.reshape(1, 3, 1, 1) if name in ("weight", "bias") else a for name, a in state.items()}
    assert unchanged(nn.from_state_dict(theirs), state)


VECTOR = np.ones(4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([("weight", VECTOR)],), TypeError, "mapping must be a mapping, got list"),
        (({"weight": VECTOR}, None), TypeError, "prefix must be a str, got NoneType"),
        (({},), ValueError, "mapping must have keys '' .* got none"),
        (({"a.weight": VECTOR}, "b"), ValueError, r"mapping must have keys 'b\.' .* got none"),
        (({"a.b.weight": VECTOR}, "a"), ValueError, r"mapping must have keys 'a\.' .* got none"),
        (({"weight": ["a"]}, "", "RMSNorm"), TypeError, "'weight' must have a real number dtype"),
        (({"weight": VECTOR}, "", "InstanceNorm"), ValueError, "kind must be one of BatchNorm1d, .*'InstanceNorm'"),
        (({"weight": VECTOR}, "", nn.RMSNorm(4)), TypeError, "kind must be a class of fastnorm.nn or its name, got R"),
        (({"weight": VECTOR}, "", dict), TypeError, "kind must be a class of fastnorm.nn or its name"),
        (({"weight": VECTOR}, "", "PixelNorm"), ValueError, "PixelNorm has no arrays"),
        (({"weight": VECTOR}, "", "GroupNorm"), ValueError, "GroupNorm: the keys do not tell num_groups: give num_gr"),
        (({"num_batches_tracked": 3}, "", "BatchNorm1d"), ValueError, "do not tell num_features"),
        (({"weight": VECTOR}, "", "RMSNorm", {"epsilon": 1}), TypeError, "RMSNorm has no option 'epsilon'"),
        (({"weight": VECTOR}, "", "LayerNorm", {"bias": True}), TypeError, "LayerNorm: bias follows from the keys"),
    ],
)
def test_what_from_state_dict_refuses(arguments: Any, error: type[Exception], message: str) -> None:
    mapping, prefix, kind, options = (*arguments, *("", None, {})[len(arguments) - 1 :])
    with pytest.raises(error, match=f"^from_state_dict: .*{message}"):
        nn.from_state_dict(mapping, prefix, kind=kind, **options)


def test_keys_and_shapes_of_another_layer() -> None:
    for state, error, message in (
        ({"weight": VECTOR, "scale": VECTOR}, KeyError, "LayerNorm: load_state_dict: unexpected 'scale'"),
        ({"bias": VECTOR}, KeyError, "LayerNorm: load_state_dict: missing 'weight'"),
        ({"weight": VECTOR, "bias": np.ones(3)}, ValueError, r"LayerNorm: bias must have shape \(4,\), got \(3,\)"),
    ):
        with pytest.raises(error, match=message):
            nn.from_state_dict(state, kind="LayerNorm")
    with pytest.raises(ValueError, match=r"BatchNorm2d: weight must have shape \(8,\), got \(8, 3, 3, 3\)"):
        nn.from_state_dict({"weight": np.ones((8, 3, 3, 3))}, kind="BatchNorm2d")


# From torch, without it


def test_from_torch_refuses_what_is_no_norm_of_torch() -> None:
    class Linear:
        """A stand-in for torch's."""

    class LayerNorm:
        """One of another library."""

    Linear.__module__ = "torch.nn.modules.linear"
    for module in (Linear(), LayerNorm(), nn.LayerNorm(3), None, "LayerNorm"):
        with pytest.raises(TypeError, match=r"from_torch: module must be one of torch.nn.BatchNorm1d, ") as caught:
            nn.from_torch(module)
        assert str(caught.value).endswith(f"torch.nn.LocalResponseNorm, got {type(module).__name__}")


# As HTML


def test_html_has_the_arrays_with_their_statistics() -> None:
    layer = nn.BatchNorm1d(4)
    layer.weight = [1, 2, 3, 4]
    layer.num_batches_tracked = 7
    text = layer._repr_html_()
    assert text.startswith(f"<code>{layer!r}</code><table>")
    assert "<td>weight</td><td>(4,)</td><td>float32</td><td>2.5</td><td>1.118</td>" in text
    assert "<td>num_batches_tracked</td><td>()</td><td>int64</td><td>7</td><td></td>" in text
    assert text.count("<tr>") == 1 + len(layer.state_dict())
    assert nn.PixelNorm()._repr_html_() == "<code>PixelNorm(eps=1e-08)</code>"


def test_html_is_escaped_and_shows_what_is_not_finite() -> None:
    class Markup(nn.RMSNorm):
        def extra_repr(self) -> str:
            return "<b>&"

    layer: Any = Markup(3)
    layer.weight = [np.nan, np.inf, 1]
    text = layer._repr_html_()
    assert text.startswith("<code>Markup(&lt;b&gt;&amp;)</code>")
    assert "<td>nan</td><td>nan</td>" in text


def test_a_layer_that_was_made_from_arrays_works() -> None:
    source = randomized(nn.BatchNorm2d(3)).eval()
    x = sample((2, 3, 4, 5))
    np.testing.assert_array_equal(nn.from_state_dict(source.state_dict()).eval()(x), source(x))


def test_arrays_that_do_not_make_a_layer() -> None:
    ones = np.ones(3)
    layer: Any = {1: ones, "weight": ones, "bias": ones, "running_mean": ones, "running_var": ones}
    assert isinstance(nn.from_state_dict(layer), nn.BatchNorm2d), "names that are none are not looked at"
    with pytest.raises(ValueError, match="do not tell the kind"):
        nn.from_state_dict({"running_mean": ones, "bias": ones})
    for others in ({}, {"weight": ones, "bias": ones}):
        with pytest.raises(KeyError, match="running_mean"):
            nn.from_state_dict({"running_var": ones, **others}, kind="BatchNorm1d")
