"""What all layers have in common: named arrays, a mode, and their exchange by state_dict."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self, overload
from weakref import ref

import numpy as np
import numpy.typing as npt

from fastnorm import engine
from fastnorm.dtypes import FLOAT32, result_dtype
from fastnorm.nn.html import table
from fastnorm.nn.tensors import as_numpy

Array = npt.NDArray[Any]


class IncompatibleKeys(NamedTuple):
    """The keys that `Layer.load_state_dict` did not find, and those it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Seen(NamedTuple):
    """What a layer keeps of a call until its backward pass."""

    x: Callable[[], Array | None]
    training: bool


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
    def __get__(self, layer: "Layer", owner: type) -> Array | None: ...
    def __get__(self, layer: "Layer | None", owner: type) -> Self | Array | None:
        if layer is None:
            return self
        parameter = layer._parameters.get(self._name)
        return layer._buffers.get(self._name) if parameter is None else parameter

    def __set__(self, layer: "Layer", value: npt.ArrayLike) -> None:
        target = self.__get__(layer, type(layer))
        if target is None:
            raise AttributeError(f"{layer} has been made without {self._name}")
        np.copyto(target, layer._fitted(self._name, target, value))


class Layer(ABC):
    """The base class of the layers: parameters and buffers by name, a mode, a state_dict.

    A parameter is learned; a buffer belongs to the state but is not learned. A layer is in training mode when it is
    made, as in torch: call `eval` before inference.

    Attributes
    ----------
    training : bool
        Whether the layer normalises by the statistics of the batch and moves its running ones, where it has any.

    Examples
    --------
    >>> from fastnorm import nn
    >>> layer = nn.LayerNorm(4).eval()
    >>> isinstance(layer, nn.Layer), layer.training
    (True, False)
    """

    # Keys that a strict load_state_dict does without: checkpoints older than torch 0.4.1 have no such number.
    _optional_keys: ClassVar[frozenset[str]] = frozenset({"num_batches_tracked"})

    def __init__(self) -> None:
        self.training = True
        self._parameters: dict[str, Array] = {}
        self._buffers: dict[str, Array] = {}
        self._gradients: dict[str, Array] = {}
        self._seen: Seen | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy is of the layer, not of what it has seen."""
        return self.__dict__ | {"_gradients": {}, "_seen": None}

    @abstractmethod
    def _forward(self, x: Array) -> Any:
        """Return the normalised array; x has a dtype that the library knows."""

    @abstractmethod
    def _backward(self, dy: Array, x: Array, training: bool) -> Any:
        """Return a tuple with a name for each part: dx, and d<name> for each parameter.

        x is what `_forward` has taken, in that mode; dy has its shape.
        """

    @abstractmethod
    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the layer's repr.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.PixelNorm().extra_repr()
        'eps=1e-08'
        """

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Normalise x.

        Parameters
        ----------
        x : array_like
            Real numbers, of a shape that the layer takes.

        Returns
        -------
        ndarray of the shape of x
            A new one, in the dtype that the function of the same name returns for x.

        Raises
        ------
        TypeError
            x is not of a real number dtype.
        ValueError
            x has a shape that the layer does not take. Nothing has changed then.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.RMSNorm(2, eps=0.0)([[1.0, 7.0]])
        array([[0.2, 1.4]])
        """
        array = engine.take(x, self._name)
        result: Array = self._forward(array)
        # In inference a layer does not keep alive what passes through it.
        self._seen = Seen((lambda: array) if self.training else ref(array), self.training)
        return result

    def backward(self, dy: npt.ArrayLike) -> Array:
        """Return the gradient of x in the last call of the layer, and keep those of the parameters for `gradients`.

        The layer refers to the x of its last call until then (it makes no copy: x and the parameters must not have
        changed since), and computes its statistics again. Each call of the layer is good for one backward pass, as in
        torch; in either mode, but in inference the caller must still have x: the layer does not keep it alive.

        Parameters
        ----------
        dy : array_like
            The gradient of the layer's result, of the shape of x.

        Returns
        -------
        ndarray of the shape of x
            In the dtype of the layer's result.

        Raises
        ------
        RuntimeError
            The layer has not been called since it was made, copied or loaded, or since the last backward pass; or in
            inference, and x is gone.
        TypeError
            dy is not of a real number dtype.
        ValueError
            dy has not the shape of x.

        Examples
        --------
        >>> from fastnorm import nn
        >>> layer = nn.LayerNorm(3)
        >>> y = layer([[1.0, 2.0, 3.0]])
        >>> layer.backward([[1.0, 0.0, 0.0]]).round(4)
        array([[ 0.2041, -0.4082,  0.2041]])
        """
        if self._seen is None:
            raise RuntimeError(f"{self._name}: backward needs a call of the layer before it, one for each")
        x, training = self._seen.x(), self._seen.training
        if x is None:
            raise RuntimeError(f"{self._name}: x of the last call is gone: in inference a layer does not keep it alive")
        gradient = engine.take(dy, self._name, "dy")
        if gradient.shape != x.shape:
            raise ValueError(f"{self._name}: dy must have the shape of x, {x.shape}, got {gradient.shape}")
        found = self._backward(gradient, x, training)
        self._gradients = {name: getattr(found, f"d{name}") for name in self._parameters}
        self._seen = None
        dx: Array = found.dx
        return dx

    def __repr__(self) -> str:
        return f"{self._name}({self.extra_repr()})"

    def _repr_html_(self) -> str:
        return table(repr(self), self._entries())

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or with False to inference.

        Parameters
        ----------
        mode : bool, default True
            What `training` becomes.

        Returns
        -------
        Layer
            This one.

        Raises
        ------
        TypeError
            `mode` is not a bool.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.BatchNorm1d(3).train(False).training
        False
        """
        if not isinstance(mode, bool):
            raise TypeError(f"{self._name}: train: mode must be a bool, got {type(mode).__name__}")
        self.training = mode
        return self

    def eval(self) -> Self:
        """Switch to inference.

        Returns
        -------
        Layer
            This one.

        Examples
        --------
        >>> from fastnorm import nn
        >>> nn.BatchNorm1d(3).eval().training
        False
        """
        return self.train(False)

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

    def gradients(self) -> dict[str, Array]:
        """Return the gradients of what is learned, by name, as the last backward pass has found them.

        They do not add up from one pass to the next, as torch's do unless they are set to zero.

        Returns
        -------
        dict of str to ndarray
            With the names, shapes and dtypes of `parameters`; empty before the first backward pass.

        Examples
        --------
        >>> from fastnorm import nn
        >>> layer = nn.LayerNorm(3)
        >>> y = layer([[1.0, 2.0, 3.0]])
        >>> dx = layer.backward([[1.0, 0.0, 0.0]])
        >>> layer.gradients()["weight"].round(4)
        array([-1.2247,  0.    ,  0.    ], dtype=float32)
        >>> for name, parameter in layer.parameters().items():
        ...     parameter -= 0.1 * layer.gradients()[name]
        """
        return dict(self._gradients)

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
        if strict and (missing or unexpected):
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
        array = engine.take(as_numpy(value), self._name, name)
        if not self._shape_fits(array.shape, target.shape):
            raise ValueError(f"{self._name}: {name} must have shape {target.shape}, got {array.shape}")
        if target.dtype.kind == "i" and array.dtype.kind not in "iu":
            raise TypeError(f"{self._name}: {name} must have an integer dtype, got {array.dtype}")
        with np.errstate(over="ignore"):
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
        return result_dtype(dtype, FLOAT32, self._name)
