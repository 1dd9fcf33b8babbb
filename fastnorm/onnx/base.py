"""What ONNX's operators share: the attributes, which are checked by a table, and their place in onnx's evaluator."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.norms.conventions import check_momentum

try:
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator as ReferenceEvaluator  # for the modules here: one message is enough
    from onnx.reference.op_run import OpRun
except ImportError as error:
    raise ImportError(
        f"fastnorm.onnx needs onnx, which could not be imported ({error}): pip install 'fastnorm[onnx]'"
    ) from error

Array = npt.NDArray[Any]


def _one_of(*allowed: int) -> Callable[[Any, str, str], int]:
    """Return the check of an attribute that has but a few values."""

    def check(value: Any, operator: str, name: str) -> int:
        if arguments.integer(value, operator, name) not in allowed:
            raise ValueError(f"{operator}: {name} must be one of {', '.join(map(str, allowed))}, got {value}")
        return int(value)

    return check


def _stash_dtype(value: Any, operator: str, name: str) -> np.dtype[Any]:
    """Return the dtype that a `stash_type` means."""
    floating = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16
    dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(_one_of(*floating)(value, operator, name))
    return dtype


def _axes(value: Any, operator: str, name: str) -> tuple[int, ...]:
    return tuple(arguments.integer(axis, operator, name) for axis in value)


# How each attribute is checked and what it becomes; float attributes come as np.float32.
_ATTRIBUTES: dict[str, Callable[[Any, str, str], Any]] = {
    "alpha": arguments.number,
    "axes": _axes,
    "axis": arguments.integer,
    "beta": arguments.number,
    "bias": arguments.number,
    "epsilon": partial(arguments.number, minimum=0),
    "momentum": lambda value, operator, name: check_momentum(value, operator),
    "num_groups": partial(arguments.integer, minimum=1),
    "p": _one_of(1, 2),
    "spatial": _one_of(1),
    "size": partial(arguments.integer, minimum=1),
    "stash_type": _stash_dtype,
    "training_mode": _one_of(0, 1),
}


class Operator(OpRun):  # type: ignore[misc]  # a base of type Any: mypy skips onnx, which need not be installed
    """An operator: its attributes are the keywords of `_compute`, whose defaults onnx knows where it has a schema."""

    def __init__(self, onnx_node: Any, run_params: dict[str, Any], schema: Any = None) -> None:
        super().__init__(onnx_node, run_params, schema)
        known = [
            parameter.name
            for parameter in inspect.signature(self._compute).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        ]
        for attribute in onnx_node.attribute:
            if attribute.name not in known:
                raise ValueError(f"{self.op_type}: no attribute {attribute.name!r}; there are {', '.join(known)}")

    def run(self, *args: Any, **kwargs: Any) -> tuple[Array | None, ...]:
        """Compute the outputs from the inputs; a TypeError keeps the message that says what is wrong."""
        try:
            results = super().run(*args, **kwargs)
        except TypeError as error:  # onnx puts one around it that lists the types of all inputs
            raise (error if error.__cause__ is None else error.__cause__) from None
        # An output without a name would become what inputs that are left out are taken from: these have the same name.
        return tuple(value if name else None for name, value in zip(self.output, results, strict=False))

    def _run(self, *inputs: Array | None, **attributes: Any) -> tuple[Array, ...]:
        checked = {name: _ATTRIBUTES[name](value, self.op_type, name) for name, value in attributes.items()}
        return self._compute(*inputs, **checked)

    def _compute(self, *inputs: Any, **attributes: Any) -> tuple[Array, ...]:
        """Return the outputs, at least as many as the node names."""
        raise NotImplementedError


def rounded(dtype: np.dtype[Any], *results: Array) -> tuple[Array, ...]:
    """Return results in a dtype that may be narrower."""
    with np.errstate(all="ignore"):
        return tuple(result.astype(dtype, copy=False) for result in results)
