"""``fastnorm`` as a program: what goes wrong before or after a command is a message, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import python

import fastnorm
from fastnorm.cli.main import main

START = "import sys; from fastnorm.cli import start; sys.argv[1:] = {}; sys.exit(start())"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTNORM_NUM_THREADS", "0"),
        ("FASTNORM_BACKEND", "foo"),
        ("FASTNORM_POOL_MIB", "x"),
        ("FASTNORM_PREFETCH", "2"),
        ("FASTNORM_ISA", "mmx"),
    ],
)
def test_a_wrong_variable_of_the_environment_is_a_message(name: str, value: str) -> None:
    done = python(START.format(["info"]), **{name: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"fastnorm: {name} must be")
    assert done.stderr.count("\n") == 1


def test_the_package_is_a_program_too() -> None:
    done = python(
        "import runpy, sys; sys.argv[1:] = ['explain', 'layer_norm', '4x8']; runpy.run_module('fastnorm.__main__')"
    )
    assert done.returncode == 0, done.stderr
    assert "layer_norm" in done.stdout


def started(*arguments: str, stdout: int) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(Path(fastnorm.__file__).parents[1])}
    environment.pop("PYTHONUNBUFFERED", None)  # the parser does not heed what goes wrong where it writes
    code = START.format(list(arguments))
    return subprocess.Popen([sys.executable, "-P", "-c", code], env=environment, stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.skipif(os.name != "posix", reason="a pipe that nobody reads is another error elsewhere")
def test_nobody_need_read_to_the_end() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = started("info", "--json", stdout=writer)
    os.close(writer)
    assert process.communicate(timeout=300)[1] == b""
    assert process.returncode == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
@pytest.mark.parametrize("argument", ["info", "--help"])
def test_a_full_disk_is_a_message(argument: str) -> None:
    with open("/dev/full", "wb") as full:
        process = started(argument, stdout=full.fileno())
        message = process.communicate(timeout=300)[1]
    assert message.startswith(b"fastnorm: the output could not be written: ")
    assert message.count(b"\n") == 1
    assert process.returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the output")
def test_what_is_wrong_does_not_go_to_the_output_where_errors_are_closed() -> None:
    done = python("import sys; sys.stderr = None\n" + START.format(["explain", "foo", "3", "--json"]))
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("option", ["--plot", "--html"])
def test_a_directory_is_no_file_to_draw_into(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastnorm.lab.run", lambda *_, **__: pytest.fail("measured"))
    folder = tmp_path / "a.png"
    folder.mkdir()
    assert main(["stability", "--quick", option, str(folder)]) == 1
    assert f"could not write {folder}: it is a directory" in capsys.readouterr().err


def test_explain_has_nothing_to_say_of_a_device() -> None:
    with fastnorm.config(backend="cuda"), pytest.raises(RuntimeError, match="explain: the cuda backend serves arrays"):
        fastnorm.explain("layer_norm", (8, 768))


@pytest.mark.parametrize("command", [["demo"], ["bench"], ["stability"]])
def test_the_format_of_a_figure_is_checked_at_once(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--quick", "--plot", "figure.txt"])
    assert stopped.value.code == 2
    assert "expected a file that ends in .png or .svg, got 'figure.txt'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["demo"], ["bench", "--no-peers"], ["stability"]])
def test_a_backend_that_serves_no_array_here_is_a_message(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with fastnorm.config(backend="cuda"):
        fastnorm.warm()
        assert main([*command, "--quick"]) == 2
    assert "the cuda backend serves no array in host memory" in capsys.readouterr().err


def test_more_threads_than_there_can_be_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--threads", "99999999999"])
    assert "argument --threads: expected at most" in capsys.readouterr().err


def test_what_an_encoding_cannot_write_is_written_otherwise(tmp_path: Path) -> None:
    done = python(START.format(["info"]), PYTHONIOENCODING="ascii", FASTNORM_CACHE_DIR=str(tmp_path / "caf\u00e9"))
    assert done.returncode == 0, done.stderr
    assert r"caf\xe9" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the output")
def test_a_closed_output_is_no_error() -> None:
    code = "import sys; sys.stdout = None\n" + START.format(["info"])
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_explain_names_itself_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "batch_norm", "5"]) == 2
    message = "fastnorm explain: shape must have at least 2 dimensions for batch_norm, got (5,)\n"
    assert capsys.readouterr().err == message
