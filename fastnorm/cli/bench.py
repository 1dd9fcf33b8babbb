"""`fastnorm bench`: fastnorm beside the libraries installed here, and beside what memory allows."""

from __future__ import annotations

import argparse
import json
import textwrap

import fastnorm
from fastnorm.cli.benchmark import figures, report
from fastnorm.cli.benchmark.grid import OPS, chosen
from fastnorm.cli.benchmark.libraries import FASTNORM, PEERS, missing
from fastnorm.cli.benchmark.measurement import Effort, measure
from fastnorm.cli.benchmark.results import Results
from fastnorm.cli.drawing import figure_file, why_not_drawn, write_figure
from fastnorm.cli.printing import WIDTH, fail, plural, print_machine, print_sentences, print_table
from fastnorm.cli.progress import progress_bar
from fastnorm.settings import MOST_THREADS


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _threads(text: str) -> int:
    if _positive(text) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_THREADS}, got {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
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
    parser.add_argument("--threads", type=_threads, help="for every library; default: as many as fastnorm uses")
    parser.add_argument("--rounds", type=_positive, help="timings of each cell and library; default: 5")
    parser.add_argument("--plot", type=figure_file, metavar="FILE.png", help="draw the result as well, .png or .svg")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, times in seconds")


def run(arguments: argparse.Namespace) -> int:
    """
    Measure, print, and draw where that is asked for.

    Returns
    -------
    int
        The command's exit status: 0, or 1 if a peer asked for by name or matplotlib is missing, fastnorm itself cannot
        be measured or is wrong, or the figure cannot be written.
    """
    named = arguments.peers or ()
    for name in named:
        if gone := missing(name):
            return fail("bench", f"--peers {name}: {' and '.join(gone)} not installed")
    if reason := why_not_drawn(arguments.plot):
        return fail("bench", reason)
    with progress_bar() as progress:
        results = measure(
            chosen(quick=arguments.quick, ops=arguments.ops),
            () if arguments.no_peers else list(dict.fromkeys(named)) or PEERS,
            arguments.threads or fastnorm.get_num_threads(),
            _effort(arguments.quick, arguments.rounds),
            progress,
        )
    if FASTNORM in results.left_out:
        return fail("bench", f"its own process could not start: {results.left_out[FASTNORM]}")
    if arguments.json:
        print(json.dumps(results.as_json(), indent=2))
    else:
        _print_results(results)
    status = 0
    for one in results.failed:
        status = fail("bench", f"{one.cell.name}: {one.errors[FASTNORM]}")
    return write_figure("bench", figures.draw, results, arguments.plot) or status


def _effort(quick: bool, rounds: int | None) -> Effort:
    effort = Effort(sample=0.01, rest=0.05, deadline=45) if quick else Effort()
    return effort if rounds is None else effort._replace(rounds=rounds)


def _print_results(results: Results) -> None:
    how = f"{plural(results.threads, 'thread')} for each library, {plural(results.rounds, 'round')}"
    print_machine(results.machine, how, results.versions)
    print()
    print_table(report.headers(results), report.rows(results), text_columns={0}, repeated=1, mark=report.MARK)
    print(textwrap.fill(report.NOTE, WIDTH))
    print()
    print_sentences(report.sentences(results))
