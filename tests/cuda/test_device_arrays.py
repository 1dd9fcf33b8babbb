"""Whose arrays are taken, what is given back, and on which stream: by protocols, and by a stand-in for PyTorch."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_arrays import Dlpack, Interface, Namespaced

import fastnorm
from fastnorm.backends.cuda import compat

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(not compat.SIMULATED, reason="stand-ins whose memory is the host's")

X = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams that kernels were put on."""
    seen: list[int] = []
    stream_of = compat._stream

    def noted(device: int, stream: int) -> Any:
        seen.append(stream)
        return stream_of(device, stream)

    monkeypatch.setattr(compat, "_stream", noted)
    return seen


@pytest.mark.parametrize("kind", [Interface, Namespaced, Dlpack])
def test_any_protocol_will_do(kind: Any) -> None:
    y = fastnorm.layer_norm(kind(X))
    found = y.array if isinstance(y, Namespaced) else y.copy_to_host()
    assert isinstance(y, Namespaced) == (kind is Namespaced)
    np.testing.assert_allclose(found, fastnorm.layer_norm(X), rtol=1e-6, atol=1e-6)


def test_arrays_of_cupy_need_not_tell_their_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not before CuPy 14, whose functions are those of the module."""
    module: Any = ModuleType("cupy")

    class Silent(Interface):
        __module__ = "cupy._core.core"
        device = Namespaced.device

    module.empty = lambda shape, dtype: Silent(np.empty(shape, dtype))
    monkeypatch.setitem(sys.modules, "cupy", module)
    y = fastnorm.layer_norm(Silent(X))
    assert isinstance(y, Silent)
    np.testing.assert_allclose(y.array, fastnorm.layer_norm(X), rtol=1e-6, atol=1e-6)


def test_without_numba_cuda_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "SIMULATED", False)
    monkeypatch.setattr(compat, "intrinsic", None)
    monkeypatch.setattr(compat, "why_not", compat.why_not.__wrapped__)
    with pytest.raises(RuntimeError, match=r"layer_norm: x is on a CUDA device: .* pip install 'fastnorm\[cuda12\]'"):
        fastnorm.layer_norm(Interface(X))


def test_what_is_not_contiguous_is_copied_by_its_library_or_refused() -> None:
    spread = np.repeat(X, 2, axis=1)[:, ::2]
    y = fastnorm.layer_norm(Namespaced(spread))
    np.testing.assert_array_equal(y.array, fastnorm.layer_norm(Namespaced(X)).array)
    for kind in (Interface, Dlpack):
        with pytest.raises(ValueError, match="x must be C-contiguous on a device"):
            fastnorm.layer_norm(kind(spread))


def test_addresses_that_are_not_aligned_are_read_element_by_element() -> None:
    for skip in range(4):
        memory = np.empty(X.size + skip, np.float32)
        memory[skip:] = X.ravel()
        y = fastnorm.layer_norm(Namespaced(memory[skip:].reshape(X.shape)))
        np.testing.assert_allclose(y.array, fastnorm.layer_norm(X), rtol=1e-6, atol=1e-6)


def test_the_stream_of_the_interface_is_used(streams: list[int]) -> None:
    y = fastnorm.layer_norm(Interface(X, stream=77))
    assert streams == [77]
    assert y.__cuda_array_interface__["stream"] == 77  # whoever reads it waits for that
    fastnorm.layer_norm(Interface(X))
    assert streams == [77, 0]


class Tensor:
    """What is used of a torch.Tensor."""

    device = SimpleNamespace(type="cuda", index=0)
    is_cuda = True

    def __init__(self, array: Array, dtype: str | None = None, requires_grad: bool = False) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = f"torch.{dtype or array.dtype.name}"
        self.requires_grad = requires_grad

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def is_contiguous(self) -> bool:
        return bool(self.array.flags.c_contiguous)

    def contiguous(self) -> "Tensor":
        return Tensor(np.ascontiguousarray(self.array), self.dtype.rpartition(".")[2])

    def get_device(self) -> int:
        return 0

    def reshape(self, shape: tuple[int, ...]) -> "Tensor":
        return Tensor(self.array.reshape(shape), self.dtype.rpartition(".")[2])


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in with the functions that are called, whose current stream is number 1234."""
    module: Any = ModuleType("torch")
    module.Tensor = Tensor
    for name in ("float16", "bfloat16", "float32", "float64"):
        setattr(module, name, f"torch.{name}")

    def empty(shape: tuple[int, ...], dtype: str, device: Any) -> Tensor:
        name = dtype.rpartition(".")[2]
        return Tensor(np.empty(shape, np.uint16 if name == "bfloat16" else name), name)

    module.empty = empty
    module.is_grad_enabled = lambda: True
    module.cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=1234))
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def test_tensors_give_tensors_on_their_stream(torch: ModuleType, streams: list[int]) -> None:
    y, (mean, rstd) = fastnorm.layer_norm(Tensor(X), return_stats=True)
    assert isinstance(y, Tensor)
    assert isinstance(mean, Tensor)
    assert rstd.shape == (3, 1)
    np.testing.assert_allclose(y.array, fastnorm.layer_norm(X), rtol=1e-6, atol=1e-6)
    fastnorm.batch_norm(Tensor(X), training=True)
    assert set(streams) == {1234}


def test_bfloat16_of_torch_has_no_dtype_of_numpys(torch: ModuleType) -> None:
    bits = (X.view(np.uint32) >> 16).astype(np.uint16)
    y = fastnorm.rms_norm(Tensor(bits, "bfloat16"))
    assert y.dtype == "torch.bfloat16"
    found = (y.array.astype(np.uint32) << 16).view(np.float32)
    rounded = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(found, fastnorm.rms_norm(rounded), rtol=2.0**-8)
    assert fastnorm.rms_norm(Tensor(X), dtype="torch.bfloat16").dtype == "torch.bfloat16"


def test_a_tensor_that_records_gradients_is_refused(torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    x = Tensor(X, requires_grad=True)
    with pytest.raises(ValueError, match="layer_norm: x records gradients"):
        fastnorm.layer_norm(x)
    monkeypatch.setattr(torch, "is_grad_enabled", lambda: False)
    assert isinstance(fastnorm.layer_norm(x), Tensor)
