"""The part of the network that a server runs, the preferences at the end of histories, and how it becomes a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from variseq.errors import MissingDependencyError
from variseq.model.attention import AdditiveAttention, DotProductAttention
from variseq.model.layers import (
    MAX_LOG_VARIANCE,
    MIN_LOG_VARIANCE,
    Decoder,
    Encoder,
    EncoderBlock,
    EventEmbedding,
    FeedForward,
    LatentHead,
    distance_bucket,
)
from variseq.model.network import Network
from variseq.ranking.encoding import INPUTS, OUTPUTS

OPSET, IR_VERSION = 23, 11
"""Versions of the ONNX operations, the first with an RMS norm, and of the file format that came with them."""
UNSEEN = -80.0
"""The energy of tokens that cannot be seen: their weight, e⁻⁸⁰, is lost in rounding. Lower energies give subnormal
numbers in the softmax, which are seven times slower."""
Given = str | Tensor | float | list[int]
"""An input of an operation: the name of an output of another, or a constant."""


def distance_biases(network: Network) -> Float[Tensor, "block head distance_plus_one"]:
    """The bias of each block and head by distance between two tokens; the last is for tokens that cannot be seen."""
    bucket = distance_bucket(torch.arange(network.config.max_seq_len))
    of_members = [
        torch.stack([block.attention.distance_bias[:, bucket] for block in _blocks(encoder)])
        for encoder, _, _ in network.members()
    ]
    seen = torch.cat(of_members, dim=1).detach()
    return torch.cat([seen, torch.full_like(seen[..., :1], UNSEEN)], dim=2)


def encoder_tables(network: Network) -> dict[str, np.ndarray]:
    """The arrays of the encoder that are no part of its file."""
    return {
        "start_vector": network.embedding.vectors()[-1].detach().cpu().numpy(),
        "distance_biases": distance_biases(network).cpu().numpy(),
    }


def _blocks(encoder: Encoder) -> list[EncoderBlock]:
    return [block for block in encoder.blocks if isinstance(block, EncoderBlock)]


def require_exporter() -> None:
    """Raises MissingDependencyError where no encoder can be written."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnx", "train") from error


