"""`fastnorm stability`: how right mean and variance come out of every algorithm and installed peer, on hard data."""

from __future__ import annotations

import argparse
import json
import pathlib

from fastnorm import lab
from fastnorm.cli.drawing import figure_file, why_not_drawn
from fastnorm.cli.printing import fail, print_machine, print_sentences, print_table, tell
from fastnorm.cli.progress import progress_bar

MARK = "*"


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--quick", action="store_true", help="fewer data sets, shorter timings")
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        nargs="+",
        metavar="FILE",
        help="measure these instead: NIST StRD .dat, .npy, .npz or .csv",
    )
    parser.add_argument("--dtype", nargs="+", choices=lab.DTYPES, help="default: all; --quick: float32 and float64")
    parser.add_argument("--algorithms", nargs="+", choices=lab.ALGORITHMS, default=list(lab.ALGORITHMS), metavar="NAME")
    parser.add_argument("--seed", type=_seed, default=0, help="of the random numbers in the data; default: 0")
    parser.add_argument("--no-peers", action="store_true", help="leave other libraries out")
    parser.add_argument(
        "--plot",
        type=figure_file,
        metavar="FILE.png",
        help="draw the result as well, .png or .svg: FILE-kappa.png, FILE-n.png, FILE-speed.png",
    )
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE.html", help="write all of it as one page")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """
    Measure, print, and draw where that is asked for.

    Returns
    -------
    int
        The command's exit status: 0, or 1 if data cannot be read, matplotlib is missing or a file cannot be written.
    """
    try:
        data = None if arguments.data is None else [one for path in arguments.data for one in lab.load(path)]
    except (OSError, ValueError) as error:
        return fail("stability", str(error))
    if reason := why_not_drawn(arguments.plot, arguments.html):
        return fail("stability", reason)
    with progress_bar() as progress:
        results = lab.run(
            data,
            dtypes=arguments.dtype,
            algorithms=list(dict.fromkeys(arguments.algorithms)),
            peers=not arguments.no_peers,
            quick=arguments.quick,
            curves=data is None or arguments.plot is not None or arguments.html is not None,
            seed=arguments.seed,
            progress=progress,
        )
    if arguments.json:
        print(json.dumps(results.as_json(), indent=2))
    else:
        _print_results(results)
    return _write(results, arguments.plot, arguments.html)


def _write(results: lab.Results, plot: pathlib.Path | None, html: pathlib.Path | None) -> int:
    path = plot
    try:
        if plot is not None:
            for written in lab.save(results, plot):
                tell(f"Drawn in {written}")
        path = html
        if html is not None:
            html.write_text(lab.page(results), encoding="utf-8")
            tell(f"Written to {html}")
    except (OSError, ValueError) as error:
        return fail("stability", f"could not write {path}: {error}")
    return 0


def _print_results(results: lab.Results) -> None:
    print_machine(results.machine, f"{results.machine['fastnorm threads']} threads for fastnorm", results.versions)
    for table in lab.tables(results):
        print(f"\n{table.title} ({MARK} best)")
        headers = [header.replace("_", "\n").replace("-", "\n") for header in table.headers]
        cells = [
            [cell.text + (MARK if cell.best else " " * (place >= table.labels)) for place, cell in enumerate(line)]
            for line in table.rows
        ]
        print_table(headers, cells, text_columns={0}, repeated=table.labels, mark=MARK)
        print(table.note)
    print()
    print_sentences(lab.findings(results))
