"""``fastnorm tune``: what is decided from times, where it is kept, and who reads it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import output, python

import fastnorm
from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.cli import tune
from fastnorm.cli.main import main
from fastnorm.settings import cache_directory

SIZES = (10, 20, 30)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of the test's own, but for the kernels that Numba has compiled already."""
    compiled = cache_directory() / "numba"
    compiled.mkdir(parents=True, exist_ok=True)
    (tmp_path / "numba").symlink_to(compiled)
    monkeypatch.setenv("FASTNORM_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure little, and little of it."""
    monkeypatch.setattr(tune, "SIZES", (1024, 2048))
    monkeypatch.setattr(tune, "SMALL", (1024,))
    monkeypatch.setattr(tune, "LARGE", (4096,))
    monkeypatch.setattr(tune, "BLOCKS", (2**12, 2**13))
    monkeypatch.setattr(tune, "OUTPUTS", (2**12, 2**13))
    monkeypatch.setattr(tune, "SECONDS", 0.001)
    monkeypatch.setattr(tune, "PROCESSES", 1)


def thresholds(**changed: Any) -> dict[str, Any]:
    return tuning.Tuned()._asdict() | changed


def keep(found: object) -> None:
    tuning.tuned_file().parent.mkdir(parents=True, exist_ok=True)
    tuning.tuned_file().write_text(json.dumps(found), encoding="utf-8")


def test_a_threshold_is_the_largest_size_without_gain() -> None:
    one = dict.fromkeys(SIZES, 10.0)
    assert tune._last_without_gain(one, {10: 20.0, 20: 9.5, 30: 5.0}, 0.9) == 20
    assert tune._last_without_gain(one, {10: 5.0, 20: 9.5, 30: 5.0}, 0.9) == 20
    assert tune._last_without_gain(one, {10: 5.0, 20: 5.0, 30: 5.0}, 0.9) == 0
    assert tune._last_without_gain(one, {10: 50.0, 20: 50.0, 30: 50.0}, 0.9) == 30


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"cython": 1.0, "numba": 1.0, "reference": 1.0}, ("cython", "numba", "reference")),
        ({"cython": 1.0, "numba": 0.95, "reference": 9.0}, ("cython", "numba", "reference")),
        ({"cython": 1.0, "numba": 0.8, "reference": 9.0}, ("numba", "cython", "reference")),
        ({"cython": 9.0, "numba": 5.0, "reference": 1.0}, ("reference", "numba", "cython")),
        ({"numba": 9.0, "reference": 1.0}, ("reference", "numba", "cython")),
    ],
)
def test_a_backend_goes_ahead_only_where_it_is_faster_by_a_margin(
    times: dict[str, float], expected: tuple[str, ...]
) -> None:
    assert tune._order({name: dict.fromkeys(SIZES, time) for name, time in times.items()}, SIZES) == expected


