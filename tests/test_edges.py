"""What searches of the whole interface found: edges of arguments, files, forks and activations."""

import gc
import os
import threading
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import dtype_of
from processes import output

import fastnorm
from fastnorm import lab, memory, nn


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

    @numba.njit
    def halved(a: float) -> float:
        return 0.5 * positive(a)

    with pytest.raises(TypeError, match=r"^rms_norm: activation 'halved' must not raise"):
        fastnorm.rms_norm(x, activation=halved, out=out)
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [2.0**1000, 2.0**-1060, 1.0, 2.0**-70])
def test_the_spectral_norm_from_a_vector_of_any_length(length: float, dtype: str) -> None:
    w = np.diag([3.0, 1.0]).astype(dtype)
    expected = fastnorm.spectral_norm(w, u=[1.0, 1.0])
    found = fastnorm.spectral_norm(w, u=np.full(2, length))
    assert found.sigma == expected.sigma
    np.testing.assert_array_equal(found.weight, expected.weight)


def test_the_spectral_norm_goes_on_from_a_weight_of_zeros() -> None:
    first = fastnorm.spectral_norm(np.zeros((2, 2)), eps=0)
    assert not first.u.any()
    w = np.diag([3.0, 1.0])
    assert fastnorm.spectral_norm(w, u=first.u).sigma == fastnorm.spectral_norm(w).sigma


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


def test_names_that_npz_confuses_come_back_or_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    state = {"x.npy": np.ones(1), "x": np.zeros(2)}
    nn.save(state, path)
    loaded = nn.load(path)
    assert list(loaded) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array)
    with pytest.raises(ValueError, match=r"save: \.npz cannot tell the name 'a.x00b'"):
        nn.save({"a\0b": np.ones(1), "a": np.zeros(2)}, path)
    assert list(nn.load(path)) == list(state)


def test_an_array_that_no_memory_holds_is_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "huge.npz"
    for shape in ("(10000000000000,)", "(100000000000000000000,)"):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(ValueError, match=r"is not a readable \.npz file"):
            nn.load(path)
        (tmp_path / "huge.npy").write_bytes(content)
        with pytest.raises(ValueError, match="not an array that NumPy can read"):
            lab.load(tmp_path / "huge.npy")


def test_what_the_lab_is_given_under_another_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "archive.npz", x=np.ones(3))
    (tmp_path / "archive.npz").rename(tmp_path / "array.npy")
    with pytest.raises(ValueError, match="not an array but an archive"):
        lab.load(tmp_path / "array.npy")
    with zipfile.ZipFile(tmp_path / "words.npz", "w") as archive:
        archive.writestr("words.txt", "hello")
    with pytest.raises(ValueError, match="the archive has no arrays"):
        lab.load(tmp_path / "words.npz")


@pytest.mark.parametrize(("text", "right"), [("1e999999999", None), ("1e-999999999", 0), ("2.5", 2.5)])
def test_a_certified_value_is_a_number_that_float64_knows(text: str, right: float | None, tmp_path: Path) -> None:
    path = tmp_path / "data.dat"
    path.write_text(f"Sample Mean: {text}\nData: Y\n------\n2.0\n3.0\n")
    if right is None:
        with pytest.raises(ValueError, match="Sample Mean: expected a number that float64 can hold"):
            lab.load(path)
    else:
        assert lab.load(path)[0].certified_mean == right


def test_bfloat16_is_known_by_its_name() -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes, which brings bfloat16, is not installed")
    code = "import fastnorm; print(fastnorm.layer_norm([[1.0, 2.0]], dtype='bfloat16').dtype)"
    assert output(code) == "bfloat16"


def test_floats_of_two_16_bit_types_make_a_layer_of_float32() -> None:
    bfloat16 = dtype_of("bfloat16")
    state = {"weight": np.ones(3, np.float16), "bias": np.zeros(3, bfloat16)}
    assert nn.from_state_dict(state, kind=nn.LayerNorm).weight.dtype == np.float32


def test_the_mode_may_be_a_bool_of_numpy() -> None:
    assert nn.BatchNorm1d(2).train(np.bool_(False)).training is False


def test_what_refuses_to_become_an_array_is_named() -> None:
    class Refuses:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("call detach first")

    with pytest.raises(TypeError, match="layer_norm: x must be an array of numbers: call detach first"):
        fastnorm.layer_norm(Refuses())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channel_axis", [1, 2])
