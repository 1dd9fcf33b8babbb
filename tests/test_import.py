"""What an import loads, and what happens where a backend is missing; each in a process of its own."""

from pathlib import Path

import numpy as np
import pytest
from processes import output, python
from variants import why_not

import fastnorm

HEAVY = ("numba", "onnx", "scipy.stats", "sklearn", "matplotlib")

# A finder that hides modules, as if they were not installed.
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({prefixes!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}} (hidden)", name=name)
sys.meta_path.insert(0, Hidden())
"""
CYTHON = ("fastnorm.backends._kernels_", "fastnorm.backends._cpu")
NUMBA = ("numba", "llvmlite")

# Right results, small and large, rows and lanes; the truth is NumPy's.
USE = """
import numpy as np, fastnorm
for shape in ((4, 3, 5), (16, 3, 1000)):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 2
    wide = x.astype(float)
    y = fastnorm.layer_norm(x)
    mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    np.testing.assert_allclose(y, (wide - mean) / np.sqrt(var + 1e-5), rtol=1e-5, atol=1e-6)
    running_mean, running_var = np.zeros(3), np.ones(3)
    y = fastnorm.batch_norm(x, running_mean, running_var, training=True)
    mean, var = wide.mean((0, 2), keepdims=True), wide.var((0, 2), keepdims=True)
    np.testing.assert_allclose(y, (wide - mean) / np.sqrt(var + 1e-5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(running_mean, 0.1 * mean.ravel(), rtol=1e-6)
    moments = fastnorm.moments(x, axis=0)
    np.testing.assert_allclose(moments.mean, wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.var, wide.var(0), rtol=1e-5)
"""


def hidden(*prefixes: str) -> str:
    return HIDE.format(prefixes=prefixes)


def needs(label: str) -> None:
    reason = why_not(label)
    if reason is not None:
        pytest.skip(reason)


# What is loaded


@pytest.mark.parametrize(
    "code",
    [
        "import fastnorm",
        "import fastnorm; fastnorm.get_num_threads(); dir(fastnorm); fastnorm.explain('layer_norm', (8, 768))",
        "import numpy as np, fastnorm; fastnorm.layer_norm(np.ones((8, 768), np.float32))",
        "import numpy as np, fastnorm; fastnorm.batch_norm(np.ones((8, 4)), training=True); fastnorm.moments([1.0])",
    ],
    ids=["import", "settings", "layer_norm", "batch_norm and moments"],
)
def test_imports_and_small_calls_leave_heavy_packages_alone(code: str) -> None:
    if "ones" in code:
        needs("cython-base")
    loaded = output(f"{code}\nimport sys; print(*(name for name in {HEAVY!r} if name in sys.modules))")
    assert loaded == ""


def test_importing_loads_no_submodule_until_it_is_used() -> None:
    code = "import sys, fastnorm; print(*sorted(name for name in sys.modules if name.startswith('fastnorm.')))"
    assert output(code) == "fastnorm.loading"
    assert "fastnorm.norms.layer" in output(code.replace("fastnorm;", "fastnorm; fastnorm.layer_norm;"))


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    for name in fastnorm.__all__:
        assert getattr(fastnorm, name) is not None
        assert name in dir(fastnorm)
    with pytest.raises(AttributeError, match="module 'fastnorm' has no attribute 'layernorm'"):
        _ = fastnorm.layernorm


def test_submodules_are_loaded_by_name() -> None:
    for name in ("nn", "lab", "memory"):
        code = f"import sys, fastnorm; fastnorm.{name}; print('fastnorm.{name}' in sys.modules)"
        assert output(code) == "True"
    pytest.importorskip("onnx", reason="onnx, which fastnorm.onnx needs, is not installed")
    code = "import sys, fastnorm; fastnorm.onnx.ops(); import onnx; print(sys.modules['fastnorm.onnx'] is not onnx)"
    assert output(code) == "True"


# What is forced


@pytest.mark.parametrize("variant", ["base", "avx2", "avx512"])
def test_an_isa_variant_works_or_says_why_not(variant: str) -> None:
    needs("cython-base")
    code = USE + "\nprint(fastnorm.explain('layer_norm', (8, 768)).variant)"
    if why_not(f"cython-{variant}") is None:
        assert output(code, FASTNORM_ISA=variant) == variant
    else:
        done = python(code, FASTNORM_ISA=variant)
        assert done.returncode
        assert f"RuntimeError: FASTNORM_ISA={variant}" in done.stderr


def test_all_variants_give_the_same_bits() -> None:
    code = "import numpy as np, fastnorm; x = np.random.default_rng(0).standard_normal((9, 5001))\n"
    code += (
        "print(fastnorm.layer_norm(x).tobytes().hex()[:2000], fastnorm.moments(x, axis=0).var.tobytes().hex()[:2000])"
    )
    variants = [variant for variant in ("base", "avx2", "avx512") if why_not(f"cython-{variant}") is None]
    assert len({output(code, FASTNORM_ISA=variant) for variant in variants}) <= 1


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("FASTNORM_ISA", "bogus", ("avx512", "avx2", "base")),
        ("FASTNORM_BACKEND", "bogus", ("auto", "reference", "cython", "numba")),
        ("FASTNORM_NUM_THREADS", "0", ("positive integer",)),
        ("FASTNORM_NUM_THREADS", "-2", ("positive integer",)),
        ("FASTNORM_NUM_THREADS", "many", ("positive integer",)),
        ("NUMBA_NUM_THREADS", "1.5", ("positive integer",)),
        ("FASTNORM_PREFETCH", "yes", ("0 or 1",)),
        ("FASTNORM_MOVE_THREADS", "no", ("0 or 1",)),
    ],
)
def test_a_bad_environment_variable_is_refused_by_name(variable: str, value: str, names: tuple[str, ...]) -> None:
    if variable == "FASTNORM_ISA":
        needs("cython-base")
    done = python("import fastnorm; fastnorm.layer_norm([1.0, 2.0])", **{variable: value})
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: {variable} must be")
    assert value in last
    assert all(name in last for name in names)


@pytest.mark.parametrize("name", ["reference", "cython", "numba"])
def test_a_backend_can_be_forced_by_the_environment(name: str) -> None:
    needs("cython-base" if name == "cython" else name)
    code = USE + "\nprint(fastnorm.explain('layer_norm', (8, 768)).backend)"
    assert output(code, FASTNORM_BACKEND=name) == name


# What is missing


def test_without_the_compiled_kernels_numba_serves() -> None:
    needs("numba")
    code = hidden(*CYTHON) + USE + "\nprint(fastnorm.explain('layer_norm', (8, 768)))"
    text = output(code)
    assert "numba" in text
    assert "cython cannot run here: no compiled kernels in " in text
    assert str(Path(fastnorm.__file__).parent / "backends") in text


def test_without_numba_the_compiled_kernels_serve() -> None:
    needs("cython-base")
    code = hidden(*NUMBA) + USE + "\nfastnorm.warm()\nprint(fastnorm.explain('layer_norm', (4096, 768)).backend)"
    assert output(code) == "cython"


def test_without_both_numpy_serves_and_explain_says_why() -> None:
    code = hidden(*CYTHON, *NUMBA) + USE + "\nfor n in (8, 4096): print(fastnorm.explain('layer_norm', (n, 768)))"
    text = output(code)
    assert text.count("reference") >= 2
    assert text.count("cython cannot run here") == 2
    assert text.count("numba cannot run here") == 2


@pytest.mark.parametrize(("name", "prefixes"), [("cython", CYTHON), ("numba", NUMBA)])
def test_a_missing_backend_that_is_forced_fails_loudly(name: str, prefixes: tuple[str, ...]) -> None:
    code = hidden(*prefixes) + "\nimport fastnorm; fastnorm.layer_norm([1.0, 2.0])"
    for done in (python(code, FASTNORM_BACKEND=name), python(code.replace("2.0]", f"2.0], backend={name!r}"))):
        assert done.returncode
        assert f"RuntimeError: fastnorm: the {name} backend cannot run here" in done.stderr


@pytest.mark.parametrize("code", ["fastnorm.onnx", "import fastnorm.onnx", "from fastnorm import onnx"])
def test_without_onnx_its_submodule_names_the_extra_and_the_rest_works(code: str) -> None:
    output(hidden("onnx") + USE + "\nfrom fastnorm import *; dir(fastnorm)")
    done = python(hidden("onnx") + f"\nimport fastnorm\n{code}")
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: fastnorm.onnx needs onnx, which could not be imported (No module named 'onnx'")
    assert last.endswith("pip install 'fastnorm[onnx]'")


def test_show_config_says_what_is_missing() -> None:
    text = output(hidden(*CYTHON, *NUMBA) + "\nimport fastnorm; fastnorm.show_config()")
    lines = [line.split(None, 1) for line in text.splitlines()]
    # Cython, Numba and, which needs Numba, CUDA.
    assert lines.count(["available", "False"]) == 3
    assert sum(name == "reason" for name, *_ in lines) == 3


def test_without_a_writable_cache_directory_kernels_are_compiled_all_the_same(tmp_path: Path) -> None:
    needs("numba")
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    code = (
        "import numpy as np, fastnorm\n"
        "print(fastnorm.extrema(np.arange(6.0).reshape(2, 3), axis=1, backend='numba').max)\n"
        "from fastnorm.inspection import configuration\n"
        "print(configuration()['numba']['cache directory'])"
    )
    assert output(code, FASTNORM_CACHE_DIR=str(blocked)).split("\n") == ["[2. 5.]", "None"]


def test_the_working_directory_does_not_matter() -> None:
    expected = fastnorm.layer_norm(np.arange(12.0).reshape(3, 4)).tobytes().hex()
    code = "import numpy as np, fastnorm; print(fastnorm.layer_norm(np.arange(12.0).reshape(3, 4)).tobytes().hex())"
    assert output(f"import os; os.chdir('/')\n{code}") == expected
