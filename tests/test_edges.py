"""What searches of the whole interface found: edges of arguments, files, forks and activations."""

import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnorm
from fastnorm import memory, nn


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_the_memory_pool_is_locked_leaves_the_child_a_lock_of_its_own() -> None:
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        with memory._pool._lock:
            held.set()
            released.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:  # the thread that holds the lock is not here
        os._exit(0 if memory._pool._lock.acquire(timeout=10) else 1)
    released.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0


def test_an_activation_divides_by_zero_as_numpy_does_and_must_not_raise() -> None:
    numba = pytest.importorskip("numba")
    inverse = numba.njit(lambda a: 1.0 / a)
    x = np.array([[-1.0, 0.0, 1.0, 2.0, -2.0, 0.0]], np.float32)
    with np.errstate(divide="ignore"):
        expected = 1.0 / fastnorm.rms_norm(x)
    for backend in (None, "numba", "reference"):
        np.testing.assert_allclose(fastnorm.rms_norm(x, activation=inverse, backend=backend), expected, rtol=1e-6)

    @numba.njit
    def positive(a: float) -> float:
        if a < 0:
            raise ValueError("negative")
        return a

    out = np.zeros_like(x)
    with pytest.raises(TypeError, match=r"^rms_norm: activation 'positive' must not raise"):
        fastnorm.rms_norm(x, activation=positive, out=out)
    assert not out.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_parameters_of_float64_give_the_same_bits_for_any_number_of_threads(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal((512, 128)) * 50 + 100).astype(dtype), rng.standard_normal(128)
    line = rng.standard_normal((1, 70000)).astype(np.float32)
    found = []
    for threads in (1, 2, 4):
        with fastnorm.config(num_threads=threads):
            found.append(fastnorm.batch_norm(x, training=True, weight=weight, bias=weight).tobytes())
            found.append(fastnorm.weight_norm(line, [1.7]).tobytes())
    assert found[:2] == found[2:4] == found[4:]


@pytest.mark.parametrize(("size", "eps"), [(1e200, 1e-12), (1e-200, 0.0)])
def test_the_spectral_norm_of_what_float64_cannot_square(size: float, eps: float) -> None:
    found = fastnorm.spectral_norm(np.full((3, 4), size), eps=eps)
    np.testing.assert_allclose(found.weight, 12**-0.5, rtol=1e-12)
    np.testing.assert_allclose(found.sigma, 12**0.5 * size, rtol=1e-12)


@pytest.mark.parametrize("attribute", ["eps", "momentum"])
def test_instance_norm_moves_nothing_if_it_is_refused(attribute: str) -> None:
    layer = nn.InstanceNorm1d(2, track_running_stats=True)
    setattr(layer, attribute, -1.0)
    with pytest.raises(ValueError, match=attribute):
        layer(np.random.default_rng(0).standard_normal((3, 2, 5)))
    np.testing.assert_array_equal(layer.running_mean, np.zeros(2))
    np.testing.assert_array_equal(layer.running_var, np.ones(2))


def test_numbers_beyond_float64_and_dtypes_that_are_no_names_are_refused_by_name() -> None:
    x = np.ones((2, 3), np.float32)
    for call in (
        lambda: fastnorm.batch_norm(x, [10**400, 1, 2], [1, 1, 1]),
        lambda: fastnorm.local_response_norm(np.ones((1, 2, 3)), 10**400),
        lambda: fastnorm.layer_norm(x, dtype=","),
        lambda: fastnorm.Welford(10**30),
        lambda: fastnorm.Welford.from_bytes(memoryview(np.zeros(9))),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^(batch_norm|local_response_norm|layer_norm|Welford)"):
            call()


def test_counted_batches_are_not_negative_and_fit() -> None:
    layer = nn.BatchNorm1d(2, momentum=None)
    state = layer.state_dict() | {"num_batches_tracked": np.uint64(2**63)}
    with pytest.raises(ValueError, match="num_batches_tracked must fit int64"):
        layer.load_state_dict(state)
    layer.num_batches_tracked = -1
    with pytest.raises(ValueError, match="num_batches_tracked must be at least 0, got -1"):
        layer(np.ones((3, 2)))


def test_a_file_of_arrays_holds_numbers_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "strange.npz", "w") as archive:
        archive.writestr("weight.npy", b"hello")
    with pytest.raises(ValueError, match=r"^load: "):
        nn.load(tmp_path / "strange.npz")
    np.savez(tmp_path / "text.npz", weight=np.array(["a"]))
    with pytest.raises(ValueError, match="weight must have a real number dtype"):
        nn.load(tmp_path / "text.npz")


def test_a_power_beyond_float32_warns_of_nothing() -> None:
    np.testing.assert_array_equal(fastnorm.lp_normalize(np.full((2, 3), 0.5, np.float32), p=1e39), np.ones((2, 3)))
