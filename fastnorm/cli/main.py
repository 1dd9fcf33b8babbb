"""``fastnorm demo | bench | stability | tune | info | explain``: one parser.

A command is a module with `add_arguments`, which is given its parser, and `run`, which is given what was parsed and
returns the exit status; `info` and `explain`, which are short, stand here.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict

import fastnorm
from fastnorm.cli import bench, demo, stability, tune
from fastnorm.cli.printing import fail
from fastnorm.settings import current


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+([x,]\d+)*", text):
        raise argparse.ArgumentTypeError(f"expected a shape such as 128x768, got {text!r}")
    return tuple(map(int, re.split("[x,]", text)))


def _info(arguments: argparse.Namespace) -> int:
    from fastnorm.inspection import configuration, show_config

    if arguments.json:
        print(json.dumps(configuration(), indent=2))
    else:
        show_config()
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    try:
        explanation = fastnorm.explain(arguments.op, arguments.shape, arguments.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        return fail("explain", str(error).removeprefix("explain: "), 2)
    print(json.dumps(asdict(explanation), indent=2) if arguments.json else explanation)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastnorm", description="Normalization for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"fastnorm {fastnorm.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, module, words in (
        ("demo", demo, "normalise real data, NumPy beside fastnorm"),
        ("bench", bench, "this machine: fastnorm beside the libraries installed on it"),
        ("stability", stability, "how right mean and variance come out on hard data"),
        ("tune", tune, "measure this machine and keep the dispatcher's thresholds for it"),
    ):
        command = commands.add_parser(name, help=words)
        module.add_arguments(command)
        command.set_defaults(run=module.run)

    info = commands.add_parser("info", help="processor, backends, variants, threads, cache, versions")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)

    explain = commands.add_parser("explain", help="which backend serves a call, and why")
    explain.add_argument("op", help="a function, such as layer_norm or layer_norm_backward")
    explain.add_argument("shape", type=_shape, help="such as 128x768")
    explain.add_argument("dtype", nargs="?", default="float32", help="default: float32")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(run=_explain)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.command in ("demo", "bench", "stability") and current().backend == "cuda":
        return fail(arguments.command, "the cuda backend serves no array in host memory", 2)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
