"""Values of other libraries as NumPy's, without importing these."""

from typing import Any

import numpy.typing as npt

from fastnorm import calls


def take(value: Any, function: str, name: str) -> npt.NDArray[Any]:
    """Return an array, or a tensor of torch as one, bfloat16 as float32, which holds it exactly.

    Raises
    ------
    TypeError
        It is no array of real numbers, or a tensor that NumPy cannot hold.
    """
    if hasattr(value, "detach"):
        try:
            tensor = value.detach()
            value = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy(force=True)
        except (TypeError, RuntimeError) as error:  # without memory, sparse, quantised, of 8 bits
            raise TypeError(f"{function}: {name} must be a tensor that NumPy can hold: {error}") from None
    return calls.take(value, function, name)
