"""Calls of PyTorch: `torch.nn.functional` on tensors that are already there, without gradients."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fastnorm.cli.benchmark.arrays import Inputs
from fastnorm.cli.benchmark.grid import Cell
from fastnorm.cli.benchmark.with_numpy import AXES, EPSILON


def prepare(cell: Cell, given: Inputs, threads: int) -> Callable[[], Any]:
    """Return a cell's call."""
    torch = importlib.import_module("torch")
    functional = torch.nn.functional
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)  # for the process, as a program that only infers does
    x, weight, bias, mean, var = map(torch.from_numpy, given)
    line, axis = cell.shape[-1:], AXES.get(cell.along)
    calls: dict[str, Callable[[], Any]] = {
        "layer_norm": lambda: functional.layer_norm(x, line, weight, bias, EPSILON),
        "rms_norm": lambda: functional.rms_norm(x, line, weight, EPSILON),
        "batch_norm": lambda: functional.batch_norm(x, mean, var, weight, bias, cell.training, 0.1, EPSILON),
        "group_norm": lambda: functional.group_norm(x, cell.groups, weight, bias, EPSILON),
        "instance_norm": lambda: functional.instance_norm(x, None, None, weight, bias, True, 0.1, EPSILON),
        "l2_normalize": lambda: functional.normalize(x, dim=-1),
        "moments": lambda: torch.var_mean(x, axis, correction=0)[::-1],
    }
    return calls[cell.op]
