"""An ONNX graph in NumPy, once with onnx's own norms and once with fastnorm's.

A transformer encoder as it is exported: LayerNormalization before each half of a layer, RMSNormalization of the queries
and keys of each head, LpNormalization of the vectors that come out. Its weights are random numbers. onnx's reference
evaluator runs it, which is NumPy too: ``fastnorm.onnx.ops()`` exchanges the norms and nothing else.

    pip install 'fastnorm[onnx]'
    python examples/onnx_graph.py
    python examples/onnx_graph.py --layers 12 --hidden 768 --heads 12

The layers: Xiong et al., "On Layer Normalization in the Transformer Architecture" (2020), https://arxiv.org/abs/2002.04745;
norms of queries and keys: Henry et al., "Query-Key Normalization for Transformers" (2020), https://arxiv.org/abs/2010.04245.
"""

import argparse
import os
import statistics
import sys
import time

try:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    import fastnorm.onnx
except ImportError as error:
    raise ImportError(f"{error}; pip install 'fastnorm[onnx]' installs what this example needs") from None

VOCABULARY = 1000
OPSET = 23  # the first with RMSNormalization
# The vectors have length 1, and every layer normalises what it reads: errors of float32 hardly grow on the way.
TOLERANCE = 1e-5


class Graph:
    """The nodes and weights of a graph, as they are added."""

    def __init__(self, seed=0):
        self.nodes, self.weights = [], []
        self._rng = np.random.default_rng(seed)

    def add(self, operator, *inputs, **attributes):
        """Add a node, and return the name of its output."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, values):
        """Add an array, and return its name."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def random(self, *shape, mean=0.0, deviation=1.0):
        """Add an array of random numbers, and return its name."""
        return self.constant(self._rng.normal(mean, deviation, shape).astype(np.float32))

    def linear(self, x, inputs, outputs):
        """Add x @ weight + bias."""
        product = self.add("MatMul", x, self.random(inputs, outputs, deviation=inputs**-0.5))
        return self.add("Add", product, self.random(outputs, deviation=0.1))

    def layer_norm(self, x, hidden):
        """Add a LayerNormalization of the last axis."""
        scale, bias = self.random(hidden, mean=1.0, deviation=0.1), self.random(hidden, deviation=0.1)
        return self.add("LayerNormalization", x, scale, bias)

    def attention(self, x, hidden, heads):
        """Add multi-head self-attention of x, (batch, length, hidden), whose queries and keys are normalised."""
        size = hidden // heads
        split = self.constant(np.array([0, 0, heads, size]))  # 0: as it is

        def by_head(normalize):
            projected = self.add("Reshape", self.linear(x, hidden, hidden), split)
            if normalize:
                projected = self.add("RMSNormalization", projected, self.random(size, mean=1.0, deviation=0.1))
            return self.add("Transpose", projected, perm=[0, 2, 1, 3])

        query, key, value = by_head(True), by_head(True), by_head(False)
        scores = self.add("MatMul", query, self.add("Transpose", key, perm=[0, 1, 3, 2]))
        scores = self.add("Mul", scores, self.constant(np.float32(size**-0.5)))
        attended = self.add("MatMul", self.add("Softmax", scores, axis=-1), value)
        joined = self.add("Transpose", attended, perm=[0, 2, 1, 3])
        return self.linear(self.add("Reshape", joined, self.constant(np.array([0, 0, hidden]))), hidden, hidden)


