"""A tiny neural network in NumPy, for the lessons: every norm, forward and backward, is fastnorm's.

A layer has ``forward(x, training)``, ``backward(dy)``, which returns the gradient of x, and two lists of arrays beside
each other, `parameters` and `gradients`. A network is a list of layers.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

import fastnorm

Array = npt.NDArray[Any]

PIXELS, CLASSES = 64, 10
TEST_COUNT = 360


class Layer(Protocol):
    """What a network is made of."""

    parameters: list[Array]
    gradients: list[Array]

    def forward(self, x: Array, training: bool) -> Array:
        """Compute the layer's result, and in training keep what `backward` needs."""

    def backward(self, dy: Array) -> Array:
        """Set `gradients`, and return the gradient of the last x."""


class Dense:
    """``x @ weight + bias`` for rows x, weight (in, out)."""

    def __init__(self, weight: Array, bias: Array):
        self.parameters = [weight, bias]
        self.gradients: list[Array] = []

    def forward(self, x: Array, training: bool) -> Array:
        """Return (batch, out)."""
        self.x = x
        weight, bias = self.parameters
        return x @ weight + bias

    def backward(self, dy: Array) -> Array:
        """Return (batch, in)."""
        self.gradients = [self.x.T @ dy, dy.sum(axis=0)]
        return dy @ self.parameters[0].T


class ReLU:
    """``max(x, 0)``."""

    def __init__(self) -> None:
        self.parameters: list[Array] = []
        self.gradients: list[Array] = []

    def forward(self, x: Array, training: bool) -> Array:
        """Return x with zeros for what is negative."""
        self.positive = x > 0
        return np.maximum(x, 0)

    def backward(self, dy: Array) -> Array:
        """Return dy where x was positive, 0 elsewhere."""
        return dy * self.positive


class BatchNorm:
    """Batch normalization: by the batch in training, by the running statistics afterwards."""

    def __init__(self, channels: int):
        self.parameters = [np.ones(channels, np.float32), np.zeros(channels, np.float32)]
        self.gradients: list[Array] = []
        self.running_mean, self.running_var = np.zeros(channels, np.float32), np.ones(channels, np.float32)

    def forward(self, x: Array, training: bool) -> Array:
        """Return an array of the shape of x, (batch, channels, ...)."""
        running = self.running_mean, self.running_var
        if not training:
            return fastnorm.batch_norm(x, *running, *self.parameters)
        y, self.stats = fastnorm.batch_norm(x, *running, *self.parameters, training=True, return_stats=True)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        """Return the gradient of x, which also shaped its batch's statistics."""
        mean, rstd = self.stats
        dx, *self.gradients = fastnorm.batch_norm_backward(
            dy, self.x, self.parameters[0], mean=mean, rstd=rstd, training=True
        )
        return dx


class GroupNorm:
    """Group normalization: each example by itself, in training as afterwards."""

    def __init__(self, groups: int, channels: int):
        self.parameters = [np.ones(channels, np.float32), np.zeros(channels, np.float32)]
        self.gradients: list[Array] = []
        self.groups = groups

    def forward(self, x: Array, training: bool) -> Array:
        """Return an array of the shape of x, (batch, channels, ...)."""
        y, self.stats = fastnorm.group_norm(x, self.groups, *self.parameters, return_stats=True)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        """Return the gradient of x."""
        mean, rstd = self.stats
        dx, *self.gradients = fastnorm.group_norm_backward(
            dy, self.x, self.groups, self.parameters[0], mean=mean, rstd=rstd
        )
        return dx


Norm = Callable[[int], Layer]  # the norm of so many channels


class Digits(NamedTuple):
    """Handwritten digits: `images`, float32 from 0 to 1, (count, 64), and their `labels`, (count,)."""

    images: Array
    labels: Array


def load_digits() -> tuple[Digits, Digits]:
    """Return 1,437 digits to train on and 360 to test on; they come inside scikit-learn's package."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(f"the digits come with scikit-learn ({error}): pip install 'fastnorm[demo]'") from None
    images, labels = datasets.load_digits(return_X_y=True)
    images = images.astype(np.float32) / np.float32(16)
    order = np.random.default_rng(0).permutation(len(labels))
    test, training = order[:TEST_COUNT], order[TEST_COUNT:]
    return Digits(images[training], labels[training]), Digits(images[test], labels[test])


def perceptron(widths: Sequence[int], scales: Sequence[float], norm: Norm | None, seed: int) -> list[Layer]:
    """Return a network of dense layers, each but the last followed by `norm` and a ReLU.

    The weights of a layer are normal numbers times its scale.
    """
    rng = np.random.default_rng(seed)
    network: list[Layer] = []
    for (fan_in, fan_out), scale in zip(itertools.pairwise(widths), scales, strict=True):
        weight = scale * rng.standard_normal((fan_in, fan_out))
        network.append(Dense(weight.astype(np.float32), np.zeros(fan_out, np.float32)))
        if norm is not None:
            network.append(norm(fan_out))
        network.append(ReLU())
    return network[: -1 if norm is None else -2]  # the scores are neither normalized nor cut off


def predict(network: list[Layer], x: Array, training: bool = False) -> Array:
    """Run the network forwards: a score for each class, (batch, 10)."""
    for layer in network:
        x = layer.forward(x, training)
    return x


def accuracy(network: list[Layer], digits: Digits) -> float:
    """Return the share of digits whose highest score is the right one's."""
    return float(np.mean(predict(network, digits.images).argmax(axis=1) == digits.labels))


def cross_entropy(scores: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean of -log softmax(scores)[label], and its gradient in the scores."""
    with np.errstate(invalid="ignore"):  # scores of a network that has diverged are infinite
        logarithms = scores - scores.max(axis=1, keepdims=True)
        logarithms -= np.log(np.exp(logarithms).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(logarithms)
    gradient[rows, labels] -= 1
    return float(-logarithms[rows, labels].mean()), gradient / np.float32(len(labels))


def train_epoch(
    network: list[Layer], digits: Digits, batch_size: int, learning_rate: float, rng: np.random.Generator
) -> float:
    """Show the network all digits once, shuffled, and take a step of gradient descent after each batch.

    What does not fill a batch is left out. Returns the mean loss; as soon as a loss is not finite the network has
    diverged, and that loss is returned.
    """
    order = rng.permutation(len(digits.labels))
    losses = []
    for start in range(0, len(order) - batch_size + 1, batch_size):
        rows = order[start : start + batch_size]
        loss, gradient = cross_entropy(predict(network, digits.images[rows], training=True), digits.labels[rows])
        if not np.isfinite(loss):
            return loss
        losses.append(loss)
        for layer in reversed(network):
            gradient = layer.backward(gradient)
        for layer in network:
            for parameter, its_gradient in zip(layer.parameters, layer.gradients, strict=True):
                parameter -= np.float32(learning_rate) * its_gradient
    return float(np.mean(losses))
