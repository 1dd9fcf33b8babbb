"""The arrays of a layer by name, and their exchange by state_dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self, overload

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.dtypes import FLOAT32, result_dtype
from fastnorm.nn import tensors

Array = npt.NDArray[Any]


class IncompatibleKeys(NamedTuple):
    """The keys that `Layer.load_state_dict` did not find, and those it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Entry:
    """A parameter or buffer of a layer as an attribute; None where the layer has been made without it.

    Assignment copies the values into the array that is there, so that whoever else holds it sees them.
    """

    def __init__(self, description: str) -> None:
        self.__doc__ = description

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, layer: None, owner: type) -> Self: ...
    @overload
    def __get__(self, layer: State, owner: type) -> Array | None: ...
    def __get__(self, layer: State | None, owner: type) -> Self | Array | None:
        if layer is None:
            return self
        parameter = layer._parameters.get(self._name)
        return layer._buffers.get(self._name) if parameter is None else parameter

    def __set__(self, layer: State, value: npt.ArrayLike) -> None:
        target = self.__get__(layer, type(layer))
        if target is None:
            raise AttributeError(f"{layer} has been made without {self._name}")
        np.copyto(target, layer._fitted(self._name, target, value))


class State:
    """Parameters, which are learned, and buffers, which are not: the part of a layer that its state_dict is of."""

    # Keys that a strict load_state_dict does without: checkpoints older than torch 0.4.1 have no such number.
    _optional_keys: ClassVar[frozenset[str]] = frozenset({"num_batches_tracked"})

    def __init__(self) -> None:
        self._parameters: dict[str, Array] = {}
        self._buffers: dict[str, Array] = {}

    def parameters(self) -> dict[str, Array]:
        """Return what is learned, by name: the arrays themselves, to be updated in place.

        Returns
        -------
        dict of str to ndarray
            In torch's order.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.LayerNorm(2).parameters()
        {'weight': array([1., 1.], dtype=float32), 'bias': array([0., 0.], dtype=float32)}
        """
        return dict(self._parameters)

    def buffers(self) -> dict[str, Array]:
        """Return the state that is not learned, by name: the arrays themselves.

        Returns
        -------
        dict of str to ndarray
            In torch's order.

        Examples
        --------
        >>> from fastnorm import nn
        >>> list(nn.BatchNorm1d(2).buffers())
        ['running_mean', 'running_var', 'num_batches_tracked']
        """
        return dict(self._buffers)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers, by torch's names.

        Returns
        -------
        dict of str to ndarray
            Later changes of the layer leave it as it is (torch's follows them).

        Examples
        --------
        >>> from fastnorm import nn
        >>> list(nn.BatchNorm2d(2).state_dict())
        ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
        """
        return {name: array.copy() for name, array in self._entries().items()}

    def load_state_dict(self, mapping: Mapping[str, npt.ArrayLike], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers, once all of them have been checked.

        Parameters
        ----------
        mapping : mapping of str to array_like
            Such as `state_dict` returns, or that of a torch module. Values are cast to the layer's dtype.
        strict : bool, default True
            Whether the keys must be those of the layer. "num_batches_tracked" may be missing all the same, as in
            torch; it is kept then.

        Returns
        -------
        IncompatibleKeys
            ``(missing_keys, unexpected_keys)``, both empty if `strict`.

        Raises
        ------
        TypeError
            `mapping` is not a mapping, or a value has not a dtype that fits.
        KeyError
            A key is missing or unexpected, and `strict`.
        ValueError
            A value has another shape than the layer's. After an error nothing has changed.

        Examples
        --------
        >>> from fastnorm import nn
        >>> layer = nn.RMSNorm(3)
        >>> layer.load_state_dict({"weight": [1.0, 2.0, 3.0]})
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        >>> layer.weight
        array([1., 2., 3.], dtype=float32)
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"{self._name}: load_state_dict: expected a mapping, got {type(mapping).__name__}")
        entries = self._entries()
        missing = [name for name in entries if name not in mapping and name not in self._optional_keys]
        unexpected = [name for name in mapping if name not in entries]
        if arguments.flag(strict, self._name, "strict") and (missing or unexpected):
            faults = [f"{kind} {', '.join(map(repr, keys))}" for kind, keys in
                      (("missing", missing), ("unexpected", unexpected)) if keys]  # fmt: skip
            raise KeyError(f"{self._name}: load_state_dict: {'; '.join(faults)}")
        fitted = {name: self._fitted(name, entries[name], mapping[name]) for name in entries if name in mapping}
        for name, values in fitted.items():
            np.copyto(entries[name], values)
        return IncompatibleKeys(missing, unexpected)

    @classmethod
    def _told_by(cls, state: Mapping[str, Array]) -> dict[str, Any]:
        """Return the options that follow from the names and shapes of a layer's arrays; none if it has no arrays."""
        return {}

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _entries(self) -> dict[str, Array]:
        return self._parameters | self._buffers

    def _fitted(self, name: str, target: Array, value: npt.ArrayLike) -> Array:
        """Return a new array of `value` with the shape and dtype of an entry.

        Raises
        ------
        TypeError, ValueError
            It does not fit.
        """
        array = tensors.take(value, self._name, name)
        if not self._shape_fits(array.shape, target.shape):
            raise ValueError(f"{self._name}: {name} must have shape {target.shape}, got {array.shape}")
        if target.dtype.kind == "i" and array.dtype.kind not in "iu":
            raise TypeError(f"{self._name}: {name} must have an integer dtype, got {array.dtype}")
        if target.dtype.kind == "i" and array.size and int(array.max()) > np.iinfo(target.dtype).max:
            raise ValueError(f"{self._name}: {name} must fit {target.dtype}, got {array.max()}")
        with np.errstate(all="ignore"):
            return array.astype(target.dtype).reshape(target.shape)

    def _shape_fits(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """Whether a value of `shape` can be loaded into an entry of the shape `wanted`; (1,) is a number in torch."""
        return shape == wanted or (shape == (1,) and wanted == ())

    def _add_affine(self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: npt.DTypeLike) -> None:
        """Add weight, ones, and bias, zeros, as far as they are wanted."""
        kind = self._parameter_dtype(dtype)
        if weight:
            self._parameters["weight"] = np.ones(shape, kind)
        if bias:
            self._parameters["bias"] = np.zeros(shape, kind)

    def _parameter_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the dtype of parameters, which must be a floating one."""
        return result_dtype(dtype, FLOAT32, self._name).newbyteorder("=")
