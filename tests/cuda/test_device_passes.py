"""Which kernels a backward pass takes, by what registers hold, and that all give the gradients of the formulas."""

from typing import Any

import numpy as np
import pytest
from device_arrays import on_device, to_host
from gradient_formulas import gradients as exact_gradients

import fastnorm
from fastnorm.backends.cuda import compat, gradients, primitives

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(not compat.SIMULATED, reason="the simulator's ladder of row lengths is narrower")

# A thread adds up to 32 numbers one after the other, then come a tree and a few roundings.
ROUNDINGS = 40
# Rows of which registers hold x, dy and sums; x alone; of which a block has a chunk.
HELD, READ_AGAIN, CHUNKED = 24, 100, 140


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were put on a stream, by the functions that make them; not those that add up small parts."""
    seen: list[str] = []

    def noted(kernel: compat.Kernel, *args: Any) -> None:
        made_by = kernel.function.__qualname__.partition(".")[0]
        if not made_by.startswith("merge_"):
            seen.append(made_by)
        compat.launch(kernel, *args)

    for module in (gradients, primitives):
        monkeypatch.setattr(module, "launch", noted)
    return seen


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def check(function: str, dy: Array, x: Array, *args: Any, **options: Any) -> None:
    """Compare the gradients of a call on the device with the formulas', in proportion to what they are made of."""
    moved = {name: on_device(value) for name, value in options.items()}
    result = getattr(fastnorm, f"{function}_backward")(on_device(dy), on_device(x), *args, **moved)
    found = result._asdict() if hasattr(result, "_asdict") else {"dx": result}
    if function == "group_norm":
        options = options | {"num_groups": args[0]}
    given = {name: value for name, value in options.items() if name not in ("mean", "rstd")}
    for name, exact in exact_gradients(function, dy, x, **given).items():
        if found.get(name) is not None:
            allowed = ROUNDINGS * np.finfo(x.dtype).eps / 2 * exact.magnitude
            assert (np.abs(to_host(found[name]) - exact.value) <= allowed).all(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_read_as_often_as_registers_demand(passes: list[str], dtype: str) -> None:
    for length, expected in (
        (HELD if dtype == "float32" else HELD // 2, ["normalize_grad_rows"]),
        (READ_AGAIN if dtype == "float32" else READ_AGAIN // 2, ["normalize_grad_rows", "affine_grad_rows"]),
        (CHUNKED, ["moments_rows", "dots_rows", "affine_grad_rows"]),
    ):
        x, dy, weight = (normal(*shape, dtype=dtype) for shape in ((9, length), (9, length), (length,)))
        for offset in (0, 100):
            passes.clear()
            check("layer_norm", dy[::-1].copy(), x + x.dtype.type(offset), weight=weight)
            assert passes == expected


def test_without_parameters_long_rows_take_one_pass(passes: list[str]) -> None:
    for length in (HELD, 2 * HELD, READ_AGAIN):
        passes.clear()
        check("l2_normalize", normal(5, length, seed=1), normal(5, length))
        assert passes == ["normalize_grad_rows"]


def test_a_row_that_was_divided_by_eps_is_divided_by_eps(passes: list[str]) -> None:
    for length in (READ_AGAIN, CHUNKED):
        x = normal(3, length)
        x[1] = 0
        check("l2_normalize", normal(3, length, seed=1), x, eps=0.5)


def test_given_statistics_spare_the_pass_that_finds_them(passes: list[str]) -> None:
    x, dy, weight = normal(4, READ_AGAIN), normal(4, READ_AGAIN, seed=1), normal(READ_AGAIN)
    mean = x.mean(1, keepdims=True, dtype=np.float64)
    rstd = (x.var(1, keepdims=True, dtype=np.float64) + 1e-5) ** -0.5
    check("layer_norm", dy, x, weight=weight, mean=mean, rstd=rstd)
    assert passes == ["dots_rows", "affine_grad_rows"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups", "dtype"),
    [
        ((3, 4, 3, 4), 2, "float32"),
        ((3, 4, 3, 4), 2, "float64"),
        ((2, 6, 5), 2, "float32"),
        ((3, 4, 8), 4, "float64"),
        ((2, 2, 20), 1, "float32"),
        ((1, 3, 7), 3, "float64"),
        ((5, 4, 12), 1, "float32"),
    ],
)
def test_groups_in_registers_take_one_pass(
    passes: list[str], shape: tuple[int, ...], groups: int, weighted: bool, dtype: str
) -> None:
    x, dy = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    options = {"weight": normal(shape[1], dtype=dtype)} if weighted else {}
    check("group_norm", dy, x, groups, **options)
    assert passes == ["normalize_grad_rows"]


def test_groups_beyond_registers_take_more(passes: list[str]) -> None:
    check("group_norm", normal(2, 4, 80, seed=1), normal(2, 4, 80), 2, weight=normal(4))
    assert passes == ["moments_rows", "dots_rows", "affine_grad_rows"]


def test_instances_are_rows_of_one_run(passes: list[str]) -> None:
    for length in (12, 60, 120):
        passes.clear()
        check("instance_norm", normal(2, 3, length, seed=1), normal(2, 3, length), weight=normal(3))
        assert passes == ["normalize_grad_rows"]


def test_groups_take_the_statistics_of_the_forward_pass(passes: list[str]) -> None:
    x, dy, weight = normal(3, 4, 6), normal(3, 4, 6, seed=1), normal(4)
    _, (mean, rstd) = fastnorm.group_norm(x.astype(np.float64), 2, return_stats=True)
    check("group_norm", dy, x, 2, weight=weight, mean=mean, rstd=rstd)
    assert passes == ["normalize_grad_rows"]