@pytest.mark.parametrize("positions", [3, 200])
def test_a_given_variance_of_0_is_divided_by(dtype: Any, channel_axis: int, positions: int, backend: str) -> None:
    x = np.arange(2.0 * 2 * positions).reshape(2, 2, positions).astype(dtype)
    x = np.ascontiguousarray(np.moveaxis(x, 1, channel_axis))
    mean, var = np.array([1.0, 2.0]), np.array([0.0, 4.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = [1 if axis != channel_axis else 2 for axis in range(3)]
        expected = (x - mean.reshape(shape)) / np.sqrt(var).reshape(shape)
    for serving in (backend, None):
        y = fastnorm.batch_norm(x, mean, var, eps=0.0, channel_axis=channel_axis, backend=serving)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        y = fastnorm.normalize(x, mean, var, eps=0.0, channel_axis=channel_axis, backend=serving)
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_lines_without_elements_have_no_scale(backend: str) -> None:
    lines, scale = fastnorm.layer_norm(np.zeros((3, 0), np.float32), quantize="int8", backend=backend)
    assert lines.shape == (3, 0)
    assert np.isnan(scale).all()


@pytest.mark.parametrize("algorithm", ["naive", "welford", "two_pass", "pairwise"])
@pytest.mark.parametrize("weight", [1e-9, 1.0, 1e5, 1e30])
def test_weights_may_be_of_any_size(algorithm: str, weight: float, backend: str) -> None:
    x = np.array([1.0, 2.0, 3.0], np.float16)
    found = fastnorm.moments(x, weights=[weight] * 3, algorithm=algorithm, backend=backend)
    # The naive algorithm subtracts sums of 14 and 12, each of three terms rounded to 11 bits: 0.01 of the rest of 2.
    np.testing.assert_allclose([found.mean, found.var], [2.0, 2.0 / 3.0], rtol=0.011)
    assert found.count == pytest.approx(3 * weight)


@pytest.mark.parametrize("weight", [1e-170, 1.0, 1e160])
def test_of_reliability_weights_the_ratios_matter_alone(weight: float) -> None:
    weights = [weight, 2 * weight, weight]
    found = fastnorm.moments([1.0, 2.0, 4.0], weights=weights, weights_kind="reliability", ddof=1)
    expected = fastnorm.moments([1.0, 2.0, 4.0], weights=[1.0, 2.0, 1.0], weights_kind="reliability", ddof=1)
    assert found.var == pytest.approx(expected.var, rel=1e-12)


def test_results_beyond_their_dtype_are_infinite_without_a_warning() -> None:
    state = fastnorm.Welford(dtype="float32")
    state.update([[1e30], [3e30]])
    assert np.isinf(state.var).all()
    y = fastnorm.switchable_norm(np.ones((2, 2, 2)), [np.inf, 0.0, 0.0], [0.0, 0.0, 0.0], training=True)
    assert np.isnan(y).all()


def test_a_welford_state_has_the_floating_dtypes_of_the_library() -> None:
    bfloat16 = dtype_of("bfloat16")
    state = fastnorm.Welford(dtype=bfloat16)
    state.update([[1.0], [3.0]])
    assert (state.mean.dtype, float(state.mean[0])) == (bfloat16, 2.0)
    with pytest.raises(TypeError, match="Welford: dtype must be a floating dtype"):
        fastnorm.Welford(dtype=np.longdouble)


@pytest.mark.parametrize("value", [np.inf, 1e-320, 1e-40])
def test_an_image_is_divided_by_what_float32_can_divide_by(value: float, backend: str) -> None:
    image = np.zeros((2, 2, 1), np.uint8)
    for serving in (None, backend):
        with pytest.raises(ValueError, match=r"normalize_image: max_value must be (within|above)"):
            fastnorm.normalize_image(image, [0.5], [0.5], max_value=value, backend=serving)
    y = fastnorm.normalize_image(image, [0.5], [0.5], dtype=None, backend=backend)
    assert y.dtype == np.float32


def test_functions_as_activations_are_let_go() -> None:
    numba = pytest.importorskip("numba")
    x = np.ones((3, 4), np.float32)
    functions = []
    for _ in range(5):
        function = numba.njit(lambda a: a)
        functions.append(weakref.ref(function))
        fastnorm.layer_norm(x, activation=function, backend="reference")
    del function
    gc.collect()
    assert all(function() is None for function in functions)


def test_explain_refuses_shapes_that_the_function_refuses() -> None:
    for op, shape in (("batch_norm", (5,)), ("pixel_norm_backward", (5,)), ("layer_norm", ())):
        with pytest.raises(ValueError, match="explain: shape must have at least"):
            fastnorm.explain(op, shape)
    assert fastnorm.explain("moments", ()).shape == ()
