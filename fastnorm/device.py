"""Arrays that live on a CUDA device: whose they are, how the kernels see them, and what is given back.

What comes in decides: results and scratch memory are made by the library of x, so that they are of its kind, come from
its allocator, and belong to the stream on which it computes now; the kernels are put on that stream. Nothing is copied
to the host, and nothing waits.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fastnorm import dlpack
from fastnorm.backends import registry
from fastnorm.backends.cuda.buffers import SIZES, Buffer, Place, Shape
from fastnorm.settings import check_backend, current


@dataclass(frozen=True, slots=True)
class View:
    """An array of any library, before it is checked."""

    address: int
    shape: Shape
    storage: str
    contiguous: bool


class Library:
    """A library of device arrays; `Others` is one for whatever tells its memory by a protocol alone."""

    def owns(self, x: Any) -> bool:
        """Whether an object is an array of this library on a CUDA device."""
        raise NotImplementedError

    def view(self, x: Any) -> View:
        """Return where an array lies."""
        raise NotImplementedError

    def contiguous(self, x: Any) -> Any:
        """Return a C-contiguous copy, made on the device."""
        raise NotImplementedError

    def device(self, x: Any) -> int:
        """Return the number of an array's device."""
        raise NotImplementedError

    def stream(self, x: Any) -> int:
        """Return the address of the stream that the library computes on now, 0 for the default one."""
        raise NotImplementedError

    def empty(self, like: Any, shape: Shape, storage: str) -> Any:
        """Return an uninitialised array on the device of `like`."""
        raise NotImplementedError

    def assign(self, target: Any, source: Any) -> None:
        """Copy a source to a target, on the device and on the current stream."""
        raise NotImplementedError


class Torch(Library):
    """PyTorch's tensors; what uses them through this library is not recorded by autograd."""

    def owns(self, x: Any) -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(x, torch.Tensor) and bool(x.is_cuda)

    def view(self, x: Any) -> View:
        return View(x.data_ptr(), tuple(x.shape), _name_of(x.dtype), bool(x.is_contiguous()))

    def contiguous(self, x: Any) -> Any:
        return x.contiguous()

    def device(self, x: Any) -> int:
        return int(x.get_device())

    def stream(self, x: Any) -> int:
        return int(sys.modules["torch"].cuda.current_stream(x.device).cuda_stream)

    def empty(self, like: Any, shape: Shape, storage: str) -> Any:
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, storage), device=like.device)

    def assign(self, target: Any, source: Any) -> None:
        target.copy_(source)


def _interface(x: Any) -> Any:
    """Return ``__cuda_array_interface__`` of an object, None if it has none."""
    return getattr(x, "__cuda_array_interface__", None)


def _interface_view(x: Any) -> View:
    """Return the view that an interface, or else DLPack, tells of."""
    found = _interface(x)
    if found is None:
        tensor = dlpack.tensor_of(x)
        return View(tensor.address, tensor.shape, tensor.storage, tensor.contiguous)
    shape, strides = tuple(found["shape"]), found.get("strides")
    # ml_dtypes' bfloat16 has no code of its own in the interface: two bytes of anything.
    own = _name_of(getattr(x, "dtype", found["typestr"]))
    storage = "bfloat16" if own == "bfloat16" else np.dtype(found["typestr"]).name
    if not np.dtype(found["typestr"]).isnative:
        storage = f"{storage} of the other byte order"
    itemsize = np.dtype(found["typestr"]).itemsize
    return View(found["data"][0], shape, storage, strides is None or _is_contiguous(shape, strides, itemsize))


