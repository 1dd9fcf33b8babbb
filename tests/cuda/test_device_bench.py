"""The script that times a card checks its results; in the simulator that is all it does."""

import re
import sys
from pathlib import Path

import gpu
import pytest

from fastnorm.backends.cuda import compat

pytestmark = pytest.mark.skipif(not compat.SIMULATED, reason="on hardware the script itself is to be run")


def errors(printed: str) -> dict[str, float]:
    """Return the errors of the checks by the names of their lines."""
    return {line[:48].rstrip(): float(re.findall(r"([\d.]+) units", line)[0]) for line in printed.splitlines()}


def test_checks_print_errors_within_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--check-only"])
    found = errors(capsys.readouterr().out)
    assert len(found) == 6
    assert max(found.values()) <= 8


def test_small_arrays_take_every_path(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--small"])
    found = errors(capsys.readouterr().out)
    assert {name.split()[0] for name in found} > {"group_norm_backward", "pixel_norm_backward", "rms_norm"}
    assert max(found.values()) <= 8


def test_only_takes_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--check-only", "--only", "rms_norm 8192x1024 float32"])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_error_beyond_the_bound_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "check", lambda cell, shape: 9.0)
    with pytest.raises(SystemExit, match="1 of 1 beyond their bound"):
        gpu.main(["--check-only", "--only", "rms_norm 8192x1024 float32"])


@pytest.mark.parametrize("status", [0, 99])
def test_sanitizers_run_the_small_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """Each tool in turn, until one finds something."""
    runs = []

    def run(command: list[str], env: dict[str, str], check: bool) -> object:
        runs.append((command, env["PYTORCH_NO_CUDA_MEMORY_CACHING"]))
        return type("Done", (), {"returncode": status})

    monkeypatch.setattr(gpu.shutil, "which", lambda name: "/cuda/compute-sanitizer")
    monkeypatch.setattr(gpu.subprocess, "run", run)
    if status:
        with pytest.raises(SystemExit, match="memcheck ended with exit status 99"):
            gpu.main(["--sanitize", "--only", "layer_norm*"])
    else:
        gpu.main(["--sanitize", "--only", "layer_norm*"])
    assert [command[2] for command, _ in runs] == ["memcheck", "racecheck"][: 2 if status == 0 else 1]
    for command, uncached in runs:
        assert command[-5:] == [sys.executable, str(Path(gpu.__file__)), "--small", "--only", "layer_norm*"]
        assert uncached == "1"


def test_without_the_toolkit_sanitizing_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="compute-sanitizer is not on the PATH"):
        gpu.main(["--sanitize"])
