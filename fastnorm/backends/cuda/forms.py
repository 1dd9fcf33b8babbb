"""What a kernel is made for, and the parts that depend on it: its parameters, and what follows the normalised x."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.activations import activation
from fastnorm.backends.cuda.compat import device_function
from fastnorm.backends.cuda.statistics import normalizer, reciprocal_root

# Whose a parameter is: nobody's, of each position of a row, of each run (a row is one or several), of each column.
Owner = Literal["none", "position", "run", "column"]
# Of what sums of dy and of dy * xhat are wanted: each position, over rows; each run of a row; a row that is one run.
Summed = Literal["none", "position", "run", "row"]


@dataclass(frozen=True, slots=True)
class Form:
    """What a forward kernel is made for, besides its shape: everything that is decided before it is compiled."""

    x: str  # the storage types
    y: str
    real: Any  # what is computed in: np.float32 or np.float64
    parameters: str = "float32"  # the storage type of weight and bias
    weight: Owner = "none"
    bias: Owner = "none"
    segmented: bool = False  # whether a row is several runs
    whole_runs: bool = True  # whether a vector lies in one run
    centred: bool = True
    floor: bool = False
    residual: bool = False  # x is x + residual
    keep_total: bool = False  # and that sum is written, too
    activation: str | None = None
    want_stats: bool = False
    statistics: str = "float64"  # the storage type of statistics that are given
    rooted: bool = True  # whether these are mean and rstd; else mean and variance
    paired: bool = False  # whether a mean is two numbers


@dataclass(frozen=True, slots=True)
class GradientForm(Form):
    """What a kernel of a backward pass is made for; y is dx, bias and activation have no part in it."""

    upstream: str = "float32"  # the storage type of dy
    given: bool = False  # whether the statistics are those of the forward pass
    sums: Summed = "none"
    held: bool = True  # whether registers hold a row of dy, too; else it is read again
    terms: bool = False  # statistics, A and B are written instead of dx
    by_position: bool = False  # whether a statistic goes with the position, not with the line


def parameter_reader(owner: Owner, form: Form, vector: int) -> Any:
    """Return a part of kernels that writes the parameters of a vector to a local array.

    ``(address, first, at, run_length, held)``: those of the elements from position `at` of a row on, whose first run
    has parameter `first`.
    """
    together, single = (machine.load(form.parameters, form.real, count) for count in (vector, 1))
    segmented, whole_runs = form.segmented, form.whole_runs

    def of_positions(address, first, at, run_length, held):
        together(address, at, held, np.int64(0))

    @device_function
    def run_of(at, run_length):
        # A row that registers hold is short: 32 bits, whose division is a fraction of the work of 64.
        return np.int64(np.uint32(at) // np.uint32(run_length))

    def of_runs(address, first, at, run_length, held):
        if whole_runs:
            single(address, first + run_of(at, run_length) if segmented else first, held, np.int64(0))
            for e in range(1, vector):
                held[e] = held[0]
        else:
            for e in range(vector):
                single(address, first + run_of(at + e, run_length), held, np.int64(e))

    def of_nobody(address, first, at, run_length, held):
        pass

    return device_function({"position": of_positions, "run": of_runs}.get(owner, of_nobody))


def finisher(form: Form) -> Any:
    """Return a part of kernels, ``(value, scale, shift)``: weight, bias and activation of a normalised value."""
    activate = activation(form.activation, form.real)
    with_weight, with_bias = form.weight != "none", form.bias != "none"
    fused = machine.fused

    @device_function
    def finished(value, scale, shift):
        if with_weight and with_bias:
            value = fused(value, scale, shift)
        elif with_weight:
            value = value * scale
        elif with_bias:
            value = value + shift
        return activate(value)

    return finished


def statistics_reader(form: Form) -> Any:
    """Return a part of kernels, ``(means, rests, rstds, number, eps, found)``: a statistic as numbers to normalise by.

    `found` is a local array of one float64, where rstd is then: the simulator has such arrays in kernels alone.
    """
    load = machine.load(form.statistics, np.float64, 1)
    rooted, centred, paired, real = form.rooted, form.centred, form.paired, form.real
    rstd_of = reciprocal_root(False)
    split, _ = normalizer(real)

    @device_function
    def read(means, rests, rstds, number, eps, found):
        hi = real(0)
        lo = 0.0
        if centred:
            load(means, number, found, np.int64(0))
            hi = real(found[0])
            lo = found[0] - np.float64(hi)
            if paired:
                load(rests, number, found, np.int64(0))
                lo = found[0]
        load(rstds, number, found, np.int64(0))
        if not rooted:
            found[0] = rstd_of(found[0], 1.0, eps)
        return split(hi, lo, found[0])

    return read
