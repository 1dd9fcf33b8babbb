"""What was measured, and what follows from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import geometric_mean
from typing import Any

from fastnorm.cli.benchmark.grid import Cell
from fastnorm.cli.benchmark.libraries import FASTNORM


@dataclass(frozen=True)
class CellResult:
    """One cell.

    Attributes
    ----------
    cell : Cell
        What was called.
    limit : float or None
        Seconds that its least traffic takes, the shortest of all rounds.
    seconds : dict of str to float
        Median seconds a call, by library; those that lack the cell or went wrong are not there.
    shortest : dict of str to float
        The same of the shortest round.
    errors : dict of str to str
        What went wrong, by library; the limit's under "memory".
    backend : str
        What the dispatcher chose.
    threads : int
        As many as it gives the call.
    rounds : int
        As many as there was time for.
    """

    cell: Cell
    limit: float | None
    seconds: dict[str, float]
    shortest: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    backend: str = ""
    threads: int = 1
    rounds: int = 0

    @property
    def fastnorm(self) -> float | None:
        """Seconds of fastnorm."""
        return self.seconds.get(FASTNORM)

    @property
    def best_peer(self) -> str | None:
        """The fastest of the other libraries; None if there is none with a result."""
        peers = {name: seconds for name, seconds in self.seconds.items() if name != FASTNORM}
        return min(peers, key=peers.__getitem__) if peers else None

    @property
    def ratio(self) -> float | None:
        """The best peer's time over fastnorm's: below 1 a peer is ahead."""
        if self.fastnorm is None or self.best_peer is None:
            return None
        return self.seconds[self.best_peer] / self.fastnorm

    @property
    def shortest_ratio(self) -> float | None:
        """The ratio of the shortest rounds."""
        peers = [seconds for name, seconds in self.shortest.items() if name != FASTNORM]
        return min(peers) / self.shortest[FASTNORM] if peers and FASTNORM in self.shortest else None

    @property
    def share(self) -> float | None:
        """What fastnorm reaches of the speed that memory allows."""
        if self.fastnorm is None or self.limit is None:
            return None
        return self.limit / self.fastnorm

    def bandwidth(self, seconds: float) -> float:
        """Return bytes a second, in units of 10^9, of the bytes that a call must move."""
        return self.cell.bytes / seconds / 1e9


@dataclass(frozen=True)
class Results:
    """A run.

    Attributes
    ----------
    cells : list of CellResult
        In the order of the grid.
    libraries : list of str
        What was measured, fastnorm first.
    left_out : dict of str to str
        Which peers were not, and why.
    threads, rounds : int
        As many for every library; as many of each cell as there is time for.
    machine, versions : dict
        Where, and of what.
    """

    cells: list[CellResult]
    libraries: list[str]
    left_out: dict[str, str]
    threads: int
    rounds: int
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def compared(self) -> list[CellResult]:
        """The cells with times of fastnorm and of a peer."""
        return [one for one in self.cells if one.ratio is not None]

    @property
    def behind(self) -> list[CellResult]:
        """The cells where a peer is ahead, by however little, the worst first."""
        return sorted((one for one in self.compared if _ratio(one) < 1), key=_ratio)

    @property
    def failed(self) -> list[CellResult]:
        """The cells in which fastnorm has no right result."""
        return [one for one in self.cells if FASTNORM in one.errors]

    def by_kind(self) -> dict[str, list[CellResult]]:
        """Return the compared cells by what they compute."""
        kinds: dict[str, list[CellResult]] = {}
        for one in self.compared:
            kinds.setdefault(one.cell.kind, []).append(one)
        return kinds

    def as_json(self) -> dict[str, Any]:
        """Return all of it as a dictionary that JSON can hold; times are in seconds."""
        document: dict[str, Any] = dataclasses.asdict(self)
        for entry, one in zip(document["cells"], self.cells, strict=True):
            fastnorm = one.fastnorm
            entry |= {
                "name": one.cell.name,
                "bytes": one.cell.bytes,
                "best_peer": one.best_peer,
                "best_peer_over_fastnorm": one.ratio,
                "gigabytes_per_second": None if fastnorm is None else one.bandwidth(fastnorm),
                "share_of_limit": one.share,
            }
        document["geometric_mean"] = geometric_mean(ratios_of(self.compared)) if self.compared else None
        document["behind"] = [one.cell.name for one in self.behind]
        return document


def _ratio(one: CellResult) -> float:
    return math.nan if one.ratio is None else one.ratio


def ratios_of(cells: Iterable[CellResult]) -> list[float]:
    """Return best peer / fastnorm of the cells that have it."""
    return [one.ratio for one in cells if one.ratio is not None]
