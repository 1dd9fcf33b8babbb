"""What all layers have in common: a mode, calls, and backward passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy.typing as npt

from fastnorm import arguments, calls
from fastnorm.nn.html import table
from fastnorm.nn.seen import Seen
from fastnorm.nn.state import State

Array = npt.NDArray[Any]


class Layer(State, ABC):
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

    def __init__(self) -> None:
        super().__init__()
        self.training = True
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
        array = calls.take(x, self._name)
        result: Array = self._forward(array)
        self._remember(x=(x, array))
        return result

    def _remember(self, **arrays: tuple[Any, Array]) -> None:
        """Keep what the backward pass of a call needs, as it was given and as an array: x, and what else it takes."""
        self._seen = Seen(self.training, **arrays)

    def backward(self, dy: npt.ArrayLike) -> Array:
        """Return the gradient of x in the last call of the layer, and keep those of the parameters for `gradients`.

        The layer refers to the arrays of its last call until then (it makes no copies: they and the parameters must
        not have changed since), and computes its statistics again. Each call of the layer is good for one backward
        pass, as in torch; in either mode, but in inference the caller must still have x, and where and weights if
        there were any: the layer does not keep them alive.

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
            The layer has not been called since it was made, copied or unpickled, or since the last backward pass; or in
            inference, and x, where or weights is gone.
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
        seen = self._seen  # once: another thread may take it
        if seen is None:
            raise RuntimeError(f"{self._name}: backward needs a call of the layer before it, one for each")
        arrays = seen.arrays(self._name)
        shape, gradient = arrays["x"].shape, calls.take(dy, self._name, "dy")
        if gradient.shape != shape:
            raise ValueError(f"{self._name}: dy must have the shape of x, {shape}, got {gradient.shape}")
        found = self._backward(gradient, training=seen.training, **arrays)
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
        self.training = arguments.flag(mode, self._name, "train: mode")
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
