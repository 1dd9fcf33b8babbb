"""
Three inference pipelines in NumPy, end to end.

Each takes a namespace of norms, `fastnorm.cli.numpy_norms` or `fastnorm`, and everything else in it, matrix products
included, is the same NumPy code. So the difference in time is what a user gains who changes the norms and nothing else.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm.cli.workloads import BYTE_MEAN, BYTE_VAR, Data, split_into_patches

Array = NDArray[np.float32]
# A module or another namespace that has the norms as attributes.
Norms = Any


@dataclass(frozen=True)
class Pipeline:
    """
    A pipeline with its input.

    Attributes
    ----------
    name : str
        What it is called in the table.
    run : callable
        Takes the namespace of norms, returns the output.
    accuracy : callable or None
        Takes the output, returns the share of right answers, where there are any.
    """

    name: str
    run: Callable[[Norms], Array]
    accuracy: Callable[[Array], float] | None = None


def prepare_photographs(norms: Norms, photographs: NDArray[np.uint8]) -> Array:
    """
    Turn photographs into the normalized batch that an image model reads.

    Parameters
    ----------
    norms : namespace
        Where `normalize` is taken from.
    photographs : ndarray of uint8, shape (count, height, width, 3)
        RGB.

    Returns
    -------
    ndarray of float32, shape (count, 3, height, width)
        Zero mean and unit variance by the statistics of ImageNet's photographs.
    """
    # The bytes are transposed rather than the floats, four times their size: 5 times faster with NumPy's norms.
    channels_first = np.ascontiguousarray(photographs.transpose(0, 3, 1, 2))
    batch: Array = norms.normalize(channels_first, BYTE_MEAN, BYTE_VAR, channel_axis=1, eps=0.0)
    return batch


class DigitsNetwork:
    """
    The classifier of handwritten digits whose weights ship with the package.

    Three dense layers, batch normalization before each and ReLU after the hidden ones'; tools/train_digits.py trained
    it.

    Attributes
    ----------
    test_rows : ndarray of int
        Which of scikit-learn's 1,797 digits it was not trained on.
    """

    def __init__(self) -> None:
        resource = importlib.resources.files("fastnorm.cli").joinpath("digits_network.npz")
        with resource.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            self._weights: dict[str, Array] = {name: archive[name] for name in archive.files}
        self.test_rows: NDArray[np.int64] = self._weights.pop("test_rows").astype(np.int64)
        self._layers = sum(name.startswith("dense") and name.endswith("weight") for name in self._weights)

    def __call__(self, norms: Norms, digits: Array) -> Array:
        """
        Classify digits.

        Parameters
        ----------
        norms : namespace
            Where `batch_norm` is taken from.
        digits : ndarray of float32, shape (count, 64)
            Pixels from 0 to 16.

        Returns
        -------
        ndarray of float32, shape (count, 10)
            The probability of each digit.
        """
        weights = self._weights
        x = digits
        for number in range(self._layers):
            x = norms.batch_norm(
                x,
                weights[f"norm{number}.running_mean"],
                weights[f"norm{number}.running_var"],
                weights[f"norm{number}.weight"],
                weights[f"norm{number}.bias"],
            )
            if number > 0:
                np.maximum(x, 0, out=x)
            x = x @ weights[f"dense{number}.weight"]
            x += weights[f"dense{number}.bias"]
        return _softmax(x)

    def accuracy(self, probabilities: Array, labels: NDArray[np.int64]) -> float:
        """
        Share of the test digits that are classified rightly.

        Parameters
        ----------
        probabilities : ndarray, shape (1797, 10)
            What the network returned for all digits.
        labels : ndarray of int, shape (1797,)
            What they are.

        Returns
        -------
        float
            From 0 to 1.
        """
        guesses = np.argmax(probabilities[self.test_rows], axis=1)
        return float(np.mean(guesses == labels[self.test_rows]))


class TransformerBlock:
    """
    One vision-transformer block on patches of 16 by 16 pixels, with random weights.

    Patch embedding, then layer norm, multi-head attention and a sum with what went in, layer norm, a perceptron with
    GELU (its tanh form) and a sum again, and the final layer norm. The default sizes are those of ViT-B/16.

    Parameters
    ----------
    width : int
        Length of a token.
    heads : int
        Number of attention heads; divides `width`.
    seed : int
        Of the random weights.

    Raises
    ------
    ValueError
        If `heads` does not divide `width`.
    """

    def __init__(self, width: int = 768, heads: int = 12, seed: int = 0) -> None:
        if width % heads:
            raise ValueError(f"TransformerBlock: heads must divide width, got heads={heads} and width={width}")
        self.heads = heads
        generator = np.random.default_rng(seed)

        def dense(inputs: int, outputs: int) -> tuple[Array, Array]:
            weight = generator.standard_normal((inputs, outputs), dtype=np.float32) / np.float32(math.sqrt(inputs))
            return weight, 0.02 * generator.standard_normal(outputs, dtype=np.float32)

        def norm() -> tuple[Array, Array]:
            weight = 1 + 0.1 * generator.standard_normal(width, dtype=np.float32)
            return weight, 0.1 * generator.standard_normal(width, dtype=np.float32)

        # One value for each of a patch's 768: NumPy is slow along an axis of 3.
        self.pixel_mean, self.pixel_var = np.tile(BYTE_MEAN, 16 * 16), np.tile(BYTE_VAR, 16 * 16)
        self.embedding = dense(16 * 16 * 3, width)
        self.before_attention, self.before_perceptron, self.final = norm(), norm(), norm()
        self.attention_in = dense(width, 3 * width)
        self.attention_out = dense(width, width)
        self.perceptron_in = dense(width, 4 * width)
        self.perceptron_out = dense(4 * width, width)

    def __call__(self, norms: Norms, photographs: NDArray[np.uint8]) -> Array:
        """
        Run the block on the patches of photographs.

        Parameters
        ----------
        norms : namespace
            Where `normalize` and `layer_norm` are taken from.
        photographs : ndarray of uint8, shape (count, height, width, 3)
            RGB, at least 16 by 16.

        Returns
        -------
        ndarray of float32, shape (count, patches, width)
            The tokens.
        """
        patches = split_into_patches(photographs, 16)
        tokens = _dense(norms.normalize(patches, self.pixel_mean, self.pixel_var, eps=0.0), self.embedding)
        tokens += self._attention(norms.layer_norm(tokens, *self.before_attention))
        tokens += self._perceptron(norms.layer_norm(tokens, *self.before_perceptron))
        output: Array = norms.layer_norm(tokens, *self.final)
        return output

    def _attention(self, tokens: Array) -> Array:
        count, length, width = tokens.shape
        projected = _dense(tokens, self.attention_in).reshape(count, length, 3, self.heads, width // self.heads)
        queries, keys, values = projected.transpose(2, 0, 3, 1, 4)
        scores = queries @ keys.swapaxes(-1, -2)
        scores *= 1 / math.sqrt(width // self.heads)
        mixed = _softmax(scores) @ values
        return _dense(mixed.swapaxes(1, 2).reshape(count, length, width), self.attention_out)

    def _perceptron(self, tokens: Array) -> Array:
        return _dense(_gelu_tanh(_dense(tokens, self.perceptron_in)), self.perceptron_out)


def _dense(x: Array, weight_and_bias: tuple[Array, Array]) -> Array:
    weight, bias = weight_and_bias
    # One product of two matrices: NumPy would multiply image by image.
    y: Array = (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], -1)
    y += bias
    return y


def _softmax(x: Array) -> Array:
    """Softmax along the last axis; `x` is overwritten."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def _gelu_tanh(x: Array) -> Array:
    inner = np.square(x)
    inner *= 0.044715
    inner += 1
    inner *= x
    inner *= math.sqrt(2 / math.pi)
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= 0.5
    return inner


def _centre_crop(photographs: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    top, left = ((extent - size) // 2 for extent in photographs.shape[1:3])
    return np.ascontiguousarray(photographs[:, top : top + size, left : left + size])


def pipelines(data: Data) -> list[Pipeline]:
    """
    Make the three pipelines.

    Parameters
    ----------
    data : Data
        From `fastnorm.cli.workloads.load_data`.

    Returns
    -------
    list of Pipeline
        Photographs to a normalized batch, all digits through the network, and the middle 224 by 224 pixels of the
        photographs, the size that ViT-B/16 reads, through the transformer block.
    """
    network, block = DigitsNetwork(), TransformerBlock()
    crops = _centre_crop(data.photographs, 224)
    return [
        Pipeline("photographs to a normalized batch", partial(prepare_photographs, photographs=data.photographs)),
        Pipeline(
            "digits through a BatchNorm network",
            partial(network, digits=data.digits),
            partial(network.accuracy, labels=data.labels),
        ),
        Pipeline("patches through a transformer block", partial(block, photographs=crops)),
    ]
