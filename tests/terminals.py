"""A terminal in the place of a stream of this process."""

import io
import sys

import pytest


class Terminal(io.StringIO):
    """Collects what is written to a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def rich_terminal(monkeypatch: pytest.MonkeyPatch, stream: str, columns: int) -> Terminal:
    """Put a terminal in the place of "stdout" or "stderr", for rich, without which the test is skipped."""
    pytest.importorskip("rich", reason="rich is not installed")
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, stream, terminal)
    return terminal