def test_what_is_measured_is_kept_and_read_by_new_processes(
    cache: Path, briefly: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune"]) == 0
    printed = capsys.readouterr().out
    kept = json.loads(tuning.tuned_file().read_text(encoding="utf-8"))["thresholds"]
    assert f"{kept['serial_elements']:,}" in printed
    assert str(tuning.tuned_file()) in printed
    for name in (name for name in registry.NAMES if registry.why_not(name) is None):
        assert name in printed
    code = "from fastnorm import tuning; import json; print(json.dumps(tuning.TUNED._asdict()))"
    assert json.loads(output(code, FASTNORM_CACHE_DIR=str(cache))) == kept
    assert main(["tune", "--reset"]) == 0
    assert not tuning.tuned_file().exists()
    assert json.loads(output(code, FASTNORM_CACHE_DIR=str(cache))) == json.loads(json.dumps(tuning.Tuned()._asdict()))


def test_one_thread_is_compared_with_two_however_many_there_are(
    cache: Path, briefly: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tuning.threads_for` gives calls just above the threshold two."""
    call, asked = tune._call, []

    def recorded(elements: int, backend: str, num_threads: int) -> Callable[[], object]:
        asked.append((elements, num_threads))
        return call(elements, backend, num_threads)

    monkeypatch.setattr(tune, "_call", recorded)
    for threads, most in ((8, 2), (1, 1)):
        with fastnorm.config(num_threads=threads):
            assert main(["tune", "--dry-run"]) == 0
        assert f"{most} threads" in capsys.readouterr().out
        assert asked[:4] == [(1024, 1), (1024, most), (2048, 1), (2048, most)]
        asked.clear()


def test_a_dry_run_keeps_nothing(cache: Path, briefly: None, capsys: pytest.CaptureFixture[str]) -> None:
    before = tuning.SERIAL_ELEMENTS
    assert main(["tune", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["thresholds"].keys() == tuning.Tuned()._asdict().keys()
    assert set(found["one_thread"]) == {"1024", "2048"}
    assert before == tuning.SERIAL_ELEMENTS
    assert not tuning.tuned_file().exists()


def test_a_reset_says_what_it_did(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tuning.tuned_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    for existed in (True, False):
        assert main(["tune", "--reset", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"file": str(file), "existed": existed}
        assert not file.exists()
    assert main(["tune", "--reset"]) == 0
    assert "was not there" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["tune", "--reset", "--dry-run"])


def test_without_a_writable_directory_the_command_says_so(
    tmp_path: Path, briefly: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("FASTNORM_CACHE_DIR", str(blocked))
    monkeypatch.setattr(tune, "measure", None)  # it is said before anything is measured
    assert main(["tune"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["tune", "--reset"]) == 2
    assert "cannot be removed" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="nothing is forbidden here")
def test_a_folder_that_nobody_may_look_into_is_none(tmp_path: Path) -> None:
    forbidden = tmp_path / "private"
    forbidden.mkdir(mode=0)
    code = "from fastnorm import tuning; print(tuning.TUNED == tuning.Tuned(), tuning.TUNED_FROM)"
    assert output(code, FASTNORM_CACHE_DIR=str(forbidden / "fastnorm")) == "True None"


@pytest.mark.parametrize("error", ["PermissionError", "NotADirectoryError"])
def test_what_cannot_be_looked_at_is_as_if_it_were_not_there(error: str, tmp_path: Path) -> None:
    code = f"""
import pathlib
def is_dir(path): raise {error}
pathlib.Path.is_dir = is_dir
import numpy as np, fastnorm
print(fastnorm.layer_norm(np.float32([1, 3])).round(3))
"""
    assert output(code, FASTNORM_CACHE_DIR=str(tmp_path)) == "[-1.  1.]"


@pytest.mark.skipif(os.name != "posix", reason="homes are found in another way")
def test_a_user_without_a_home_has_no_cache() -> None:
    code = """
import pathlib
def home(): raise RuntimeError("Could not determine home directory.")
pathlib.Path.home = home
import os
for name in ("FASTNORM_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"): os.environ.pop(name, None)
import numpy as np, fastnorm
print(fastnorm.layer_norm(np.float32([1, 3])).round(3))
from fastnorm import inspection, settings, tuning
folder = settings.cache_directory()
print(folder.exists(), tuning.TUNED_FROM, inspection.configuration()["cache directory"] == str(folder))
"""
    assert output(code) == "[-1.  1.]\nFalse None True"


def test_new_processes_dispatch_as_tuned(cache: Path) -> None:
    keep({"thresholds": thresholds(serial_elements=10, small=("reference", "cython", "numba"))})
    code = """
import fastnorm
print(fastnorm.explain("layer_norm", (2, 5)).backend, fastnorm.explain("layer_norm", (3, 5)).backend != "reference")
"""
    assert output(code, FASTNORM_CACHE_DIR=str(cache)) == "reference True"
    assert output(code, FASTNORM_CACHE_DIR=str(cache), FASTNORM_TUNED="0").split()[0] != "reference"


@pytest.mark.parametrize(
    "found",
    [
        [],
        {},
        {"thresholds": thresholds(serial_elements=-1)},
        {"thresholds": thresholds(serial_elements="many")},
        {"thresholds": thresholds(serial_elements=10**30)},
        {"thresholds": thresholds(small=("cython",))},
        {"thresholds": thresholds(other=1)},
    ],
    ids=str,
)
def test_a_file_that_is_not_right_is_reported_and_ignored(found: object, cache: Path) -> None:
    keep(found)
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from fastnorm import tuning
print(tuning.TUNED == tuning.Tuned(), [str(warning.message) for warning in caught])
"""
    printed = output(code, FASTNORM_CACHE_DIR=str(cache))
    assert printed.startswith("True")
    assert "is ignored" in printed


def test_kernels_compiled_ahead_serve_while_numba_gets_ready(cache: Path) -> None:
    for name in ("cython", "numba"):
        reason = registry.why_passed_over(name)
        if reason is not None:
            pytest.skip(f"{name} {reason}")
    first = ("numba", "cython", "reference")
    keep({"thresholds": thresholds(small=first, large=first)})
    code = """
import threading
import numpy as np, fastnorm
x = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
before = fastnorm.explain("layer_norm", x.shape).backend
expected = fastnorm.layer_norm(x)
for thread in threading.enumerate():
    if "Numba" in thread.name: thread.join()
print(before, fastnorm.explain("layer_norm", x.shape).backend, np.array_equal(fastnorm.layer_norm(x), expected))
"""
    assert output(code, FASTNORM_CACHE_DIR=str(cache)) == "cython numba True"


@pytest.fixture
def numba_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that chooses Numba for small arrays, and has none of its kernels yet."""
    if registry.why_not("numba") is not None or registry.why_not("cython") is not None:
        pytest.skip("needs both compiled backends")
    monkeypatch.setenv("FASTNORM_CACHE_DIR", str(tmp_path))
    keep({"thresholds": thresholds(small=("numba", "cython", "reference"))})
    return tmp_path


def test_a_process_that_ends_does_not_wait_for_every_kernel(numba_first: Path) -> None:
    from fastnorm.backends.numba.columns import normalize_columns

    code = "import fastnorm; fastnorm.layer_norm([1.0, 2.0]); print('over')"
    done = python(code, FASTNORM_CACHE_DIR=str(numba_first))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "over", "")
    cached = [path for path in numba_first.rglob("*.nbi") if normalize_columns.__name__ in path.name]
    assert not cached


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this operating system has no fork")
def test_a_process_forked_while_numba_gets_ready_is_served(numba_first: Path) -> None:
    code = """
import os, warnings
import numpy as np, fastnorm
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while another thread runs, which is the point
x = np.arange(300, dtype=np.float32)
expected = fastnorm.layer_norm(x)
child = os.fork()
if not child:
    same = all(np.array_equal(fastnorm.layer_norm(x), expected) for _ in range(100))
    os._exit(0 if same else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert output(code, FASTNORM_CACHE_DIR=str(numba_first)) == "0"
