"""What `explain` says of a call: who serves it, what is computed how, what it moves, and how far it may be off."""

import re
from typing import Any

import numpy as np
import pytest
from cases import Case, build_backward, named
from gradient_formulas import gradients
from variants import serving

import fastnorm

BACKWARD = sorted(name for name in fastnorm.__all__ if name.endswith("_backward"))


def test_explain_names_the_backend_that_serves(backend: str) -> None:
    with fastnorm.config(backend=backend, num_threads=1):
        explanation = fastnorm.explain("layer_norm", (8, 768), "uint8")
    assert explanation.backend == backend
    assert explanation.reason == f"forced: backend={backend!r}"
    assert explanation.threads == 1
    assert explanation.compute_dtype == "float32"
    assert explanation.dtype == "uint8"
    assert explanation.shape == (8, 768)
    text = str(explanation)
    for part in ("layer_norm", "(8, 768)", "uint8", backend, explanation.variant, explanation.reason):
        assert part in text


@pytest.mark.parametrize(
    ("op", "shape", "expected"),
    [
        ("layer_norm", (8, 768), "rows, 8 lines of 768: one pass about a shift"),
        ("layer_norm", (8, 64), "short rows, 8 lines of 64: 16 in flight"),
        ("rms_norm", (8, 768), "the squares in one pass"),
        ("standardize", (100, 30), "columns, 30 lines of 100: blocks of 64 rows, read twice"),
        ("pixel_norm", (2, 8, 5, 5), "columns, 50 lines of 8: blocks of 64 rows, read once"),
        ("group_norm", (2, 8, 5, 5), "a line for each group"),
        ("batch_norm", (2, 8, 5, 5), "none: the statistics are given"),
        ("min_max_scale", (100, 30), "one pass for the least and the largest"),
    ],
)
def test_explain_tells_the_algorithm(op: str, shape: tuple[int, ...], expected: str, compiled: str) -> None:
    with fastnorm.config(backend=compiled):
        assert expected in fastnorm.explain(op, shape).algorithm


def test_explain_tells_the_stores_and_what_is_moved() -> None:
    small, large = fastnorm.explain("layer_norm", (8, 1000)), fastnorm.explain("layer_norm", (2**15, 2**10))
    assert "fresh memory" in small.stores
    assert "recycled memory" in large.stores
    assert "0.064 MB" in small.bound
    assert "268 MB" in large.bound
    assert "2.4e-07" in small.bound
    assert fastnorm.explain("moments", (8, 1000)).stores == "none"
    assert "0.032 MB" in fastnorm.explain("moments", (8, 1000)).bound
    assert fastnorm.explain("fold_batch_norm", (2, 8)).algorithm == "NumPy"
    assert fastnorm.explain("clip_by_value", (2, 8)).algorithm == "element by element"
    assert "channels around" in fastnorm.explain("local_response_norm", (2, 8, 5, 5)).algorithm


