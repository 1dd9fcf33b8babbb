"""
Train the digits network that ships with the demo and write its weights.

Three dense layers, 64 -> 96 -> 64 -> 10, with batch normalization of the input and after each hidden layer and ReLU
after that, trained on 1,437 of scikit-learn's 1,797 handwritten digits and tested on the other 360. Forward and
backward passes are written out in NumPy; nothing but numpy and scikit-learn is needed. Run it from anywhere:

    python tools/train_digits.py [OUTPUT.npz]
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Array = NDArray[np.float32]
Parameters = dict[str, Array]

WIDTHS = (64, 96, 64, 10)
EPS = 1e-5
MOMENTUM = 0.1
SEED = 0
EPOCHS = 60
BATCH = 64
TEST_COUNT = 360
DEFAULT_OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "fastnorm" / "cli" / "digits_network.npz"


def new_parameters(generator: np.random.Generator) -> Parameters:
    """Make the network's starting weights: He initialization, norms at identity."""
    parameters: Parameters = {}
    for number, width in enumerate(WIDTHS[:-1]):
        parameters[f"norm{number}.weight"] = np.ones(width, dtype=np.float32)
        parameters[f"norm{number}.bias"] = np.zeros(width, dtype=np.float32)
        parameters[f"norm{number}.running_mean"] = np.zeros(width, dtype=np.float32)
        parameters[f"norm{number}.running_var"] = np.ones(width, dtype=np.float32)
    for number, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS)):
        scale = np.sqrt(2 / inputs)
        parameters[f"dense{number}.weight"] = (scale * generator.standard_normal((inputs, outputs))).astype(np.float32)
        parameters[f"dense{number}.bias"] = np.zeros(outputs, dtype=np.float32)
    return parameters


def batch_norm_forward(x: Array, parameters: Parameters, name: str) -> tuple[Array, tuple[Array, Array]]:
    """Normalize with the batch's statistics and update the running ones; returns also what the backward pass needs."""
    mean = x.mean(axis=0)
    var = x.var(axis=0)
    running_mean, running_var = parameters[f"{name}.running_mean"], parameters[f"{name}.running_var"]
    running_mean += MOMENTUM * (mean - running_mean)
    running_var += MOMENTUM * (var * (len(x) / (len(x) - 1)) - running_var)
    rstd = 1 / np.sqrt(var + EPS)
    normalized = (x - mean) * rstd
    return normalized * parameters[f"{name}.weight"] + parameters[f"{name}.bias"], (normalized, rstd)


def batch_norm_backward(
    dy: Array, saved: tuple[Array, Array], parameters: Parameters, gradients: Parameters, name: str
) -> Array:
    """Gradient through the normalization, its statistics included."""
    normalized, rstd = saved
    gradients[f"{name}.weight"] = (dy * normalized).sum(axis=0)
    gradients[f"{name}.bias"] = dy.sum(axis=0)
    dnormalized = dy * parameters[f"{name}.weight"]
    dx: Array = rstd * (dnormalized - dnormalized.mean(axis=0) - normalized * (dnormalized * normalized).mean(axis=0))
    return dx


def loss_and_gradients(x: Array, labels: NDArray[Any], parameters: Parameters) -> tuple[float, Parameters]:
    """Cross entropy of a batch and its gradient with respect to every trained parameter."""
    layers = len(WIDTHS) - 1
    inputs, saved = [], []
    for number in range(layers):
        x, for_backward = batch_norm_forward(x, parameters, f"norm{number}")
        if number > 0:
            x = np.maximum(x, 0)
        saved.append(for_backward)
        inputs.append(x)
        x = x @ parameters[f"dense{number}.weight"] + parameters[f"dense{number}.bias"]
    log_probabilities = x - x.max(axis=1, keepdims=True)
    log_probabilities -= np.log(np.exp(log_probabilities).sum(axis=1, keepdims=True))
    chosen = np.arange(len(labels)), labels
    loss = -float(log_probabilities[chosen].mean())

    gradients: Parameters = {}
    dx = np.exp(log_probabilities)
    dx[chosen] -= 1
    dx /= len(labels)
    for number in reversed(range(layers)):
        gradients[f"dense{number}.weight"] = inputs[number].T @ dx
        gradients[f"dense{number}.bias"] = dx.sum(axis=0)
        dx = dx @ parameters[f"dense{number}.weight"].T
        if number > 0:
            dx = dx * (inputs[number] > 0)
        dx = batch_norm_backward(dx, saved[number], parameters, gradients, f"norm{number}")
    return loss, gradients


def predict(x: Array, parameters: Parameters) -> NDArray[np.int64]:
    """Classify with the running statistics."""
    for number in range(len(WIDTHS) - 1):
        name = f"norm{number}"
        x = (x - parameters[f"{name}.running_mean"]) / np.sqrt(parameters[f"{name}.running_var"] + EPS)
        x = x * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]
        if number > 0:
            x = np.maximum(x, 0)
        x = x @ parameters[f"dense{number}.weight"] + parameters[f"dense{number}.bias"]
    classes: NDArray[np.int64] = np.argmax(x, axis=1)
    return classes


def train(x: Array, labels: NDArray[Any], generator: np.random.Generator) -> Parameters:
    """Stochastic gradient descent with momentum, decoupled weight decay and a cosine schedule."""
    parameters = new_parameters(generator)
    velocities: Parameters = {}
    steps_per_epoch = len(x) // BATCH
    for step in range(EPOCHS * steps_per_epoch):
        if step % steps_per_epoch == 0:
            order = generator.permutation(len(x))
        batch = order[step % steps_per_epoch * BATCH :][:BATCH]
        rate = 0.1 * (1 + np.cos(np.pi * step / (EPOCHS * steps_per_epoch))) / 2
        noisy = x[batch] + generator.normal(0, 1.0, size=(len(batch), x.shape[1])).astype(np.float32)
        loss, gradients = loss_and_gradients(noisy, labels[batch], parameters)
        for name, gradient in gradients.items():
            velocity = velocities.setdefault(name, np.zeros_like(gradient))
            velocity *= 0.9
            velocity += gradient
            parameters[name] -= np.float32(rate) * velocity
            if name.startswith("dense") and name.endswith("weight"):
                parameters[name] *= np.float32(1 - rate * 1e-3)
        if (step + 1) % (10 * steps_per_epoch) == 0:
            print(f"epoch {(step + 1) // steps_per_epoch:3d}: loss of the last batch {loss:.4f}")
    return parameters


def main() -> int:
    """Train, report the accuracy on the test digits, and write the weights."""
    parser = argparse.ArgumentParser(description="Train the digits network of fastnorm's demo.")
    parser.add_argument("output", nargs="?", type=pathlib.Path, default=DEFAULT_OUTPUT, help="the .npz file to write")
    output = parser.parse_args().output

    digits, labels = load_digits(return_X_y=True)
    digits = digits.astype(np.float32)
    generator = np.random.default_rng(SEED)
    order = generator.permutation(len(digits))
    test, training = np.sort(order[:TEST_COUNT]), np.sort(order[TEST_COUNT:])
    parameters = train(digits[training], labels[training], generator)
    for name, rows in (("training", training), ("test", test)):
        accuracy = float(np.mean(predict(digits[rows], parameters) == labels[rows]))
        print(f"{name} accuracy: {accuracy:.4f} of {len(rows)} digits")
    np.savez_compressed(output, allow_pickle=False, test_rows=test.astype(np.int16), **parameters)
    print(f"wrote {output}, {output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
