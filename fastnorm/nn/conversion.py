"""Layers made from modules of torch, and from the arrays of a state_dict."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm.dtypes import is_floating
from fastnorm.nn import tensors
from fastnorm.nn.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from fastnorm.nn.group import GroupNorm
from fastnorm.nn.instance import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from fastnorm.nn.layer import Layer
from fastnorm.nn.lines import LayerNorm, RMSNorm
from fastnorm.nn.local_response import LocalResponseNorm
from fastnorm.nn.pixel import PixelNorm
from fastnorm.nn.running import RunningLayer
from fastnorm.nn.switchable import SwitchableNorm2d

Array = npt.NDArray[Any]

# The layers that torch has too, and what a module knows beside its arrays.
_OF_TORCH: dict[type[Layer], tuple[str, ...]] = {
    BatchNorm1d: ("num_features", "eps", "momentum"),
    BatchNorm2d: ("num_features", "eps", "momentum"),
    BatchNorm3d: ("num_features", "eps", "momentum"),
    LayerNorm: ("normalized_shape", "eps"),
    RMSNorm: ("normalized_shape", "eps"),
    GroupNorm: ("num_groups", "num_channels", "eps"),
    InstanceNorm1d: ("num_features", "eps", "momentum"),
    InstanceNorm2d: ("num_features", "eps", "momentum"),
    InstanceNorm3d: ("num_features", "eps", "momentum"),
    LocalResponseNorm: ("size", "alpha", "beta", "k"),
}
_KINDS: tuple[type[Layer], ...] = (*_OF_TORCH, SwitchableNorm2d, PixelNorm)
_BY_NAME = {kind.__name__: kind for kind in _KINDS}


def from_torch(module: Any) -> Layer:
    """Make the layer that a norm of `torch.nn` is: its options, values and mode, copied.

    Parameters
    ----------
    module : torch.nn.Module
        BatchNorm1d/2d/3d, LayerNorm, RMSNorm, GroupNorm, InstanceNorm1d/2d/3d or LocalResponseNorm, on any device, or
        of a class derived from one of these that leaves its `forward` as it is. Its hooks stay behind.

    Returns
    -------
    Layer
        The one of the same name, with parameters of the same dtype; float32 for bfloat16, which it holds exactly.

    Raises
    ------
    TypeError
        `module` is something else, is parametrized or lacks a parameter, or its values are nowhere (the device
        "meta"). For those of a whole model, go through its ``named_modules()``.

    Examples
    --------
    >>> from fastnorm import nn
    >>> import torch  # doctest: +SKIP
    >>> nn.from_torch(torch.nn.LayerNorm(768, eps=1e-12))  # doctest: +SKIP
    LayerNorm((768,), eps=1e-12, elementwise_affine=True, bias=True)
    >>> nn.from_torch("LayerNorm")
    Traceback (most recent call last):
    TypeError: from_torch: module must be one of torch.nn.BatchNorm1d, ..., got str
    """
    kind = _kind_of_module(module)
    state = {name: tensors.take(tensor, "from_torch", name) for name, tensor in module.state_dict().items()}
    if any("." in name for name in state):
        raise TypeError(f"from_torch: module must have parameters of its own, got {', '.join(state)}")
    if "running_mean" not in state:  # what is left where they were taken away
        state.pop("num_batches_tracked", None)
    layer = kind(**_told(kind, state) | {name: getattr(module, name) for name in _OF_TORCH[kind]})
    try:
        layer.load_state_dict(state)
    except KeyError:
        raise TypeError(
            f"from_torch: module must have the arrays of torch.nn.{kind.__name__}, {_listed(layer.state_dict())}, "
            f"got {_listed(state)}"
        ) from None
    if isinstance(layer, RunningLayer):  # which can be switched off in a module that has running statistics
        layer.track_running_stats = module.track_running_stats
    return layer.train(module.training)


def from_state_dict(
    mapping: Mapping[str, npt.ArrayLike], prefix: str = "", *, kind: type[Layer] | str | None = None, **options: Any
) -> Layer:
    """Make the layer whose arrays have a prefix in a state_dict, such as that of a whole model.

    Parameters
    ----------
    mapping : mapping of str to array_like
        Such as `load` or a torch module's ``state_dict()`` returns.
    prefix : str, default ""
        What stands before "weight", "bias" and so on: the name of the module in its model. A dot follows it, if it is
        not empty, and may be left out.
    kind : type or str, optional
        The class of the layer, or its name. Inferred where the keys tell it: SwitchableNorm2d from its mixtures,
        BatchNorm2d from running statistics (1d and 3d have the same; each takes its own number of dimensions only),
        LayerNorm from a bias of several dimensions.
    **options
        Options of that layer which the keys do not tell: `eps`, `momentum`, `convention`, `channel_axis`, `num_groups`;
        `dtype` if not that of the arrays. Those that are not given are the layer's defaults.

    Returns
    -------
    Layer
        With copies of the values, in training mode.

    Raises
    ------
    TypeError
        An argument or an array is not of a type that fits, or `options` has what the layer has not or the keys tell.
    ValueError
        No key has the prefix, the kind does not follow from the keys, an option is missing, or a shape does not fit.
    KeyError
        Keys with the prefix are not those of the layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> model = {"stem.weight": np.ones((8, 3, 3, 3)), "norm.weight": np.ones(8), "norm.bias": np.zeros(8)}
    >>> nn.from_state_dict(model, "norm", kind=nn.GroupNorm, num_groups=2)
    GroupNorm(2, 8, eps=1e-05, affine=True, bias=True)
    """
    function = "from_state_dict"
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{function}: mapping must be a mapping, got {type(mapping).__name__}")
    if not isinstance(prefix, str):
        raise TypeError(f"{function}: prefix must be a str, got {type(prefix).__name__}")
    start = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
    found = {key[len(start) :]: key for key in mapping if isinstance(key, str) and key.startswith(start)}
    state = {name: tensors.take(mapping[key], function, repr(key)) for name, key in found.items() if "." not in name}
    if not state:
        raise ValueError(f"{function}: mapping must have keys {start!r} + 'weight' and so on, got none of them")
    chosen = _inferred(state, function) if kind is None else _kind_of_argument(kind, function)
    told = _told(chosen, state)
    _check_options(chosen, told, options, function)
    layer = chosen(**told | options)
    layer.load_state_dict(state)
    return layer


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _told(kind: type[Layer], state: Mapping[str, Array]) -> dict[str, Any]:
    """Return the options of a layer that its arrays tell, their dtype among them."""
    told = kind._told_by(state)
    floating = [array.dtype for array in state.values() if is_floating(array.dtype)]
    if not (told and floating):
        return told
    try:
        dtype = np.result_type(*floating)
    except TypeError:  # float16 and bfloat16: NumPy knows none for both
        dtype = np.dtype(np.float32)
    return told | {"dtype": dtype}


def _kind_of_module(module: Any) -> type[Layer]:
    known = ", ".join(f"torch.nn.{kind.__name__}" for kind in _OF_TORCH)
    expected = f"from_torch: module must be one of {known}, got"
    classes: tuple[Any, ...] = type(module).__mro__
    for base in classes:
        kind = _BY_NAME.get(base.__name__)
        if kind is not None and kind in _OF_TORCH and base.__module__.startswith("torch.nn."):
            if getattr(module.forward, "__func__", None) is not base.forward:
                raise TypeError(f"{expected} {type(module).__name__}, a {base.__name__} with a forward of its own")
            return kind
    raise TypeError(f"{expected} {type(module).__name__}")


def _kind_of_argument(kind: type[Layer] | str, function: str) -> type[Layer]:
    if isinstance(kind, str):
        if kind not in _BY_NAME:
            raise ValueError(f"{function}: kind must be one of {', '.join(_BY_NAME)}, got {kind!r}")
        return _BY_NAME[kind]
    if not isinstance(kind, type) or not issubclass(kind, Layer):
        raise TypeError(f"{function}: kind must be a class of fastnorm.nn or its name, got {kind!r}")
    return kind


def _inferred(state: Mapping[str, Array], function: str) -> type[Layer]:
    """Return the kind of layer that the names and shapes of the arrays tell."""
    if "mean_weight" in state and "var_weight" in state:
        return SwitchableNorm2d
    if "running_mean" in state and "running_var" in state:
        return BatchNorm2d
    if "bias" in state and state["bias"].ndim > 1:  # those of all others, of linear and convolution too, have one
        return LayerNorm
    likely = "'LayerNorm', 'GroupNorm' or 'InstanceNorm2d'" if "bias" in state else "'RMSNorm' or 'LayerNorm'"
    raise ValueError(f"{function}: the keys {', '.join(map(repr, state))} do not tell the kind: give kind={likely}")


def _check_options(kind: type[Layer], told: Mapping[str, Any], options: Mapping[str, Any], function: str) -> None:
    name, parameters = kind.__name__, inspect.signature(kind).parameters
    if not told:
        raise ValueError(f"{function}: {name} has no arrays, and is made by its constructor")
    for option in options:
        if option not in parameters:
            raise TypeError(f"{function}: {name} has no option {option!r}")
        if option in told and option != "dtype":
            raise TypeError(f"{function}: {name}: {option} follows from the keys and must not be given")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in told and option not in options:
            raise ValueError(f"{function}: {name}: the keys do not tell {option}: give {option}=")