def test_explain_of_sizes_and_dtypes() -> None:
    small, large = fastnorm.explain("batch_norm", (2, 3)), fastnorm.explain("batch_norm", (512, 64, 56, 56))
    assert small.reason != large.reason
    assert fastnorm.explain("layer_norm", 768).shape == (768,)
    assert fastnorm.explain("moments", (), np.float64).compute_dtype == "float64"
    assert fastnorm.explain("layer_norm", (0, 3), "int64").compute_dtype == "float64"
    assert fastnorm.explain("layer_norm", (3,), ">f4").compute_dtype == "float32"
    for op in ("clip_by_norm", "clip_by_global_norm", "clip_by_value"):
        assert fastnorm.explain(op, ()).shape == ()
    image = fastnorm.explain("normalize_image", (224, 224, 3), "uint8")
    assert image.compute_dtype == "float32"
    assert "none where mean and std are given" in image.algorithm
    for shape in ((224, 224), (1, 2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r"\(H, W, C\) or \(N, H, W, C\)"):
            fastnorm.explain("normalize_image", shape, "uint8")
    for bad in ("complex64", object, "U3"):
        with pytest.raises(TypeError, match="explain"):
            fastnorm.explain("layer_norm", (3,), bad)


OF_LINES = ("layer_norm_backward", "rms_norm_backward", "l2_normalize_backward")


@pytest.mark.parametrize(
    ("op", "shape"),
    [(op, shape) for op in BACKWARD for shape in ((0, 6), (4, 6), (2, 6, 3, 4))] + [(op, (5,)) for op in OF_LINES],
    ids=str,
)
def test_explain_knows_every_backward_pass(op: str, shape: tuple[int, ...], backend: str) -> None:
    with fastnorm.config(backend=serving(op, backend)):
        explanation = fastnorm.explain(op, shape, "float16")
    assert explanation.op == op
    assert explanation.backend == serving(op, backend)
    assert explanation.bound.endswith("rounded to float16")
    assert "sums of" in explanation.algorithm


@pytest.mark.parametrize(
    ("op", "shape", "expected"),
    [
        ("layer_norm", (128, 768), "rows, 128 lines of 768: one pass about a shift"),
        ("layer_norm", (128, 64), "rows, 128 lines of 64"),
        ("layer_norm", (128, 768), "of g * (x - mean): blocks of 4,096 in 32 lanes of float32, joined in float64"),
        ("layer_norm", (128, 768), "dweight and dbias: row after row in float64, units of 64 rows joined in order"),
        ("layer_norm", (2**16, 768), "units of 256 rows"),
        ("rms_norm", (128, 768), "weight * dy * x: blocks of 4,096"),
        ("rms_norm", (128, 768), "; dweight: row after row"),
        ("batch_norm", (2, 8, 5, 5), "none: the statistics are given; sums of dy and of dy * (x - mean): blocks"),
        ("batch_norm", (128, 64), "row after row in float64, chunks of 1,024 rows joined in order; dweight and dbias"),
        ("group_norm", (2, 8, 5, 5), "those of all items, added in float64"),
        ("instance_norm", (2, 8, 5, 5), "rows, 16 lines of 25: one pass"),
        ("switchable_norm", (2, 8, 5, 5), "rows, 16 lines of 25: one pass"),
        ("pixel_norm", (2, 8, 5, 5), "read once, joined in float64; sums of dy * x: row after row in float64"),
        ("l2_normalize", (8, 768), "sums of dy * x: blocks of 4,096"),
    ],
)
def test_explain_tells_the_sums_of_a_backward_pass(
    op: str, shape: tuple[int, ...], expected: str, compiled: str
) -> None:
    with fastnorm.config(backend=compiled):
        assert expected in fastnorm.explain(f"{op}_backward", shape).algorithm
        assert "in 16 lanes of float64" in fastnorm.explain("layer_norm_backward", shape, "float64").algorithm
    with fastnorm.config(backend="reference"):
        assert "in float64 by NumPy" in fastnorm.explain(f"{op}_backward", shape).algorithm


def test_explain_tells_what_a_backward_pass_moves() -> None:
    def moved(op: str, shape: tuple[int, ...]) -> str:
        return fastnorm.explain(f"{op}_backward", shape).bound.partition(" MB")[0]

    assert moved("layer_norm", (1000, 1000)) == "12"  # x, dy and dx
    assert moved("batch_norm", (10, 100, 1000)) == "16"  # x once, dy for its sums and for dx
    assert moved("pixel_norm", (10, 100, 1000)) == "24"  # x three times, dy twice
    assert moved("local_response_norm", (10, 100, 1000)) == "12"
    large = (2**15, 2**10)
    with fastnorm.config(backend="reference"):
        assert "NumPy's; recycled memory" in fastnorm.explain("layer_norm_backward", large).stores


RUNNING = {"running_mean": True, "running_var": True}
MIXTURE = {"mean_weight": [0.3, -0.5, 1.0], "var_weight": [1.0, 0.2, -1.0]}
BOUNDED = [
    *((op, shape, {"weight": True}) for op in ("layer_norm", "rms_norm") for shape in ((7, 33), (3, 9000))),
    *(
        (op, shape, {"weight": True, **options})
        for op, options in (
            ("batch_norm", RUNNING),
            ("instance_norm", {}),
            ("group_norm", {"num_groups": 2}),
            ("switchable_norm", MIXTURE | RUNNING),
        )
        for shape in ((3, 4, 5), (2, 4, 9000))
    ),
    *(("batch_norm", shape, RUNNING) for shape in ((9, 4), (3000, 4))),
    *((op, shape, {}) for op in ("pixel_norm", "l2_normalize") for shape in ((3, 40), (3, 4000, 5))),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("op", "shape", "options"), BOUNDED)
def test_gradients_are_within_the_bound_that_explain_tells(
    op: str, shape: tuple[int, ...], options: dict[str, Any], dtype: str, backend: str
) -> None:
    case = Case("", op, shape, dtype, options, offset=20.0)
    dy, x, kwargs = build_backward(case, np.random.default_rng(11))
    with fastnorm.config(backend=backend):
        bound = fastnorm.explain(f"{op}_backward", shape, dtype).bound
        found = named(getattr(fastnorm, f"{op}_backward")(dy, x, **kwargs))
    told = re.search(r"at most (?:\((\d+) \+ \|mean\| / std\)|(\d+)) \* (\S+) of the terms", bound)
    assert told is not None
    units = int(told[1]) + abs(case.offset) if told[1] else int(told[2])
    for name, (value, magnitude) in gradients(op, dy, x, **kwargs).items():
        # Rounded to its dtype; the factor is printed with two digits.
        allowed = 1.05 * units * float(told[3]) * magnitude + float(np.finfo(dtype).eps) / 2 * np.abs(value)
        assert (np.abs(found[name] - value) <= allowed).all(), name


@pytest.mark.parametrize("op", OF_LINES)
def test_explain_of_lines_without_elements(op: str, backend: str) -> None:
    with fastnorm.config(backend=backend):
        assert fastnorm.explain(op, (3, 0)).shape == (3, 0)


def test_explain_refuses_what_no_array_can_be() -> None:
    with pytest.raises(ValueError, match="explain: shape"):
        fastnorm.explain("layer_norm", (10**400,))
