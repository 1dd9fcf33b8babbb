"""How right mean and variance come out: algorithms, peers and data sets, measured against exact arithmetic.

`fastnorm stability` is this from the command line.

Examples
--------
>>> import numpy as np
>>> from fastnorm import lab
>>> data = [lab.numacc("NumAcc4"), lab.family("drift", 500, 1e6, np.float64)]
>>> results = lab.run(data, dtypes=["float64"], peers=False, speed=False, curves=False)
>>> print(lab.failures(results)[0])
naive fails on NumAcc4 (float64): 0 digits of the sd are right; it came out as no finite number.
"""

from fastnorm.lab.datasets import FAMILIES, NUMACC, Dataset, family, largest_condition, numacc
from fastnorm.lab.exact import ExactMoments, exact_moments, relative_error, square_root
from fastnorm.lab.experiment import ALGORITHMS, DTYPES, default_datasets, run
from fastnorm.lab.files import load
from fastnorm.lab.findings import bounds, comparisons, failures, findings, lost_rows
from fastnorm.lab.layer_norms import exact_layer_norm
from fastnorm.lab.peers import LAYER_NORM_PEERS, VARIANCE_PEERS, Peer, installed
from fastnorm.lab.plots import draw, save
from fastnorm.lab.report import page
from fastnorm.lab.results import Curve, LayerNormRow, Results, Row, Score
from fastnorm.lab.scores import all_digits, best, log_relative_error, unit_in_last_place, units_in_last_place
from fastnorm.lab.tables import Cell, Table, tables
from fastnorm.lab.timing import interleaved

__all__ = [
    "ALGORITHMS",
    "Cell",
    "Curve",
    "DTYPES",
    "Dataset",
    "ExactMoments",
    "FAMILIES",
    "LAYER_NORM_PEERS",
    "LayerNormRow",
    "NUMACC",
    "Peer",
    "Results",
    "Row",
    "Score",
    "Table",
    "VARIANCE_PEERS",
    "all_digits",
    "best",
    "bounds",
    "comparisons",
    "default_datasets",
    "draw",
    "exact_layer_norm",
    "exact_moments",
    "failures",
    "family",
    "findings",
    "installed",
    "interleaved",
    "largest_condition",
    "load",
    "log_relative_error",
    "lost_rows",
    "numacc",
    "page",
    "relative_error",
    "run",
    "save",
    "square_root",
    "tables",
    "unit_in_last_place",
    "units_in_last_place",
]