def _is_contiguous(shape: Shape, strides: tuple[int, ...], itemsize: int) -> bool:
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _dtype_of(storage: str, like: Any) -> Any:
    """Return NumPy's dtype of a storage type; bfloat16 is ml_dtypes'."""
    if storage != "bfloat16":
        return np.dtype(storage)
    if _name_of(getattr(like, "dtype", "")) == storage:
        return like.dtype
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def _namespace(x: Any) -> Any:
    """Return the functions that make arrays like x, None if they are not known; not all of CuPy's arrays tell.

    JAX's arrays cannot be written to, and so are no results.
    """
    if type(x).__module__.partition(".")[0] in ("jax", "jaxlib"):
        return None
    if hasattr(type(x), "__array_namespace__"):
        return x.__array_namespace__()
    return sys.modules.get("cupy") if type(x).__module__.partition(".")[0] == "cupy" else None


class ArrayNamespace(Library):
    """Arrays with an array API namespace: CuPy's."""

    def owns(self, x: Any) -> bool:
        return _namespace(x) is not None and _is_on_cuda(x)

    def view(self, x: Any) -> View:
        return _interface_view(x)

    def contiguous(self, x: Any) -> Any:
        with x.device:
            return _namespace(x).ascontiguousarray(x)

    def device(self, x: Any) -> int:
        return int(getattr(x.device, "id", 0))

    def stream(self, x: Any) -> int:
        return _interface_stream(x)

    def empty(self, like: Any, shape: Shape, storage: str) -> Any:
        with like.device:
            return _namespace(like).empty(shape, dtype=_dtype_of(storage, like))

    def assign(self, target: Any, source: Any) -> None:
        with target.device:
            target[...] = source


class Others(Library):
    """Whatever has ``__cuda_array_interface__`` or DLPack, Numba's arrays included; results are Numba's."""

    def owns(self, x: Any) -> bool:
        return _is_on_cuda(x)

    def view(self, x: Any) -> View:
        return _interface_view(x)

    def contiguous(self, x: Any) -> Any:
        raise ValueError("must be C-contiguous on a device, since its library is not known to copy it there")

    def device(self, x: Any) -> int:
        from fastnorm.backends.cuda import compat

        return compat.current_device()

    def stream(self, x: Any) -> int:
        return _interface_stream(x)

    def empty(self, like: Any, shape: Shape, storage: str) -> Any:
        from fastnorm.backends.cuda import compat

        if storage == "bfloat16":
            raise TypeError("bfloat16 results need an array of PyTorch's or CuPy's: Numba's arrays cannot be of it")
        return compat.empty(shape, np.dtype(storage), self.device(like), self.stream(like))

    def assign(self, target: Any, source: Any) -> None:
        from fastnorm.backends.cuda import compat

        compat.copy(target, source, self.device(source), self.stream(target))


LIBRARIES: tuple[Library, ...] = (Torch(), ArrayNamespace(), Others())


def _is_on_cuda(x: Any) -> bool:
    return _interface(x) is not None or dlpack.is_on_cuda(x)


def _interface_stream(x: Any) -> int:
    found = _interface(x)
    return int((found or {}).get("stream") or 0)


def library_of(x: Any) -> Library | None:
    """Return the library of a device array; None of everything else."""
    if isinstance(x, (np.ndarray, float, int, list, tuple, type(None))):
        return None
    return next((library for library in LIBRARIES if library.owns(x)), None)


def is_device_array(x: Any) -> bool:
    """Whether an object is an array on a CUDA device."""
    return library_of(x) is not None


def dimensions(x: Any) -> int:
    """Return the number of dimensions of an array in any memory."""
    library = library_of(x)
    return int(x.ndim) if library is None else len(library.view(x).shape)


def _name_of(dtype: Any) -> str:
    """Return the name of any library's dtype: "float32" of torch.float32."""
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype).rpartition(".")[2]


def storage_of(dtype: Any, default: str, function: str) -> str:
    """Return the storage type of a result: that of `dtype`, NumPy's or the array's library's, or the default."""
    if dtype is None:
        return default
    name = _name_of(dtype)
    if name not in SIZES:
        raise TypeError(f"{function}: dtype must be float16, bfloat16, float32 or float64, got {name}")
    return name


