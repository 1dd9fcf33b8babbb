"""The backward passes on a device: the gradients of the formulas, within the bounds of the CPU's backends."""

from math import prod
from typing import Any

import numpy as np
import pytest
from cases import BACKWARD_CASES, Case, build_backward
from device_arrays import on_device, to_device, to_host
from gradient_formulas import gradients
from test_backward import assert_within
from test_device_forward import LARGEST, OPS

import fastnorm

Array = np.ndarray[Any, Any]

CHOSEN = [case for case in BACKWARD_CASES if case.op in OPS and prod(case.shape) <= LARGEST]
assert len(CHOSEN) > 100


def served(case: Case, dy: Array, x: Array, kwargs: dict[str, Any], **more: Any) -> dict[str, Array]:
    """Return the gradients of a case by name, copied to the host."""
    given = {name: on_device(value) for name, value in kwargs.items()}
    result = getattr(fastnorm, f"{case.op}_backward")(to_device(dy), to_device(x), **given, **more)
    found = result._asdict() if hasattr(result, "_asdict") else {"dx": result}
    return {name: to_host(part) for name, part in found.items() if part is not None}


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_gradients_are_those_of_the_formulas(case: Case) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    found = served(case, dy, x, kwargs)
    assert all(part.dtype == x.dtype for part in found.values())
    assert_within(case, found, gradients(case.op, dy, x, **kwargs))


@pytest.mark.parametrize("case", [case for case in CHOSEN if case.dtype == "float32"], ids=lambda case: case.name)
def test_statistics_of_the_forward_pass_do_as_well(case: Case) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    given = {name: on_device(value) for name, value in kwargs.items()}
    _, (mean, rstd) = getattr(fastnorm, case.op)(to_device(x), **given, return_stats=True)
    others = {name: value for name, value in kwargs.items() if "running" not in name}
    found = served(case, dy, x, others, mean=mean, rstd=rstd)
    assert_within(case, found, gradients(case.op, dy, x, **kwargs))