def build_encoder(layers, hidden, heads, length):
    """Return the model: from `tokens`, int64 (batch, length), to `vectors`, float32 (batch, hidden)."""
    graph = Graph()
    x = graph.add("Gather", graph.random(VOCABULARY, hidden), "tokens")
    x = graph.add("Add", x, graph.random(length, hidden))
    for _ in range(layers):
        x = graph.add("Add", x, graph.attention(graph.layer_norm(x, hidden), hidden, heads))
        y = graph.add("Relu", graph.linear(graph.layer_norm(x, hidden), hidden, 4 * hidden))
        x = graph.add("Add", x, graph.linear(y, 4 * hidden, hidden))
    pooled = graph.add("ReduceMean", graph.layer_norm(x, hidden), graph.constant(np.array([1])), keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [pooled], ["vectors"], axis=-1, p=2))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "encoder",
            [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", length])],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", hidden])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=11,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def time_norms(evaluator):
    """Have an evaluator note how many seconds each of its norms takes, in the list that is returned."""
    seconds = []

    def timed(run):
        def timed_run(*args, **kwargs):
            start = time.perf_counter()
            outputs = run(*args, **kwargs)
            seconds.append(time.perf_counter() - start)
            return outputs

        return timed_run

    for node in evaluator.rt_nodes_:
        if node.op_type.endswith("Normalization"):
            node.run = timed(node.run)
    return seconds


def measure(evaluators, feeds, rounds):
    """Return the median ms of each evaluator's runs, and of the norms in them."""
    noted = {name: time_norms(evaluator) for name, evaluator in evaluators.items()}
    samples = {name: [] for name in evaluators}
    for index in range(-1, rounds):
        # They take turns, so that drift hits them alike, and swap places, so that neither is always second.
        for name in list(evaluators)[:: 1 if index % 2 == 0 else -1]:
            noted[name].clear()
            start = time.perf_counter()
            evaluators[name].run(None, feeds)
            total = time.perf_counter() - start
            if index >= 0:  # the first round warms up
                samples[name].append((total * 1e3, sum(noted[name]) * 1e3))
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in samples.items()}


def main(argv=None):
    """Run the graph with both; return 0 if they agree, 1 if they do not; exit with 2 if an argument does not fit."""
    parser = argparse.ArgumentParser(
        description="A transformer encoder in ONNX, with onnx's norms and with fastnorm's."
    )
    for name, default, meaning in (
        ("layers", 6, "layers of the encoder"),
        ("hidden", 384, "length of a token's vector"),
        ("heads", 6, "heads of the attention"),
        ("batch", 8, "sequences in the batch"),
        ("length", 128, "tokens in a sequence"),
        ("rounds", 5, "rounds that are timed"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{meaning} (default: {default})")
    arguments = parser.parse_args(argv)
    if min(vars(arguments).values()) < 1:
        parser.error(f"expected numbers of at least 1, got {vars(arguments)}")
    if arguments.hidden % arguments.heads:
        parser.error(f"--heads must divide --hidden, got {arguments.heads} and {arguments.hidden}")

    model = build_encoder(arguments.layers, arguments.hidden, arguments.heads, arguments.length)
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (arguments.batch, arguments.length))
    evaluators = {
        "onnx": ReferenceEvaluator(model),
        "fastnorm": ReferenceEvaluator(model, new_ops=fastnorm.onnx.ops()),
    }
    onnx_vectors, fastnorm_vectors = (evaluator.run(None, {"tokens": tokens})[0] for evaluator in evaluators.values())
    difference = float(np.abs(onnx_vectors - fastnorm_vectors).max())

    norms = sum(node.op_type.endswith("Normalization") for node in model.graph.node)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"encoder layers: {arguments.layers}, {arguments.batch} x {arguments.length} tokens of {arguments.hidden}: "
        f"{norms} norms among {len(model.graph.node)} nodes\n"
        f"onnx {onnx.__version__}, NumPy {np.__version__} on {cpus} CPUs\n\n"
        f"{'norms':10}{'ms a run':>10}{'in norms':>10}"
    )
    for name, (total, in_norms) in measure(evaluators, {"tokens": tokens}, arguments.rounds).items():
        print(f"{name:10}{total:10.1f}{in_norms:10.1f}")
    print(f"largest difference of the vectors: {difference:.1e} (at most {TOLERANCE:.0e})")
    if not difference <= TOLERANCE:  # written so that NaN fails too
        print(f"onnx_graph.py: they differ by {difference:.1e}, more than {TOLERANCE:.0e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
