"""DLPack (dmlc.github.io/dlpack): where a tensor lies, from the capsule that its library hands out."""

import ctypes
from typing import Any, NamedTuple

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType
FLOAT, BFLOAT = 2, 4  # DLDataTypeCode
LEGACY_DEFAULT_STREAM = 1  # of `__dlpack__`


class _Tensor(ctypes.Structure):
    """The C struct DLTensor, with which DLManagedTensor begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Tensor(NamedTuple):
    """What a capsule tells."""

    address: int
    shape: tuple[int, ...]
    storage: str
    contiguous: bool


def is_on_cuda(x: Any) -> bool:
    """Whether an object offers a tensor on a CUDA device."""
    device = getattr(x, "__dlpack_device__", None)
    try:
        return device is not None and device()[0] in (CUDA, CUDA_MANAGED)
    except (TypeError, ValueError, RuntimeError, BufferError):  # a class, or a tensor without memory
        return False


def tensor_of(x: Any) -> Tensor:
    """Return where the tensor of an object lies, which keeps its memory; the default stream may use it then.

    The capsule is not consumed: its destructor gives back what it holds.
    """
    capsule = x.__dlpack__(stream=LEGACY_DEFAULT_STREAM)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found = _Tensor.from_address(pointer(capsule, b"dltensor"))
    shape = tuple(found.shape[: found.ndim])
    contiguous, expected = True, 1
    for axis in range(found.ndim - 1, -1, -1):
        if found.strides and shape[axis] > 1 and found.strides[axis] != expected:
            contiguous = False
        expected *= shape[axis]
    kind = {FLOAT: "float", BFLOAT: "bfloat"}.get(found.code, f"type {found.code} of DLPack, ")
    return Tensor((found.data or 0) + found.byte_offset, shape, f"{kind}{found.bits}", contiguous)