def write_encoder(network: Network, path: Path) -> None:
    """Write the network as ONNX: the same numbers as `preferences`, over prefix trees of tokens.

    A row holds one history, or several that share their beginning. `bias` is `distance_biases` of each pair of tokens;
    it decides which tokens a token can see. The item of a token is a row of `vectors`. Branches end at the tokens
    `query`. `position` is the distance of each token from the end of its branch, −1 where it cannot be seen; it is the
    index of the noise. Trees are of any number and size.

    The graph gives, at the token where each branch ends, the preferences, the mean log σ² and the weights of the
    attention. Its operations are written one by one; `torch.onnx.export` takes 7 seconds to find the same ones.
    """
    require_exporter()
    import onnx

    config = network.config
    width, latent = config.hidden_size, config.latent_dim
    cell: list[str | int] = ["tree", "token"]
    event = cell if config.visit_gap is None else [*cell, "event"]
    real, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    described: dict[str, tuple[Any, list[str | int]]] = {
        "item": (whole, event),
        "behavior": (whole, event),
        "gap": (whole, cell),
        "value": (real, event),
        "has_value": (onnx.TensorProto.BOOL, event),
        "vectors": (real, ["row", width]),
        "bias": (real, [config.num_layers, config.num_heads, *cell, "token"]),
        "query": (whole, ["tree", "branch"]),
        "position": (whole, ["tree", "branch", "token"]),
        "noise": (real, ["sample", "index", latent]),
        "preference": (real, ["sample", "tree", "branch", width]),
        "log_variance": (real, ["tree", "branch"]),
        "attention": (real, ["tree", "branch", "token"]),
    }
    values = {name: onnx.helper.make_tensor_value_info(name, *one) for name, one in described.items()}
    graph = _Graph()
    _add_preferences(graph, network)
    written = onnx.helper.make_graph(
        graph.nodes,
        "encoder",
        [values[name] for name in INPUTS],
        [values[name] for name in OUTPUTS],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(written, opset_imports=opsets, ir_version=IR_VERSION, producer_name="variseq")
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class _Graph:
    """Operations of ONNX, in order, and the constants that they take."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def __call__(self, operation: str, *given: Given, out: str | None = None, **attributes: Any) -> str:
        """Add an operation, and return the name of its output."""
        return self.several(operation, [out or f"of_{len(self.nodes)}"], *given, **attributes)[0]

    def several(self, operation: str, out: list[str], *given: Given, **attributes: Any) -> list[str]:
        """Add an operation with so many outputs, and return their names."""
        from onnx.helper import make_node

        names = [one if isinstance(one, str) else self._constant(one) for one in given]
        self.nodes.append(make_node(operation, names, out, **attributes))
        return out

    def _constant(self, value: Tensor | float | list[int]) -> str:
        name = f"constant_{len(self.constants)}"
        if isinstance(value, Tensor):
            self.constants[name] = value.detach().cpu().contiguous().numpy()
        else:
            self.constants[name] = np.array(value, dtype=np.int64 if isinstance(value, list) else np.float32)
        return name

    def part(self, given: str, axis: int, index: int, number: int) -> str:
        """Part `index` of so many equal ones along an axis."""
        if number == 1:
            return given
        names = [f"of_{len(self.nodes)}_{one}" for one in range(number)]
        return self.several("Split", names, given, axis=axis, num_outputs=number)[index]

    def linear(self, given: str, layer: nn.Linear) -> str:
        product = self("MatMul", given, layer.weight.t())
        return product if layer.bias is None else self("Add", product, layer.bias)

    def mapped(self, given: str, layer: nn.Module) -> str:
        """A linear map, or the numbers as they are where the layer is none."""
        return self.linear(given, layer) if isinstance(layer, nn.Linear) else given

    def norm(self, given: str, layer: nn.RMSNorm, out: str | None = None) -> str:
        weight = torch.ones(layer.normalized_shape) if layer.weight is None else layer.weight
        epsilon = torch.finfo(weight.dtype).eps if layer.eps is None else layer.eps
        return self("RMSNormalization", given, weight, epsilon=epsilon, out=out)

    def feed_forward(self, given: str, layer: FeedForward) -> str:
        name, both = f"of_{len(self.nodes)}", self.linear(given, layer.gate_and_value)
        gate, value = self.several("Split", [f"{name}_gate", f"{name}_value"], both, axis=-1, num_outputs=2)
        gate = self("Mul", gate, self("Sigmoid", gate))
        return self.linear(self("Mul", gate, value), layer.output)


def _add_preferences(graph: _Graph, network: Network) -> None:
    """From `INPUTS` to `OUTPUTS`; of several members the preferences side by side, and the means of the others."""
    hidden = _embedded(graph, network.embedding, network.config.visit_gap is not None)
    number, found = network.config.num_members, []
    for index, member in enumerate(network.members()):
        parts = [graph.part(name, axis, index, number) for name, axis in ((hidden, 2), ("bias", 1), ("noise", 2))]
        found.append(_of_member(graph, network, member, *parts))
    for name, of_members in zip(OUTPUTS, zip(*found, strict=True), strict=True):
        if number == 1:
            graph("Identity", *of_members, out=name)
        elif name == "preference":
            graph("Mul", graph("Concat", *of_members, axis=-1), 1 / number, out=name)
        else:
            graph("Mean", *of_members, out=name)


def _of_member(
    graph: _Graph, network: Network, member: tuple[Encoder, LatentHead, Decoder], hidden: str, bias: str, noise: str
) -> tuple[str, str, str]:
    """The outputs of one network.

    The last encoder block is computed at all tokens, because the decoder attends over all posteriors.
    """
    encoder, latent, decoder = member
    for number, block in enumerate(_blocks(encoder)):
        hidden = _after_block(graph, block, hidden, graph("Gather", bias, torch.tensor(number), axis=0))
    hidden = graph.norm(hidden, encoder.norm)
    mean = _normalized_mean(graph, latent, hidden)
    log_variance = graph.linear(hidden, latent.log_variance)
    log_variance = graph("Clip", log_variance, MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
    sigma = graph("Exp", graph("Mul", log_variance, 0.5))
    # The noise of each token of each branch: sample × tree × branch × token × dimension.
    of_tokens = graph("Gather", noise, graph("Max", "position", [0]), axis=1)
    posteriors = graph("Mul", graph("Unsqueeze", sigma, [1]), of_tokens)
    posteriors = graph("Add", graph("Unsqueeze", mean, [1]), posteriors)
    at_end = graph("Unsqueeze", "query", [2])
    at_end = graph("Expand", at_end, [1, 1, latent.log_variance.out_features])
    query_mean = graph("GatherElements", mean, at_end, axis=1)
    energy = _energy(graph, decoder.attention, query_mean, mean)
    energy = graph("Where", graph("Less", "position", [0]), UNSEEN, energy)
    weights = graph("Softmax", energy, axis=2)
    context = graph("MatMul", graph("Unsqueeze", weights, [2]), posteriors)
    first = graph("Unsqueeze", graph("Slice", noise, [0], [1], [1]), [1])
    own = graph("Mul", graph("GatherElements", sigma, at_end, axis=1), first)
    own = graph("Add", query_mean, own)
    context = graph.linear(graph("Squeeze", context, [3]), decoder.context)
    state = graph("Add", graph.mapped(own, decoder.posterior), context)
    transformed = graph.feed_forward(graph.norm(state, decoder.feed_forward_norm), decoder.feed_forward)
    preference = graph.norm(graph("Add", state, transformed), decoder.norm)
    at_end = graph("GatherElements", log_variance, at_end, axis=1)
    return preference, graph("ReduceMean", at_end, [2], keepdims=0), weights


def _embedded(graph: _Graph, embedding: EventEmbedding, of_visits: bool) -> str:
    """The vectors of tokens, see `EventEmbedding.forward`.

    Where a token is a visit, the items have one axis more than the gaps: the events, filled up with −1.
    """
    item = "item"
    if of_visits:
        item = graph("Max", "item", [0])
        is_event = graph("Cast", graph("GreaterOrEqual", "item", [0]), to=1)
        number = graph("Max", graph("ReduceSum", is_event, [2], keepdims=1), 1.0)
        weight = graph("Unsqueeze", graph("Div", is_event, graph("Sqrt", number)), [3])

    def pooled(vectors: str) -> str:
        return graph("ReduceSum", graph("Mul", vectors, weight), [2], keepdims=0) if of_visits else vectors

    hidden = graph("Mul", graph("Gather", "vectors", item), embedding.scale)
    if embedding.behavior is not None:
        hidden = graph("Add", hidden, graph("Gather", embedding.behavior, "behavior"))
    hidden = pooled(hidden)
    if embedding.gap is not None:
        hidden = graph("Add", hidden, graph("Gather", embedding.gap, "gap"))
    if embedding.value is not None:
        standard = graph("Div", graph("Sub", "value", embedding.value_mean), embedding.value_scale)
        standard = graph("Where", "has_value", standard, 0.0)
        for number, direction in zip((standard, graph("Cast", "has_value", to=1)), embedding.value, strict=True):
            of_number = graph("Mul", graph("Unsqueeze", number, [-1]), direction)
            hidden = graph("Add", hidden, pooled(of_number))
    return hidden


def _after_block(graph: _Graph, block: EncoderBlock, hidden: str, bias: str) -> str:
    """The stream after a block, see `CausalSelfAttention.forward`."""
    attention = block.attention
    heads, width = attention.num_heads, attention.output.in_features
    projected = graph.linear(graph.norm(hidden, block.attention_norm), attention.query_key_value)
    # A zero keeps the size of an axis. Then: query, key and value × head × tree × token × dimension.
    projected = graph("Reshape", projected, [0, 0, 3, heads, width // heads])
    projected = graph("Transpose", projected, perm=[2, 3, 0, 1, 4])
    query, key, value = (graph("Gather", projected, torch.tensor(number), axis=0) for number in range(3))
    energy = graph("MatMul", query, graph("Transpose", key, perm=[0, 1, 3, 2]))
    energy = graph("Add", graph("Mul", energy, 1 / math.sqrt(width // heads)), bias)
    context = graph("MatMul", graph("Softmax", energy, axis=3), value)
    context = graph("Reshape", graph("Transpose", context, perm=[1, 2, 0, 3]), [0, 0, width])
    hidden = graph("Add", hidden, graph.linear(context, attention.output))
    transformed = graph.feed_forward(graph.norm(hidden, block.feed_forward_norm), block.feed_forward)
    return graph("Add", hidden, transformed)


def _normalized_mean(graph: _Graph, latent: LatentHead, hidden: str) -> str:
    """The mean of the posterior of every token, see `LatentHead.forward`."""
    mean, scale = graph.mapped(hidden, latent.mean), latent.mean_scale
    return mean if scale is None else graph("Mul", graph.norm(mean, latent.norm), scale)


def _energy(graph: _Graph, attention: DotProductAttention, query: str, key: str) -> str:
    """The energy of every pair of branch and token, see `DotProductAttention.energy` and `AdditiveAttention.energy`."""
    query, key = graph.linear(query, attention.query), graph.linear(key, attention.key)
    if not isinstance(attention, AdditiveAttention):
        energy = graph("MatMul", query, graph("Transpose", key, perm=[0, 2, 1]))
        return graph("Mul", energy, 1 / math.sqrt(attention.query.out_features))
    hidden = graph("Tanh", graph("Add", graph("Unsqueeze", query, [2]), graph("Unsqueeze", key, [1])))
    # As a product of a matrix and a vector this is six times slower in ONNX Runtime.
    return graph("ReduceSum", graph("Mul", hidden, attention.score), [3], keepdims=0)
