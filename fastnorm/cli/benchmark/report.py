"""A run as a table and as sentences, computed from it alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean

from fastnorm.cli.benchmark.libraries import FASTNORM
from fastnorm.cli.benchmark.results import CellResult, Results, ratios_of
from fastnorm.cli.printing import plural

MARK = "*"
NOTE = (
    f"Microseconds a call, medians; {MARK} fastest; blank: the library lacks it; float32 unless named. Limit: x "
    "copied, for moments read, the output already there, the shortest time of the fastest of several ways. GB/s: "
    "bytes of x and y, for moments of x, by fastnorm's time; of limit: limit / fastnorm. Below 1.00 in the last "
    "column, that peer is ahead."
)


def headers(results: Results) -> list[str]:
    """Return the names of the table's columns."""
    peers = [name for name in results.libraries if name != FASTNORM]
    ours = ["cell", "limit\nµs", f"{FASTNORM}\nµs"]
    return [*ours, *(f"{name}\nµs" for name in peers), "GB/s", "of\nlimit", "best peer /\nfastnorm"]


def rows(results: Results) -> list[list[str]]:
    """Return the table's rows, one for each cell in the order of the grid."""
    return [_row(one, results.libraries) for one in results.cells]


def _row(one: CellResult, libraries: Sequence[str]) -> list[str]:
    fastest = min(one.seconds, key=one.seconds.__getitem__) if one.seconds else None
    times = []
    for name in libraries:
        if name in one.seconds:
            times.append(_microseconds(one.seconds[name]) + (MARK if name == fastest else " "))
        else:
            times.append("error " if name in one.errors else "")
    return [
        one.cell.name,
        "" if one.limit is None else _microseconds(one.limit),
        *times,
        "" if one.fastnorm is None else _short(one.bandwidth(one.fastnorm)),
        "" if one.share is None else f"{one.share:.0%}",
        "" if one.ratio is None else f"{one.best_peer} {_ratio(one.ratio)}",
    ]


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}" if seconds < 99.95e-6 else f"{seconds * 1e6:,.0f}"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _ratio(value: float) -> str:
    """Two places, never rounded across 1: what is behind reads as behind."""
    if value < 1:
        return f"{min(value, 0.99):.2f}"
    return f"{value:.2f}"


def sentences(results: Results) -> list[str]:
    """Return what the table says, in words.

    Parameters
    ----------
    results : Results
        A run.

    Returns
    -------
    list of str
    """
    return [*_against_peers(results), *_against_memory(results), *_what_went_wrong(results)]


def _against_peers(results: Results) -> list[str]:
    compared, behind = results.compared, results.behind
    if not compared:
        return ["No peer was measured: there is nothing to compare with."]
    count = len(compared)
    mean = geometric_mean(ratios_of(compared))
    said = [
        f"Best peer / fastnorm, geometric mean of {plural(count, 'cell')}: {_ratio(mean)} "
        f"({'fastnorm is faster' if mean > 1 else 'the best peer is faster' if mean < 1 else 'equal'}). "
        f"The best peer is chosen for each cell; against each alone: {_each_peer(results)}."
    ]
    if behind:
        listed = "; ".join(f"{one.cell.name} ({one.best_peer} {_ratio(one.ratio or 0)})" for one in behind)
        said.append(f"A peer is ahead in {len(behind)} of {plural(count, 'cell')}, the worst first: {listed}.")
    else:
        said.append(f"A peer is ahead in none of {plural(count, 'cell')}.")
    said += _by_shortest(results)
    kinds = {kind: geometric_mean(ratios_of(cells)) for kind, cells in results.by_kind().items()}
    listed = ", ".join(f"{kind} {_ratio(value)}" for kind, value in sorted(kinds.items(), key=lambda item: item[1]))
    said.append(f"By operation: {listed}.")
    return said


def _by_shortest(results: Results) -> list[str]:
    """Say what the shortest rounds tell: what else the machine does slows some libraries more than others."""
    ratios = [ratio for one in results.compared if (ratio := one.shortest_ratio) is not None]
    if not ratios:
        return []
    ahead = sum(ratio < 1 for ratio in ratios)
    return [
        f"By each library's shortest round instead of its median: {_ratio(geometric_mean(ratios))}, a peer ahead in "
        f"{ahead} of {plural(len(ratios), 'cell')}; the two differ much where the machine has other work to do."
    ]


def _each_peer(results: Results) -> str:
    parts = []
    for name in results.libraries:
        ratios = [one.seconds[name] / one.fastnorm for one in results.cells if one.fastnorm and name in one.seconds]
        if name != FASTNORM and ratios:
            parts.append(f"{name} {_ratio(geometric_mean(ratios))} ({len(ratios)})")
    return ", ".join(parts)


def _against_memory(results: Results) -> list[str]:
    shares = {one.cell.name: one.share for one in results.cells if one.share is not None}
    if not shares:
        return []
    mean = geometric_mean([min(share, 1) for share in shares.values()])
    worst = min(shares, key=shares.__getitem__)
    said = [
        f"Of the speed that memory allows, fastnorm reaches {mean:.0%} (geometric mean, none counted above 100%), "
        f"least in {worst}: {shares[worst]:.0%}."
    ]
    beyond = sum(share > 1 for share in shares.values())
    if beyond:
        said.append(
            f"In {plural(beyond, 'cell')} the limit was measured slower than fastnorm, as where the machine has other "
            "work meanwhile: those shares tell nothing."
        )
    return said


def _what_went_wrong(results: Results) -> list[str]:
    said = [f"{name} is left out: {reason}." for name, reason in results.left_out.items()]
    for one in results.cells:
        said += [f"Error of {name} in {one.cell.name}: {message}." for name, message in one.errors.items()]
    hasty = sum(one.rounds < results.rounds for one in results.cells)
    if hasty:
        said.append(f"Time ran out: {plural(hasty, 'cell')} had fewer than {results.rounds} rounds.")
    return said