@dataclass(frozen=True, slots=True)
class Device:
    """Where a call takes place, and its arrays' library."""

    library: Library
    like: Any
    place: Place

    def take(self, x: Any, function: str, name: str) -> Buffer:
        """Return an array on this device as the kernels see it; copied, on the device, if it is not contiguous.

        Raises
        ------
        TypeError
            It is not an array on a device, or not of a floating dtype.
        ValueError
            It is on another device, or records gradients.
        """
        library = library_of(x)
        if library is None:
            raise TypeError(f"{function}: {name} must be on the device of x, got {type(x).__name__} in host memory")
        found = library.view(x)
        if found.storage not in SIZES:
            raise TypeError(
                f"{function}: {name} must be float16, bfloat16, float32 or float64 on a device, got {found.storage}"
            )
        if library.device(x) != self.place.device:
            raise ValueError(
                f"{function}: {name} must be on the device of x, {self.place.device}, got {library.device(x)}"
            )
        check_autograd(x, function, name)
        if not found.contiguous:
            try:
                x = library.contiguous(x)
            except ValueError as error:
                raise ValueError(f"{function}: {name} {error}") from None
            found = library.view(x)
        return Buffer(x, found.address, found.shape, found.storage)

    def output(self, out: Any, shape: Shape, storage: str, function: str) -> Buffer:
        """Return where a result goes: `out`, checked, or a new array."""
        if out is None:
            return self.place.empty(shape, storage)
        library = library_of(out)
        if library is None:
            raise TypeError(f"{function}: out must be on the device of x, got {type(out).__name__} in host memory")
        check_autograd(out, function, "out")
        found = library.view(out)
        if found.shape != shape:
            raise ValueError(f"{function}: out must have the shape of the result, {shape}, got {found.shape}")
        if found.storage != storage:
            raise TypeError(f"{function}: out must have the dtype of the result, {storage}, got {found.storage}")
        if not found.contiguous:
            raise ValueError(f"{function}: out must be C-contiguous on a device")
        if library.device(out) != self.place.device:
            raise ValueError(
                f"{function}: out must be on the device of x, {self.place.device}, got {library.device(out)}"
            )
        return Buffer(out, found.address, found.shape, found.storage)


def check_autograd(x: Any, function: str, name: str) -> None:
    """Refuse a tensor whose gradient would be lost without a word."""
    torch = sys.modules.get("torch")
    if torch is not None and getattr(x, "requires_grad", False) and torch.is_grad_enabled():
        raise ValueError(
            f"{function}: {name} records gradients, which autograd cannot follow here: detach it, or call under "
            "torch.no_grad(), and use the backward function"
        )


def begin(x: Any, backend: str | None, function: str) -> Device:
    """Return the device of an array.

    Raises
    ------
    ValueError
        A backend other than "cuda" was asked for.
    RuntimeError
        No kernel can run here; the message says what is missing.
    """
    name = current().backend if backend is None else check_backend(backend, f"{function}: backend")
    if name not in ("auto", "cuda"):
        raise ValueError(f"{function}: x is on a CUDA device, which the {name} backend cannot serve")
    reason = registry.why_no_cuda()
    if reason is not None:
        raise RuntimeError(f"{function}: x is on a CUDA device: {reason}")
    library = library_of(x)
    assert library is not None
    return Device(library, x, Place(library.device(x), library.stream(x), _allocator(library, x)))


def _allocator(library: Library, like: Any) -> Callable[[Shape, str], Buffer]:
    def empty(shape: Shape, storage: str) -> Buffer:
        if not prod(shape):  # nothing is read or written: libraries differ in what they say of nothing's address
            return Buffer(library.empty(like, shape, storage), 0, shape, storage)
        array = library.empty(like, shape, storage)
        return Buffer(array, library.view(array).address, shape, storage)

    return empty
