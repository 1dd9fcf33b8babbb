"""What an experiment found: plain values that JSON can hold."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Score:
    """What one algorithm or peer computed for a line, and how right that is.

    Attributes
    ----------
    mean, sd : float
        As computed.
    mean_digits, sd_digits : float
        Log relative errors: how many decimal digits are right.
    sd_ulps : float
        Units in the last place by which sd is wrong.
    """

    mean: float
    sd: float
    mean_digits: float
    sd_digits: float
    sd_ulps: float


@dataclass(frozen=True, slots=True)
class Row:
    """A data set in a dtype, measured against one truth.

    Attributes
    ----------
    dataset, dtype : str
        Their names.
    truth : {"stored", "certified"}
        Whether the exact moments of the stored values or the published ones count as true.
    count : int
        The number of elements.
    kappa : float
        The condition number of the stored values.
    mean_ceiling, sd_ceiling : float
        The digits that are within reach: those of the dtype, or fewer where the stored values are not the published
        ones, or where the mean nearly cancels and the rounding of the values alone decides its last digits.
    scores : dict of str to Score
        By the name of algorithm or peer.
    """

    dataset: str
    dtype: str
    truth: str
    count: int
    kappa: float
    mean_ceiling: float
    sd_ceiling: float
    scores: dict[str, Score]

    @property
    def label(self) -> str:
        """The data set as it stands in tables: its name, and whether its certified values count."""
        return f"{self.dataset}, certified" if self.truth == "certified" else self.dataset


@dataclass(frozen=True, slots=True)
class LayerNormRow:
    """Rows through layer_norm: the worst error of each library, in units of ``u * max(1, |y|)``."""

    dataset: str
    dtype: str
    shape: tuple[int, int]
    errors: dict[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """The relative error of the variance of one algorithm along kappa or n: the worst of some lines at each point."""

    algorithm: str
    dtype: str
    at: list[float]
    error: list[float]
    bound: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """All that an experiment measured.

    Attributes
    ----------
    algorithms, peers, layer_norm_peers : list of str
        What took part.
    missing : list of str
        Peers that are not installed.
    dtypes : list of str
        The dtypes of the rows.
    rows : list of Row
        Mean and standard deviation.
    layer_norm : list of LayerNormRow
        Layer norms.
    nanoseconds, layer_norm_nanoseconds : dict of dict of float
        By dtype and name: the time of an element of a line of `timed_count`, or of rows of `timed_shape`.
    against_kappa, against_n : list of Curve
        The sweeps.
    machine, versions : dict
        Where it was measured, and with what.
    date : str
        When.
    skipped : list of str
        What could not be measured, and why.
    """

    algorithms: list[str]
    peers: list[str]
    layer_norm_peers: list[str]
    missing: list[str]
    dtypes: list[str]
    rows: list[Row] = field(default_factory=list)
    layer_norm: list[LayerNormRow] = field(default_factory=list)
    nanoseconds: dict[str, dict[str, float]] = field(default_factory=dict)
    timed_count: int = 0
    layer_norm_nanoseconds: dict[str, dict[str, float]] = field(default_factory=dict)
    timed_shape: tuple[int, int] = (0, 0)
    against_kappa: list[Curve] = field(default_factory=list)
    kappa_count: int = 0
    against_n: list[Curve] = field(default_factory=list)
    n_kappa: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""
    skipped: list[str] = field(default_factory=list)

    def mean_digits(self, dtype: str) -> dict[str, float]:
        """Return the mean number of right digits of sd over all stored data sets of a dtype, for what was timed."""
        rows = [row for row in self.rows if row.dtype == dtype and row.truth == "stored"]
        return {
            name: sum(row.scores[name].sd_digits for row in rows) / len(rows)
            for name in self.nanoseconds.get(dtype, {})
            if rows and all(name in row.scores for row in rows)
        }

    def as_json(self) -> dict[str, Any]:
        """Return all of it as a dictionary for `json.dumps`; NaN and infinities, which JSON lacks, are strings."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
