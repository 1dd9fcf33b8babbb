"""What `fastnorm.lab` takes for true, how it scores and draws; nothing here depends on how long it takes."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from fastnorm import lab
from fastnorm.lab import labels, peers, plots, scores

DTYPES = ("float16", "float32", "float64")


@pytest.fixture(scope="module")
def results() -> lab.Results:
    """Measure a few data sets, without peers that are not NumPy and without times."""
    data = [lab.numacc("NumAcc4"), lab.family("offset", 200, 100.0, "float64")]
    measured = lab.run(data, dtypes=["float32", "float64"], peers=False, speed=False, curves=True, quick=True)
    times = {dtype: dict.fromkeys(measured.algorithms, 2.0) | {"auto": 1.0} for dtype in measured.dtypes}
    return dataclasses.replace(measured, nanoseconds=times)


# Exact arithmetic


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_exact_moments_are_those_of_fractions(dtype: str, data: st.DataObject) -> None:
    finite = hypothesis_numpy.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    values = data.draw(hypothesis_numpy.arrays(dtype, st.integers(2, 12), elements=finite))
    fractions = [Fraction(float(value)) for value in values]
    mean = sum(fractions) / len(fractions)
    m2 = sum((value - mean) ** 2 for value in fractions)
    exact = lab.exact_moments(values)
    assert exact.mean == mean
    assert exact.m2 == m2
    assert exact.variance == m2 / (len(fractions) - 1)
    # The root, to 2^-190 of it.
    assert abs(exact.sd**2 - exact.variance) <= exact.variance / 2**190


def test_exact_moments_of_integers_and_of_a_subnormal_beside_a_huge_number() -> None:
    assert lab.exact_moments(np.array([2**62, 2**62 + 2])).variance == 2
    smallest, largest = 5e-324, 1.7e308
    exact = lab.exact_moments([smallest, largest], ddof=0)
    assert exact.mean == (Fraction(smallest) + Fraction(largest)) / 2
    assert exact.sd == (Fraction(largest) - Fraction(smallest)) / 2


def test_condition_of_a_constant_is_infinite_and_of_centred_data_one() -> None:
    assert lab.exact_moments([3.0, 3.0, 3.0]).condition == math.inf
    assert lab.exact_moments([-1.0, 1.0]).condition == 1.0
    assert lab.exact_moments([0.0, 0.0]).m2 == 0


@pytest.mark.parametrize("values", [[1.0, np.nan], [np.inf, 1.0], [1.0], []])
def test_exact_moments_reject_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match="exact_moments: values must be"):
        lab.exact_moments(values)


def test_exact_moments_reject_other_dtypes() -> None:
    with pytest.raises(TypeError, match="complex128"):
        lab.exact_moments([1j, 2j])


def test_relative_errors() -> None:
    assert lab.relative_error(1.5, Fraction(1)) == 0.5
    assert lab.relative_error(0.0, Fraction(0)) == 0.0
    assert lab.relative_error(1e-300, Fraction(0)) == math.inf
    assert math.isnan(lab.relative_error(math.nan, Fraction(1)))
    assert lab.relative_error(1e300, Fraction(1, 10**300)) == math.inf  # beyond float64


# Scores


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 3.01), ("float32", 6.92), ("float64", 15.65)])
def test_one_unit_in_the_last_place_is_all_digits(dtype: str, digits: float) -> None:
    for value in (1.0, 1.25, 1.9):
        exact = Fraction(float(np.dtype(dtype).type(value)))
        neighbour = float(np.nextafter(np.dtype(dtype).type(value), np.dtype(dtype).type(4)))
        assert lab.units_in_last_place(neighbour, exact, dtype) == 1.0
        assert lab.log_relative_error(neighbour, exact, dtype) == pytest.approx(digits, abs=0.01)


def test_digits_go_from_none_to_the_ceiling() -> None:
    assert lab.log_relative_error(1.001, Fraction(1), "float64") == pytest.approx(3)
    assert lab.log_relative_error(-5.0, Fraction(1), "float64") == 0.0
    assert lab.log_relative_error(math.nan, Fraction(1), "float64") == 0.0
    assert lab.log_relative_error(1.0, Fraction(1), "float64", ceiling=8.25) == 8.25
    # Where 0 is true, errors count against the data.
    assert lab.log_relative_error(1e-3, Fraction(0), "float64", Fraction(1)) == pytest.approx(3)
    assert lab.log_relative_error(1e-3, Fraction(0), "float64") == 0.0


@given(st.floats(min_value=5e-324, max_value=1.7e308))
def test_unit_in_last_place_is_numpys_spacing(value: float) -> None:
    assert lab.unit_in_last_place(Fraction(value), "float64") == Fraction(float(np.spacing(value)))


def test_best_marks_ties_and_nobody_where_all_failed() -> None:
    assert lab.best({"a": 3.0, "b": 2.995, "c": math.nan}, larger=True) == {"a", "b"}
    assert lab.best({"a": 1.0, "b": 2.0}, larger=False) == {"a"}
    assert lab.best({"a": 0.0, "b": 0.0}, larger=True) == frozenset()
    assert lab.best({"a": math.inf}, larger=False) == frozenset()
    assert lab.best({}, larger=True) == frozenset()


# The experiment


def test_naive_fails_on_numacc4_and_auto_has_all_digits(results: lab.Results) -> None:
    rows = {(row.label, row.dtype): row for row in results.rows}
    stored, certified = rows["NumAcc4", "float64"], rows["NumAcc4, certified", "float64"]
    assert stored.scores["naive"].sd_digits == 0
    assert stored.scores["auto"].sd_digits == pytest.approx(15.65, abs=0.01)
    assert certified.sd_ceiling == pytest.approx(8.25, abs=0.01)
    assert certified.scores["auto"].sd_digits == pytest.approx(8.25, abs=0.01)
    # Certified values are of decimals, not of what float32 makes of them.
    assert ("NumAcc4, certified", "float32") not in rows
    assert "naive fails on NumAcc4 (float64): 0 digits of the sd are right" in " ".join(lab.failures(results))


def test_sweeps_stay_below_their_bounds(results: lab.Results) -> None:
    assert len(results.against_kappa) == len(results.against_n) == 2 * len(lab.ALGORITHMS)
    (sentence,) = lab.bounds(results)
    assert re.match(r"All \d+ errors", sentence)
    curve = results.against_kappa[0]
    worse = dataclasses.replace(curve, error=[1.0] * len(curve.error), bound=[1e-3] * len(curve.bound))
    assert "above their theoretical bound: auto" in lab.bounds(dataclasses.replace(results, against_kappa=[worse]))[0]


def test_results_are_json_without_nan(results: lab.Results) -> None:
    text = json.dumps(results.as_json(), allow_nan=False)
    assert json.loads(text)["rows"][0]["dataset"] == "NumAcc4"


def test_float32_data_stay_float32_unless_asked(results: lab.Results) -> None:
    data = [lab.family("offset", 50, 10.0, "float32")]
    found = lab.run(data, algorithms=["auto"], peers=False, speed=False, curves=False)
    assert [row.dtype for row in found.rows] == ["float32"]
    both = lab.run(data, dtypes=DTYPES[1:], algorithms=["auto"], peers=False, speed=False, curves=False)
    assert [row.dtype for row in both.rows] == ["float32", "float64"]


def test_data_are_measured_in_their_own_dtype_however_quick() -> None:
    half = lab.Dataset("half", np.float16([1.0, 2.0, 4.0]))
    found = lab.run([half], algorithms=["auto"], peers=False, speed=False, curves=False, quick=True)
    assert [row.dtype for row in found.rows] == ["float16"]
    twice = lab.run([half], dtypes=["float16", "float16"], algorithms=["auto"], peers=False, speed=False, curves=False)
    assert [row.dtype for row in twice.rows] == ["float16"]


@pytest.mark.parametrize("certified", [None, Fraction(10) ** -300])
def test_means_that_nearly_cancel_in_all_of_the_range(certified: Fraction | None) -> None:
    for values in ([1e308, -1e308, 5e-324], [1e300, 2e300, 4e300]):
        data = lab.Dataset("wide", np.array(values), certified, None if certified is None else Fraction(1))
        (row, *_) = lab.run([data], algorithms=["auto"], peers=False, speed=False, curves=False).rows
        assert 0.0 <= row.mean_ceiling <= 16.0


def test_values_beyond_a_dtype_are_skipped_and_said() -> None:
    found = lab.run([lab.numacc("NumAcc4")], dtypes=["float16"], peers=False, speed=False, curves=False)
    assert found.rows == []
    assert "Not measured: NumAcc4 in float16: values beyond its range." in lab.findings(found)


@pytest.mark.parametrize("wrong", [{"dtypes": ["float8"]}, {"algorithms": ["best"]}])
def test_run_rejects_unknown_names(wrong: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"run: .* must be of"):
        lab.run([lab.numacc("NumAcc1")], **wrong)


def test_progress_reaches_its_end() -> None:
    seen: list[tuple[int, int]] = []
    lab.run(
        [lab.numacc("NumAcc1")], dtypes=["float64"], peers=False, speed=False, curves=False,
        progress=lambda done, total, name: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (1, 1)


def test_lost_rows_are_found(results: lab.Results) -> None:
    row = results.rows[0]
    perfect = row.scores["auto"]
    poor = dataclasses.replace(perfect, sd_digits=2.0)

    def against(auto: lab.Score) -> lab.Results:
        one = dataclasses.replace(row, scores={"auto": auto, "rival": perfect})
        return dataclasses.replace(results, rows=[one], peers=["rival"], layer_norm=[])

    assert lab.lost_rows(against(perfect), row.dtype) == []
    assert "every one of 2 scores" in lab.comparisons(against(perfect))[0]
    (lost,) = lab.lost_rows(against(poor), row.dtype)
    assert lost.startswith("sd of NumAcc4: auto 2.0, rival")
    assert "1 of 2 scores" in lab.comparisons(against(poor))[0]


def test_a_mean_that_cancels_is_scored_to_the_digits_its_values_leave() -> None:
    x = np.float32([1000.25, -1000.0, 0.5, -0.25])  # the mean is a four thousandth of the mean magnitude
    (row,) = lab.run([lab.Dataset("cancelling", x)], peers=False, speed=False, curves=False).rows
    assert row.mean_ceiling == pytest.approx(lab.all_digits("float32") - np.log10(2001 / 0.5), abs=1e-6)
    assert row.sd_ceiling == lab.all_digits("float32")


# Peers


@pytest.mark.parametrize("peer", peers.VARIANCE_PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_peers_compute_the_moments(peer: lab.Peer, dtype: str) -> None:
    if not lab.installed(peer):
        pytest.skip(f"{peer.name} is not installed")
    if dtype not in peer.dtypes:
        pytest.skip(f"{peer.name} does not compute in {dtype}")
    x = np.random.default_rng(0).normal(3.0, 2.0, 100).astype(dtype)
    exact = lab.exact_moments(x)
    mean, sd = (float(value) for value in peer.prepare(x)())
    # In order, n u of the sum of the magnitudes, twice the mean at most.
    allowed = 4 * 100 * float(np.finfo(dtype).eps)
    assert mean == pytest.approx(float(exact.mean), rel=allowed)
    assert sd == pytest.approx(float(exact.sd), rel=allowed)


@pytest.mark.parametrize("peer", peers.LAYER_NORM_PEERS, ids=lambda peer: peer.name)
def test_peers_compute_layer_norms(peer: lab.Peer) -> None:
    if not lab.installed(peer):
        pytest.skip(f"{peer.name} is not installed")
    x = np.random.default_rng(0).normal(0.5, 2.0, (3, 64)).astype(np.float32)
    y = np.asarray(peer.prepare(x)())
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, lab.exact_layer_norm(x).astype(np.float64), atol=64 * 2.0**-23)


def test_a_missing_peer_is_left_out() -> None:
    assert not lab.installed(lab.Peer("none", ("fastnorm_no_such_module",), DTYPES, lambda x: lambda: (0.0, 0.0)))


def test_exact_layer_norm_keeps_what_is_close_to_the_mean() -> None:
    x = 2.0**40 + np.array([[-1.0, 1.0, 3.0, -3.0]])
    expected = np.array([[-1.0, 1.0, 3.0, -3.0]]) / math.sqrt(5)
    np.testing.assert_allclose(lab.exact_layer_norm(x, 0.0).astype(np.float64), expected, rtol=2.0**-52)


# Tables, figures, page


def test_tables_mark_the_best(results: lab.Results) -> None:
    tables = {table.title: table for table in lab.tables(results)}
    table = tables["Standard deviation, float64: digits that are right"]
    assert table.headers[: table.labels] == ["data", "n", "kappa"]
    cells = dict(zip(table.headers, table.rows[0], strict=True))
    assert cells["auto"] == lab.Cell("15.65", best=True)
    assert not cells["naive"].best
    times = tables["Mean and standard deviation: nanoseconds an element"]
    assert [cell.text for cell in times.rows[0] if cell.best] == ["1.00"]


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_figures_are_written(results: lab.Results, tmp_path: pathlib.Path, suffix: str, start: bytes) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    written = lab.save(results, tmp_path / f"found{suffix}")
    assert [path.name for path in written] == [f"found-{name}{suffix}" for name in ("kappa", "n", "speed")]
    assert all(path.read_bytes().startswith(start) for path in written)


def test_figures_have_a_panel_for_each_algorithm_and_only_what_was_measured(results: lab.Results) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    titles = [axes.get_title(loc="left") for axes in lab.draw(results)["kappa"].axes]
    assert titles == list(lab.ALGORITHMS)
    bare = dataclasses.replace(results, against_kappa=[], against_n=[], nanoseconds={})
    assert lab.draw(bare) == {}


def test_page_stands_alone(results: lab.Results) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    row = dataclasses.replace(results.rows[0], dataset="<script>")
    page = lab.page(dataclasses.replace(results, rows=[row, *results.rows]))
    assert page.count("<svg") == page.count("</svg>") == 3
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<link" not in page
    assert "<image" not in page
    # Names of XML's vocabulary apart, nothing points outside.
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert not re.findall(r"url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert plots.INK not in page[page.index("<svg") :]


def test_spread_keeps_order_and_distance() -> None:
    heights = labels.spread({"a": 1e-3, "b": 1.01e-3, "c": 0.99e-3, "d": 1.0}, 1e-6, 1.0, 0.1)
    assert list(heights) == ["c", "a", "b", "d"]
    logarithms = np.log10(list(heights.values())) / 6
    assert np.diff(logarithms).min() >= 0.1 - 1e-6
    assert logarithms.max() <= 1e-9


def test_all_digits() -> None:
    assert scores.all_digits("float64") == pytest.approx(15.65, abs=0.01)
