"""What commands print: tables, with rich where it is installed, else plain and aligned; sentences; failures."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

WIDTH = 110  # of text


def fail(command: str, message: str, status: int = 1) -> int:
    """Print why a command fails to standard error, and return its exit status."""
    tell(f"fastnorm {command}: {message}")
    return status


def tell(text: str) -> None:
    """Print to standard error; nowhere, not to standard output, if that is closed."""
    if sys.stderr is not None:
        print(text, file=sys.stderr)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 thread`` and ``2 threads``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def print_machine(machine: Mapping[str, Any], how: str, versions: Mapping[str, str]) -> None:
    """Print where, how and with which versions something was measured."""
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    print(f"{machine['processor']}, {machine['cpus']} CPUs, {how}; {listed}")


def print_sentences(sentences: Iterable[str]) -> None:
    """Print sentences, each on lines of its own."""
    for sentence in sentences:
        print(textwrap.fill(sentence, WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def print_table(
    headers: Sequence[str],
    cells: Sequence[Sequence[str]],
    *,
    text_columns: Collection[int],
    repeated: int | None = None,
    mark: str | None = None,
) -> None:
    """
    Print a table, its numbers aligned to the right.

    Parameters
    ----------
    headers : sequence of str
        Of the columns; a header may have several lines.
    cells : sequence of sequence of str
        The rows.
    text_columns : collection of int
        The columns that are aligned to the left.
    repeated : int, optional
        On a terminal that is too narrow: split the table into several, each with this many columns of the first.
        Without it, lines are printed whole.
    mark : str, optional
        Cells that end with it stand out where the terminal can show that.
    """
    try:
        box, console_module, table_module, text_module = (
            importlib.import_module(f"rich.{name}") for name in ("box", "console", "table", "text")
        )
    except ImportError:
        _print_plain(headers, cells, text_columns)
        return
    console = console_module.Console()
    if not console.is_terminal:
        _print_plain(headers, cells, text_columns)
        return
    parts = [list(range(len(headers)))]
    if repeated is not None:
        parts = _parts(_column_widths(headers, cells), console.width, repeated)
    for columns in parts:
        chosen = [[line[column] for column in columns] for line in [headers, *cells]]
        text = {place for place, column in enumerate(columns) if column in text_columns}
        if console.width < _rich_width(_column_widths(chosen[0], chosen[1:])):
            # Rich would fold or cut cells to fit; a narrow terminal gets whole lines.
            _print_plain(chosen[0], chosen[1:], text)
            continue
        table = table_module.Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place, header in enumerate(chosen[0]):
            justify = "left" if place in text else "right"
            table.add_column(text_module.Text(header), justify=justify, vertical="bottom", no_wrap=True)
        for line in chosen[1:]:
            styles = ["bold green" if mark is not None and cell.endswith(mark) else "" for cell in line]
            table.add_row(*(text_module.Text(cell, style) for cell, style in zip(line, styles, strict=True)))
        console.print(table)


def _parts(widths: Sequence[int], available: int, repeated: int) -> list[list[int]]:
    """Split columns into groups that fit, each beginning with the repeated ones; a group has one more at least."""
    label = list(range(repeated))
    parts: list[list[int]] = []
    for column in range(repeated, len(widths)):
        if parts and _rich_width([widths[one] for one in [*parts[-1], column]]) <= available:
            parts[-1].append(column)
        else:
            parts.append([*label, column])
    return parts or [label]


def _column_widths(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    widest = [max(map(len, header.split("\n"))) for header in headers]
    return [
        max(width, *map(len, column)) if column else width
        for width, column in zip(widest, zip(*cells, strict=True) if cells else [()] * len(headers), strict=True)
    ]


def _rich_width(widths: Sequence[int]) -> int:
    """Return how wide rich draws a table: three columns between two of ours, one at either end."""
    return sum(widths) + 3 * (len(widths) - 1) + 2


def _print_plain(headers: Sequence[str], cells: Sequence[Sequence[str]], text_columns: Collection[int]) -> None:
    widths = _column_widths(headers, cells)
    heads = [header.split("\n") for header in headers]
    height = max(map(len, heads))
    # Shorter headers stand at the bottom.
    head = [[lines[row - height] if height - row <= len(lines) else "" for lines in heads] for row in range(height)]
    for line in [*head, ["-" * width for width in widths], *cells]:
        aligned = (
            cell.ljust(width) if number in text_columns else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(aligned).rstrip())
