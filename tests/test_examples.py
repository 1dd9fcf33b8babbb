"""The lessons of examples/: each teaches what it says it teaches. Each trains as little as `--quick` does."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

LESSONS = (
    "batch_norm_by_hand",
    "batch_sizes",
    "exploding_gradient",
    "fold",
    "shared_cells",
    "spectral_norm",
    "weight_scales",
)
SWEEPS = {"batch_sizes", "weight_scales"}
DIGITS = {"batch_sizes", "fold", "weight_scales"}
UNIT_ROUNDOFF = 2.0**-24  # of float32


def lesson(name):
    """Import a lesson, or skip where the data that it learns from are not installed."""
    if name in DIGITS:
        pytest.importorskip("sklearn", reason="scikit-learn, which brings the digits, is not installed")
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def scales():
    # With six, some scales are in the midst of learning, and the last bits of a matrix product decide how far they are.
    return lesson("weight_scales").sweep(epochs=8)


@pytest.fixture(scope="module")
def batch_errors():
    return lesson("batch_sizes").sweep(seeds=1, epochs=2)


# The command line of each


@pytest.mark.parametrize("name", sorted(set(LESSONS) - SWEEPS))
def test_a_lesson_prints_and_draws(name, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    picture = tmp_path / f"{name}.png"
    quick = ["--quick"] if name == "exploding_gradient" else []
    assert lesson(name).main([*quick, "--plot", str(picture)]) == 0
    assert capsys.readouterr().out.strip()
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(SWEEPS))
def test_a_sweep_prints_and_draws(name, request, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    module, picture = lesson(name), tmp_path / f"{name}.png"
    swept = request.getfixturevalue({"weight_scales": "scales", "batch_sizes": "batch_errors"}[name])
    monkeypatch.setattr(module, "sweep", lambda **_: swept)  # trained once for all tests
    assert module.main(["--quick", "--plot", str(picture)]) == 0
    assert "%" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", LESSONS)
def test_help_states_the_lesson_and_its_source(name, capsys):
    with pytest.raises(SystemExit) as end:
        lesson(name).main(["--help"])
    assert end.value.code == 0
    assert "https://arxiv.org/abs/" in capsys.readouterr().out


@pytest.mark.parametrize("picture", ["no_folder/x.png", "x.txt"])
def test_a_picture_that_cannot_be_written_is_refused_before_training(picture, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        lesson("weight_scales").main(["--plot", str(tmp_path / picture)])
    assert end.value.code == 2
    assert "--plot" in capsys.readouterr().err


@pytest.mark.parametrize("name", LESSONS)
def test_the_documentation_shows_every_picture(name):
    docs = Path(__file__).resolve().parents[1] / "docs"
    if not docs.is_dir():
        pytest.skip("the documentation is not beside the tests")
    assert f"lessons/{name}.png" in (docs / "lessons.md").read_text(encoding="utf-8")
    assert (docs / "lessons" / f"{name}.png").stat().st_size < 150_000


# The networks that they train


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_gradients_of_a_network_are_those_of_its_loss(norm):
    networks = importlib.import_module("networks")
    make = {"none": None, "batch": networks.BatchNorm, "group": lambda channels: networks.GroupNorm(2, channels)}[norm]
    network = networks.perceptron((5, 8, 6, networks.CLASSES), [0.7] * 3, make, seed=3)
    for layer in network:
        layer.parameters = [parameter.astype(np.float64) for parameter in layer.parameters]
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((8, 5)), rng.integers(0, networks.CLASSES, 8)

    def loss():
        return networks.cross_entropy(networks.predict(network, x, training=True), labels)

    _, gradient = loss()
    for layer in reversed(network):
        gradient = layer.backward(gradient)
    # Central differences of two steps, combined so that what is left is h^4 / 30 times a fifth derivative. A norm of
    # three or four channels has large ones, up to 1e8 here: 3e-10; rounding adds 2^-53 / h = 1e-12.
    h = 1e-4
    for layer in network:
        for parameter, its_gradient in zip(layer.parameters, layer.gradients, strict=True):
            for index in np.ndindex(parameter.shape):
                kept, ends = parameter[index], []
                for steps in (1, -1, 2, -2):
                    parameter[index] = kept + steps * h
                    ends.append(loss()[0])
                parameter[index] = kept
                slope = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h)
                assert slope == pytest.approx(its_gradient[index], abs=1e-8)


# What each teaches


def test_batch_norm_widens_the_band_of_scales_that_learn(scales):
    module = lesson("weight_scales")
    without, with_norm = (module.scales_that_learn(runs) for runs in scales.values())
    assert 1 <= without <= 4  # a narrow band, but a band
    assert with_norm >= 12


def test_group_norm_does_not_mind_small_batches(batch_errors):
    batch_norm, group_norm = (errors[:, 0] for errors in batch_errors.values())
    assert batch_norm[0] < 0.5  # a batch of 64 teaches it
    assert batch_norm[-1] > 0.3  # a batch of 2 does not
    assert group_norm[-1] < 0.15


@pytest.mark.parametrize(
    ("name", "shape"),
    [("BatchNorm", "N1HW"), ("LayerNorm", "1CHW"), ("InstanceNorm", "11HW"), ("GroupNorm", "1GHW")],
)
def test_cells_that_share(name, shape):
    module = lesson("shared_cells")
    images, channels, *_ = module.SHAPE
    found = module.share(module.NORMS[name])
    expected = np.zeros(module.SHAPE, bool)
    expected[
        : images if shape[0] == "N" else 1, : {"1": 1, "C": channels, "G": channels // module.GROUPS}[shape[1]]
    ] = 1
    np.testing.assert_array_equal(found.moved, expected)
    np.testing.assert_array_equal(found.reached, expected)
    assert found.statistics * expected.sum() == expected.size


def test_batch_norm_by_hand_prints_torchs_digits(capsys):
    # Of torch.nn.BatchNorm1d, torch 2.13: y, running_mean, running_var, and x.grad for the first value of y.
    assert lesson("batch_norm_by_hand").main([]) == 0
    printed = capsys.readouterr().out
    for line in (
        "[[-1.2247, -1.2247, -1.2247],\n [0.0000, 0.0000, 0.0000],\n [1.2247, 1.2247, 1.2247]]",
        "[0.3000, 0.4000, 0.5000]",
        "[1.8000, 1.8000, 1.8000]",
        "[[0.0680, 0.0000, 0.0000],\n [-0.1361, 0.0000, 0.0000],\n [0.0680, 0.0000, 0.0000]]",
        "[[[-1.2865, -0.9649, -0.6433],\n  [-1.2865, -0.9649, -0.6433]],",
        " [[0.6433, 0.9649, 1.2865],\n  [0.6433, 0.9649, 1.2865]]]",
        "[0.4000, 0.7000]",
        "[2.0600, 2.0600]",
        "[[[0.1793, -0.1202, -0.0980],\n  [0.0000, 0.0000, 0.0000]],",
        " [[-0.0092, 0.0129, 0.0351],\n  [0.0000, 0.0000, 0.0000]]]",
    ):
        assert line in printed


@pytest.mark.parametrize("block", [0, 1])
def test_batch_norm_by_hand_is_fastnorms(block):
    module = lesson("batch_norm_by_hand")
    steps = module.by_hand(list(module.BLOCKS.values())[block])
    # No result is larger than 2.06, and a handful of float32 operations lead to each: ten, half a unit each.
    assert module.largest_difference(steps) <= 10 * 2.06 * UNIT_ROUNDOFF


def test_a_folded_network_gives_the_same_scores():
    module, networks = lesson("fold"), importlib.import_module("networks")
    _, test = networks.load_digits()
    network = module.train()
    folded = module.fold(network)
    assert not any(isinstance(layer, networks.BatchNorm) for layer in folded)
    assert len(folded) == len(network) - 2
    before, after = (networks.predict(one, test.images) for one in (network, folded))
    # A score is a sum of at most 100 products, three layers deep; each layer's sums are wrong by at most 100 roundoffs
    # of the sum of their magnitudes, which here is below 10 times the largest score.
    assert np.abs(after - before).max() <= 3 * 100 * 10 * np.abs(before).max() * UNIT_ROUNDOFF
    assert networks.accuracy(folded, test) > 0.95


def test_power_iteration_converges_as_the_ratio_says():
    module = lesson("spectral_norm")
    for ratio in (0.5, 0.8):
        errors = module.errors(module.matrix(ratio))
        late = errors[errors > 1e-12][-2:]  # what is left of other singular values has died out, rounding not come in
        assert late[1] / late[0] == pytest.approx(ratio**4, rel=0.1)
    assert module.errors(module.matrix(0.5))[-1] < 1e-14


def test_going_on_from_the_last_vector_tracks_a_moving_weight():
    anew, going_on = lesson("spectral_norm").track().values()
    assert abs(going_on[-1] - 1) < 0.01 < abs(anew[-1] - 1)


def test_the_gradient_of_the_recurrent_network_is_that_of_its_loss():
    module = lesson("exploding_gradient")
    rng = np.random.default_rng(5)
    parameters = module.first_parameters(rng)
    parameters[0] /= module.GROWTH  # neither grows nor fades: differences are accurate
    numbers = rng.uniform(-1, 1, (4, 1))
    _, gradients = module.loss_and_gradients(parameters, numbers)
    h = 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = rng.standard_normal(parameter.shape)
        ends = []
        for sign in (1, -1):
            parameter += sign * h * direction
            ends.append(module.loss_and_gradients(parameters, numbers)[0])
            parameter -= sign * h * direction
        expected = float((gradient * direction).sum())
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_training_again_gives_the_same():
    module = lesson("exploding_gradient")
    first, second = (module.train(module.MAX_NORM, 20).losses for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_training_on_digits_again_gives_the_same():
    first, second = (lesson("fold").train() for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for pair in zip(one.parameters, other.parameters, strict=True):
            np.testing.assert_array_equal(*pair)


def test_clipping_lets_the_recurrent_network_learn():
    module = lesson("exploding_gradient")
    unclipped, clipped = (module.train(max_norm, 300) for max_norm in (math.inf, module.MAX_NORM))
    assert unclipped.norms.max() > 50 * module.MAX_NORM
    assert clipped.losses[-module.WINDOW :].mean() < 0.5 * unclipped.losses[-module.WINDOW :].mean()
