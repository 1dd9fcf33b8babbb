"""What layers have in common whose statistics may be those of some elements, or of elements that count unequally."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy.typing as npt

from fastnorm import arguments, calls
from fastnorm.nn.layer import Layer

Array = npt.NDArray[Any]


class MaskedLayer(Layer):
    """A layer that takes `where` and `weights` beside x."""

    @property
    def _uses_batch(self) -> bool:
        """Whether the statistics of a call are those of x."""
        return True

    @abstractmethod
    def _forward(self, x: Array, where: Array | None = None, weights: Array | None = None) -> Any:
        """Return the normalised array; `where` and `weights` broadcast against x and have been checked."""

    @abstractmethod
    def _backward(
        self, dy: Array, x: Array, training: bool, where: Array | None = None, weights: Array | None = None
    ) -> Any:
        """Return the gradients, as `Layer._backward` does, of a call with `where` and `weights`."""

    def __call__(
        self, x: npt.ArrayLike, *, where: npt.ArrayLike | None = None, weights: npt.ArrayLike | None = None
    ) -> Array:
        """Normalise x.

        Parameters
        ----------
        x : array_like
            Real numbers, of a shape that the layer takes.
        where : array_like of bool, optional
            Which elements count for mean and variance, and so for the running ones; broadcasts against x, as (N, 1, L)
            does for sequences of unequal lengths, (N, C, L). All elements are normalised; what those left out are, NaN
            too, changes nothing else. In inference by running statistics there is nothing to count: `where` and
            `weights` are checked, so that the same call serves both modes, and change nothing.
        weights : array_like, optional
            How often each element counts, finite and not negative; broadcasts against x.

        Returns
        -------
        ndarray of the shape of x
            A new one, in the dtype that the function of the same name returns for x.

        Raises
        ------
        TypeError
            x or weights is not of a real number dtype, or where not of bool.
        ValueError
            x has a shape that the layer does not take, where or weights one that does not broadcast against it, or a
            weight is negative or not finite; or too little counts for running statistics. Nothing has changed then.

        Notes
        -----
        `backward` takes both into account: no gradient comes to what is left out by way of the statistics. Its own dy
        counts, if it is not 0: mask the loss too, with the same mask, and a padded batch trains as its sequences do.

        Examples
        --------
        >>> from fastnorm import nn
        >>> layer = nn.GroupNorm(1, 1, eps=0.0)
        >>> mask = [[[True, True, False]]]  # a sequence of two, and padding
        >>> layer([[[1.0, 3.0, 0.0]]], where=mask)
        array([[[-1.,  1., -2.]]])
        >>> layer.backward([[[1.0, 0.0, 0.0]]])
        array([[[0., 0., 0.]]])
        """
        array = calls.take(x, self._name)
        arguments.element_weights(weights, where, array.shape, self._name)
        given = {"where": where, "weights": weights} if self._uses_batch else {}
        counts = {name: calls.take(part, self._name, name) for name, part in given.items() if part is not None}
        result: Array = self._forward(array, **counts)
        self._remember(x=(x, array), **{name: (given[name], part) for name, part in counts.items()})
        return result
