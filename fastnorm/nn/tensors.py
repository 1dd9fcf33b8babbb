"""Values of other libraries as NumPy's, without importing these."""

from typing import Any


def as_numpy(value: Any) -> Any:
    """Return a tensor of torch as an array, bfloat16 as float32, which holds it exactly; all else as it is."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
