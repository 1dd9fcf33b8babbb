"""What `fastnorm stability` prints and writes; nothing here depends on how long it takes."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from terminals import Terminal, rich_terminal

from fastnorm import lab
from fastnorm.cli import printing
from fastnorm.cli.main import main
from fastnorm.cli.progress import progress_bar
from fastnorm.lab import experiment, layer_norms


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take times once, of short lines."""
    monkeypatch.setattr(
        layer_norms, "effort", lambda quick: {"budget": 0.0, "sample": 0.0, "minimum_rounds": 1, "warm_up_calls": 0}
    )
    monkeypatch.setattr(experiment, "TIMED_COUNT", 100)
    monkeypatch.setattr(experiment, "FAMILY_COUNT", 60)


@pytest.fixture
def numacc4(tmp_path: pathlib.Path) -> pathlib.Path:
    """Write NumAcc4 as one column."""
    path = tmp_path / "accuracy.csv"
    path.write_text("y\n" + "\n".join(map(repr, lab.numacc("NumAcc4").values.tolist())))
    return path


def test_quick_prints_tables_and_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stability", "--quick", "--no-peers"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "Standard deviation, float32: digits that are right",
        "Mean, float64: digits that are right",
        "error in units in the last place",
        "layer_norm: worst error",
        "nanoseconds an element",
        "subnormal 10^3",
        "naive fails on",
        "theoretical bounds",
    ):
        assert words in printed
    assert "wins or ties" not in printed  # there is nobody to compare with


def test_peers_join_as_columns_and_are_compared(numacc4: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stability", "--data", str(numacc4), "--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if line.startswith("data "))
    assert "numpy" in header
    assert "float32: auto wins or ties every one of 2 scores of mean and sd against numpy" in printed.replace("\n ", "")


def test_naive_fails_on_numacc4_and_says_so(numacc4: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stability", "--data", str(numacc4), "--dtype", "float64", "--no-peers"]) == 0
    printed = capsys.readouterr().out
    assert "naive fails on accuracy: y (float64): 0 digits of the sd are right" in printed
    assert "auto fails" not in printed
    row = next(line for line in printed.splitlines() if line.startswith("accuracy: y"))
    assert row.split()[4] == "15.65*"  # behind the two words of its name, n and kappa


def test_json_is_all_that_is_printed(numacc4: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(numacc4), "--algorithms", "naive", "auto", "auto", "--dtype", "float64", "--no-peers"]
    assert main(["stability", "--json", *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["algorithms"] == ["naive", "auto"]
    assert document["rows"][0]["scores"]["naive"]["sd_digits"] == 0
    assert document["nanoseconds"]["float64"]["auto"] > 0
    assert document["versions"]["numpy"] == np.__version__


def test_seed_changes_the_random_data_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for seed in ("0", "1"):
        words = ["--quick", "--json", "--no-peers", "--dtype", "float32", "--algorithms", "auto", "--seed", seed]
        assert main(["stability", *words]) == 0
        found = json.loads(capsys.readouterr().out)["rows"]
        rows.append({row["dataset"]: row["scores"]["auto"]["sd"] for row in found})
    assert rows[0]["NumAcc2"] == rows[1]["NumAcc2"]
    assert rows[0]["offset 10^0"] != rows[1]["offset 10^0"]


def test_page_and_figures_are_written(
    numacc4: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    page, plot = tmp_path / "report.html", tmp_path / "found.svg"
    words = ["--quick", "--no-peers", "--data", str(numacc4), "--html", str(page), "--plot", str(plot)]
    assert main(["stability", *words]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert {path.name for path in tmp_path.glob("*.svg")} == {"found-kappa.svg", "found-n.svg", "found-speed.svg"}
    assert f"Written to {page}" in capsys.readouterr().err


def test_what_cannot_be_written_is_reported(
    numacc4: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    taken = tmp_path / "report.html"
    taken.mkdir()
    words = ["--data", str(numacc4), "--dtype", "float64", "--no-peers", "--quick", "--html", str(taken)]
    assert main(["stability", *words]) == 1
    assert f"could not write {taken}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--plot", "--html"])
def test_a_missing_directory_shows_before_the_measurement(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr(lab, "run", lambda *_, **__: pytest.fail("measured before it looked"))
    folder = tmp_path / "missing"
    assert main(["stability", option, str(folder / "report.svg")]) == 1
    assert f"there is no directory {folder}" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "0.5", "x"])
def test_a_seed_is_not_negative(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["stability", "--seed", seed])
    assert f"expected an integer of at least 0, got '{seed}'" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.npy"
    broken.write_bytes(b"no array")
    for path in (broken, tmp_path / "missing.csv"):
        assert main(["stability", "--data", str(path)]) == 1
        assert str(path) in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(lab, "run", lambda *_, **__: pytest.fail("measured before it looked"))
    assert main(["stability", "--html", str(tmp_path / "report.html")]) == 1
    assert "pip install 'fastnorm[demo]'" in capsys.readouterr().err


def test_progress_without_rich_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with progress_bar() as progress:
        progress(0, 2, "first")
        progress(2, 2, "")
    assert "[1/2] first" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


def test_progress_with_rich_shows_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = rich_terminal(monkeypatch, "stderr", columns=100)
    with progress_bar() as progress:
        progress(1, 2, "[second]")
    assert "50%" in terminal.getvalue()
    assert "[second]" in terminal.getvalue()


def table(**keywords: Any) -> None:
    headers = ["data", "two\npass", "welford", "compensated"]
    printing.print_table(headers, [["a", "6.9*", "1.0 ", "2.0 "]], text_columns={0}, **keywords)


def test_headers_of_several_lines_stand_at_the_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    table()
    first, second, rule, row = capsys.readouterr().out.splitlines()
    assert first.split() == ["two"]
    assert second.split() == ["data", "pass", "welford", "compensated"]
    assert set(rule) == {"-", " "}
    assert second.index("pass") == row.index("6.9*")


def test_a_narrow_terminal_gets_several_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = rich_terminal(monkeypatch, "stdout", columns=24)
    table(repeated=1, mark="*")
    assert terminal.getvalue().count("data") == 2
    assert "6.9*" in terminal.getvalue()
    assert "\x1b[1;32m6.9*" in terminal.getvalue()
