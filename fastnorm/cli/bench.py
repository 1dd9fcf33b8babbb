"""`fastnorm bench`: fastnorm beside the libraries installed here, and beside what memory allows."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import textwrap

import fastnorm
from fastnorm.cli.benchmark import report
from fastnorm.cli.benchmark.grid import OPS, chosen
from fastnorm.cli.benchmark.libraries import FASTNORM, PEERS, missing
from fastnorm.cli.benchmark.measurement import Effort, measure
from fastnorm.cli.benchmark.results import Results
from fastnorm.cli.printing import print_table
from fastnorm.cli.progress import progress_bar
from fastnorm.lab.plots import require_matplotlib

__all__ = ["add_arguments", "run"]

WIDTH = 110
FORMATS = (".png", ".svg")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _figure_file(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(f"expected a file that ends in {' or '.join(FORMATS)}, got {text!r}")
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Declare the command's arguments.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of ``fastnorm bench``.
    """
    parser.add_argument("--quick", action="store_true", help="a dozen cells, shorter timings: within a minute")
    parser.add_argument("--ops", nargs="+", choices=OPS, metavar="OP", help=f"these alone, of {', '.join(OPS)}")
    peers = parser.add_mutually_exclusive_group()
    peers.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        metavar="PEER",
        help=f"these alone, of {', '.join(PEERS)}; default: those installed",
    )
    peers.add_argument("--no-peers", action="store_true", help="leave other libraries out")
    parser.add_argument("--threads", type=_positive, help="for every library; default: as many as fastnorm uses")
    parser.add_argument("--rounds", type=_positive, help="timings of each cell and library; default: 5")
    parser.add_argument("--plot", type=_figure_file, metavar="FILE.png", help="draw the result as well, .png or .svg")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, times in seconds")


def run(arguments: argparse.Namespace) -> int:
    """
    Measure, print, and draw where that is asked for.

    Parameters
    ----------
    arguments : argparse.Namespace
        As `add_arguments` declares them.

    Returns
    -------
    int
        The command's exit status: 0, or 1 if a peer asked for by name or matplotlib is missing, fastnorm itself cannot
        be measured or is wrong, or the figure cannot be written.
    """
    named = arguments.peers or ()
    for name in named:
        if gone := missing(name):
            return _fail(f"--peers {name}: {' and '.join(gone)} not installed")
    if arguments.plot is not None:
        try:
            require_matplotlib()  # before the measurement, so that what is missing shows at once
        except ImportError as error:
            return _fail(str(error))
        if not arguments.plot.parent.is_dir():
            return _fail(f"could not write {arguments.plot}: there is no directory {arguments.plot.parent}")
    with progress_bar() as progress:
        results = measure(
            chosen(quick=arguments.quick, ops=arguments.ops),
            () if arguments.no_peers else list(dict.fromkeys(named)) or PEERS,
            arguments.threads or fastnorm.get_num_threads(),
            _effort(arguments.quick, arguments.rounds),
            progress,
        )
    if FASTNORM in results.left_out:
        return _fail(f"its own process could not start: {results.left_out[FASTNORM]}")
    if arguments.json:
        print(json.dumps(results.as_json(), indent=2))
    else:
        _print_results(results)
    status = 0
    for one in results.failed:
        status = _fail(f"{one.cell.name}: {one.errors[FASTNORM]}")
    return _draw(results, arguments.plot) or status


def _effort(quick: bool, rounds: int | None) -> Effort:
    effort = Effort(sample=0.01, rest=0.05, deadline=45) if quick else Effort()
    return effort if rounds is None else effort._replace(rounds=rounds)


def _fail(message: str) -> int:
    print(f"fastnorm bench: {message}", file=sys.stderr)
    return 1


def _draw(results: Results, path: pathlib.Path | None) -> int:
    if path is None:
        return 0
    from fastnorm.cli.benchmark import figures

    try:
        figures.draw(results, path)
    except (OSError, ValueError) as error:
        return _fail(f"could not write {path}: {error}")
    print(f"Drawn in {path}", file=sys.stderr)
    return 0


def _print_results(results: Results) -> None:
    machine, count = results.machine, results.threads
    print(
        f"{machine['processor']}, {machine['cpus']} CPUs, {count} {'thread' if count == 1 else 'threads'} for each "
        f"library, {results.rounds} rounds; "
        + ", ".join(f"{package} {version}" for package, version in results.versions.items())
    )
    print()
    print_table(report.headers(results), report.rows(results), text_columns={0}, repeated=1, mark=report.MARK)
    print(textwrap.fill(report.NOTE, WIDTH))
    print()
    for sentence in report.sentences(results):
        print(textwrap.fill(sentence, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
