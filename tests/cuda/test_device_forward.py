"""The forward norms on a device against the defining formulas, within the bounds of the CPU's backends."""

from math import prod
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case, build, dtype_of, parts
from device_arrays import on_device, to_host
from formulas import joined
from test_norms import bound, compute_dtype

import fastnorm
from fastnorm.backends.cuda import compat

Array = np.ndarray[Any, Any]

OPS = ("layer_norm", "rms_norm", "batch_norm", "instance_norm", "group_norm", "pixel_norm", "l2_normalize", "normalize")
FLOATS = ("float16", "bfloat16", "float32", "float64")
# A thread of the simulator is one of Python's.
LARGEST = 1200 if compat.SIMULATED else 10**8
CHOSEN = [case for case in CASES if case.op in OPS and case.dtype in FLOATS and prod(case.shape) <= LARGEST]
assert len(CHOSEN) > 200


def roundings(case: Case, compute: np.dtype[Any], units: float) -> float:
    """Return the error of a normalised value in units of the roundoff; float64 sums are no wider than their data.

    A thread adds at most 32 numbers, and what threads have is added in a tree.
    """
    return units if compute == np.float32 else units + (32 if case.data != "normal" else 8)


@pytest.mark.parametrize("index", range(len(CHOSEN)), ids=lambda index: CHOSEN[index].name)
def test_every_case_is_as_near_to_the_truth_as_derived(index: int) -> None:
    case = CHOSEN[index]
    args, kwargs = build(case, np.random.default_rng(index))
    pieces = parts(case, args, kwargs)
    y = joined(pieces)
    on = [on_device(value) for value in args], {name: on_device(value) for name, value in kwargs.items()}
    result = to_host(getattr(fastnorm, case.op)(*on[0], **on[1]))
    dtype = dtype_of(case.dtype)
    assert result.shape == y.shape
    assert result.dtype == dtype
    compute = compute_dtype(dtype)
    allowed = bound(pieces, y, roundings(case, compute, pieces.roundings), compute, dtype)
    ratio = float(np.max(np.abs(result.astype(np.longdouble) - y) / allowed, initial=0))
    assert ratio <= 1, f"{ratio:.2f} of the bound"
