"""Whether a change made the library slower: two revisions, built side by side and timed in turns.

Base is a revision, head the working tree (or another revision). Each is installed into a folder of its own and timed by
a process of its own; the processes take turns, A/B/A/B, so that a change in the machine's speed meets both alike, and
are started anew several times, since where a process happens to lie in memory changes its times. Head is slower in a
cell only if its fastest time is above base's slowest by more than the margin, and still is after a second measurement.

    python bench/compare.py BASE [--head REV] [--cells PATTERN]... [--margin 0.05]

The exit code is 1 where a cell is slower or fails, 2 where nothing could be compared.
"""

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from grid import Cell, select

REPOSITORY = Path(__file__).resolve().parents[1]
SIDES = ("base", "head")
# A sample is the fastest of so many batches of calls: other processes slow single batches down, by much.
BATCHES = 5
SECONDS_PER_BATCH = 0.003


class ComparisonError(Exception):
    """Nothing could be compared; the message says why."""


def git(*arguments: str) -> bytes:
    """Return what git prints, run in this repository."""
    finished = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=False)
    if finished.returncode:
        raise ComparisonError(f"git {' '.join(arguments)}: {finished.stderr.decode(errors='replace').strip()}")
    return finished.stdout


def commit_of(revision: str) -> str:
    """Return the commit that a revision names."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    except ComparisonError:
        raise ComparisonError(f"{revision!r} is not a revision of this repository") from None


def copy_sources(revision: str | None, target: Path) -> str:
    """Put the sources of a revision, or of the working tree for None, into a new folder; return what they are."""
    target.mkdir()
    if revision is not None:
        commit = commit_of(revision)
        with tarfile.open(fileobj=BytesIO(git("archive", commit))) as archive:
            archive.extractall(target, filter="data")
        return f"{revision} ({commit[:10]})"
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():  # not deleted
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    changed = ", changed" if git("status", "--porcelain").strip() else ""
    return f"the working tree ({commit_of('HEAD')[:10]}{changed})"


def installed_builders() -> bool:
    """Return whether this environment can build the library itself, so that pip need not fetch what builds it."""
    try:
        newest = int(importlib.metadata.version("setuptools").split(".")[0])
        return newest >= 77 and bool(importlib.metadata.version("Cython"))
    except importlib.metadata.PackageNotFoundError:
        return False


def start_build(sources: Path, target: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start installing the library into a folder of its own."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation"] if installed_builders() else []
    environment = {"FASTNORM_REQUIRE_EXT": "1", **os.environ, "TMPDIR": str(log.parent)}
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--target", str(target), str(sources)],
            env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def build(folder: Path, revisions: Mapping[str, str | None]) -> dict[str, Path]:
    """Install both sides at once, in subfolders of `folder`, and return where each one lies."""
    builds, trees = {}, {}
    try:
        for side, revision in revisions.items():
            print(f"{side}: {copy_sources(revision, folder / f'{side}-sources')}", flush=True)
        start = time.monotonic()
        for side in revisions:
            trees[side] = folder / side
            builds[side] = start_build(folder / f"{side}-sources", trees[side], folder / f"{side}.log")
        for side, process in builds.items():
            if process.wait():
                log = (folder / f"{side}.log").read_text(encoding="utf-8", errors="replace")
                raise ComparisonError(f"building {side} failed:\n{log}")
    finally:
        for process in builds.values():
            if process.poll() is None:  # its compilers too
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    print(f"built in {time.monotonic() - start:.0f} s", flush=True)
    return trees


# Not by the processes of `fastnorm bench`: they belong to what is compared, and a revision may have others, or none.
def work() -> int:
    """Time one side: requests come in, and answers go out, as lines of JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    # Whatever else is printed must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    fastnorm = importlib.import_module("fastnorm")
    call: Callable[[], object] = bool

    def take(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    print(json.dumps({"file": fastnorm.__file__}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "cell" in request:
                op, shape, dtype = request["cell"]
                call = bool  # lets go of the arrays of the cell before
                call = Cell(op, tuple(shape), dtype).bind(fastnorm)
                call()
                answer: dict[str, Any] = {"seconds": min(take(1) for _ in range(3))}
            else:
                take(1)  # refills the caches, which the other side has had in between
                answer = {"seconds": min(take(request["calls"]) for _ in range(BATCHES))}
        except Exception as error:  # whatever a version of the library raises is the answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


class Worker:
    """The process that times one side."""

    def __init__(self, side: str, tree: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree), "FASTNORM_CACHE_DIR": f"{tree}-cache"}
        self._side = side
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--work"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        origin = Path(self._answer()["file"])
        if not origin.is_relative_to(tree):
            self.stop()
            raise ComparisonError(f"{side} imported fastnorm from {origin.parent}, not from what was built for it")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise ComparisonError(f"the process that times {self._side} has died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def seconds(self, **request: object) -> float:
        """Return the answer to a request; RuntimeError is what the library raised."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return float(answer["seconds"])

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Measured:
    """The seconds of a call in one cell, on each side, and what went wrong."""

    samples: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    errors: dict[str, str] = field(default_factory=dict)

    def verdict(self, margin: float) -> str:
        """Return one of "slower", "faster", "not in base", "fails" and nothing."""
        if self.errors:
            return "fails" if "head" in self.errors else "not in base"
        base, head = self.samples["base"], self.samples["head"]
        if min(head) > max(base) * (1 + margin):
            return "slower"
        return "faster" if min(base) > max(head) * (1 + margin) else ""


def measure(
    cells: Sequence[Cell], trees: Mapping[str, Path], processes: int, rounds: int, results: dict[Cell, Measured]
) -> None:
    """Add samples of each cell to `results`: rounds in turns, with a pair of processes, several times."""
    for _ in range(processes):
        workers: dict[str, Worker] = {}
        try:
            for side, tree in trees.items():
                workers[side] = Worker(side, tree)
            for cell in cells:
                measure_cell(cell, workers, rounds, results.setdefault(cell, Measured()))
        finally:
            for worker in workers.values():
                worker.stop()


def measure_cell(cell: Cell, workers: Mapping[str, Worker], rounds: int, result: Measured) -> None:
    """Add the samples of one pair of processes."""
    once = []
    for side, worker in workers.items():
        try:
            once.append(worker.seconds(cell=(cell.op, cell.shape, cell.dtype)))
        except RuntimeError as error:
            result.errors[side] = str(error)
    if result.errors:
        return
    calls = max(1, math.ceil(SECONDS_PER_BATCH / min(once)))
    for _ in range(rounds):
        for side, worker in workers.items():
            result.samples[side].append(worker.seconds(calls=calls))


def microseconds(samples: Sequence[float]) -> str:
    """Return a median as a table shows it."""
    if not samples:
        return ""
    median = statistics.median(samples) * 1e6
    return f"{median:,.1f}" if median >= 100 else f"{median:.3g}"


def show(results: Mapping[Cell, Measured], margin: float) -> None:
    """Print the table, and what was raised below it."""
    width = max(len(cell.name) for cell in results)
    print(f"\n{'median microseconds':{width}} {'base':>12} {'head':>12} {'head/base':>10}  {'from-to':>12}  verdict")
    for cell, result in results.items():
        base, head = (result.samples[side] for side in SIDES)
        ratio = between = ""
        if base and head:
            ratio = f"{statistics.median(head) / statistics.median(base):.3f}"
            between = f"{min(head) / max(base):.2f}-{max(head) / min(base):.2f}"
        line = f"{cell.name:{width}} {microseconds(base):>12} {microseconds(head):>12} {ratio:>10}  {between:>12}"
        print(f"{line}  {result.verdict(margin)}".rstrip())
    for cell, result in results.items():
        for side, message in result.errors.items():
            print(f"{side}, {cell.name}: {message}")


def compare(arguments: argparse.Namespace, folder: Path) -> int:
    """Build, measure, show; return the exit code."""
    cells = select([pattern for pattern in arguments.cells if pattern])
    trees = build(folder, {"base": arguments.base, "head": arguments.head})
    results: dict[Cell, Measured] = {}
    measure(cells, trees, arguments.processes, arguments.rounds, results)
    margin = arguments.margin
    again = [cell for cell, result in results.items() if result.verdict(margin) == "slower"]
    if again:
        print(f"measuring {len(again)} cells again that look slower", flush=True)
        measure(again, trees, arguments.processes, arguments.rounds, results)
    show(results, margin)
    bad = [cell.name for cell, result in results.items() if result.verdict(margin) in ("slower", "fails")]
    print(f"\n{len(bad)} of {len(results)} cells are slower: head's fastest is above base's slowest by {margin:.0%}")
    return int(bool(bad))


def main() -> int:
    """Compare two revisions of the library, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("base", nargs="?", help="the revision to compare with")
    parser.add_argument("--head", help="another revision (default: the working tree as it is)")
    parser.add_argument("--cells", action="append", default=[], help="such as 'layer_norm 1x*' (default: the grid)")
    parser.add_argument("--margin", type=float, default=0.05, help="what is too small to count (default: 0.05)")
    parser.add_argument("--processes", type=int, default=3, help="pairs of processes, one after another (default: 3)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each pair (default: 4)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work()
    if not arguments.base:
        parser.error("say what to compare with: a revision such as HEAD~1 (make bench-compare BASE=HEAD~1)")
    if arguments.processes < 1 or arguments.rounds < 1 or not arguments.margin >= 0:
        parser.error("--processes and --rounds are at least 1, --margin is not negative")
    # An ordinary end, so that processes and folders are cleaned up.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory(prefix="fastnorm-compare-", ignore_cleanup_errors=True) as folder:
            return compare(arguments, Path(folder).resolve())
    except (ComparisonError, ValueError) as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
