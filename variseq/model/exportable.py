"""The part of the network that a server runs, the preferences at the end of histories, and how it becomes a file."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from variseq.errors import MissingDependencyError
from variseq.model.layers import (
    MAX_LOG_VARIANCE,
    MIN_LOG_VARIANCE,
    BatchNorm,
    EncoderBlock,
    Pooling,
    Tokens,
    distance_bucket,
)
from variseq.model.network import Network
from variseq.ranking.encoding import INPUTS, OUTPUTS

OPSET = 23
UNSEEN = -80.0
"""The energy of tokens that cannot be seen: their weight, e⁻⁸⁰, is lost in rounding. Lower energies give subnormal
numbers in the softmax, which are seven times slower."""


def distance_biases(network: Network) -> Float[Tensor, "block head distance_plus_one"]:
    """The bias of each block and head by distance between two tokens; the last is for tokens that cannot be seen."""
    bucket = distance_bucket(torch.arange(network.config.max_seq_len))
    seen = torch.stack([block.attention.distance_bias[:, bucket] for block in _blocks(network)]).detach()
    return torch.cat([seen, torch.full_like(seen[..., :1], UNSEEN)], dim=2)


def encoder_tables(network: Network) -> dict[str, np.ndarray]:
    """The arrays of the encoder that are no part of its file."""
    return {
        "start_vector": network.embedding.vectors()[-1].detach().cpu().numpy(),
        "distance_biases": distance_biases(network).cpu().numpy(),
    }


class LastPreference(nn.Module):
    """The same numbers as `preferences`, over prefix trees of tokens.

    A row holds one history, or several that share their beginning. `bias` is `distance_biases` of each pair of tokens;
    it decides which tokens a token can see. The last encoder block is computed at all positions, because the decoder
    attends over all posteriors.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        config = network.config
        self.network = network.folded().eval()
        self.mean_shift: Tensor
        self.mean_factor: Tensor
        shift, factor, norm = torch.zeros(config.latent_dim), torch.ones(config.latent_dim), network.latent.norm
        if config.bn_gamma is not None:
            factor = factor * config.bn_gamma
            if isinstance(norm, BatchNorm):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                shift, factor = norm.running_mean, torch.rsqrt(norm.running_var + norm.eps) * config.bn_gamma
        self.norm = norm if isinstance(norm, nn.RMSNorm) and config.bn_gamma is not None else nn.Identity()
        self.register_buffer("mean_shift", shift)
        self.register_buffer("mean_factor", factor)

    def forward(
        self,
        tokens: Tokens,
        vectors: Float[Tensor, "row hidden"],
        bias: Float[Tensor, "block head tree token token"],
        query: Int[Tensor, "tree branch"],
        offset: Int[Tensor, "tree branch token"],
        noise: Float[Tensor, "sample position latent"],
    ) -> tuple[
        Float[Tensor, "sample tree branch hidden"], Float[Tensor, "tree branch"], Float[Tensor, "tree branch token"]
    ]:
        """At the token where each branch ends: the preferences, the mean log σ², the weights of the attention.

        The item of a token is a row of `vectors`. Branches end at the tokens `query`. `offset` is the distance of each
        token from the end of its branch, −1 where it cannot be seen; it is the index of the noise.
        """
        embedding = self.network.embedding
        tokens, pool = _of_visits(tokens)
        hidden = embedding(tokens, vectors, pool)
        for number, block in enumerate(_blocks(self.network)):
            hidden = self._block(block, hidden, bias[number])
        hidden = self.network.encoder.norm(hidden)
        latent = self.network.latent
        mean = (self.norm(latent.mean(hidden)) - self.mean_shift) * self.mean_factor
        log_variance = latent.log_variance(hidden).clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
        sigma = torch.exp(0.5 * log_variance)
        posteriors = mean[:, None] + sigma[:, None] * noise[:, offset.clamp(min=0)]
        at_end = query[:, :, None].expand(-1, -1, mean.shape[2])
        query_mean = mean.gather(1, at_end)
        energy = self.network.decoder.attention.energy(query_mean, mean)
        weights = torch.softmax(energy.masked_fill(offset < 0, UNSEEN), dim=2)
        own = query_mean + sigma.gather(1, at_end) * noise[:, :1, None]
        preference = self.network.decoder.preference(own, (weights.unsqueeze(2) @ posteriors).squeeze(3))
        return preference, log_variance.gather(1, at_end).mean(dim=2), weights

    def _block(self, block: EncoderBlock, hidden: Tensor, bias: Float[Tensor, "head tree token token"]) -> Tensor:
        attention, normed = block.attention, block.attention_norm(hidden)
        head_width = hidden.shape[2] // attention.num_heads
        projected = attention.query_key_value(normed).reshape(*hidden.shape[:2], 3, attention.num_heads, head_width)
        query, key, value = projected.permute(2, 3, 0, 1, 4).unbind(0)
        energy = query @ key.transpose(2, 3) * (1 / math.sqrt(head_width)) + bias
        context = (torch.softmax(energy, dim=3) @ value).permute(1, 2, 0, 3).flatten(2)
        hidden = hidden + attention.output(context)
        transformed: Tensor = block.feed_forward(block.feed_forward_norm(hidden))
        return hidden + transformed


def _of_visits(tokens: Tokens) -> tuple[Tokens, Pooling | None]:
    """Where a token is a visit, the items have one axis more than the gaps: the events, filled up with −1."""
    item, behavior, gap, value, has_value = tokens
    if item.dim() == gap.dim():
        return tokens, None
    is_event = item >= 0
    number = is_event.sum(dim=2, keepdim=True).clamp(min=1)
    weight = (is_event * torch.rsqrt(number.float())).unsqueeze(-1)
    return (item.clamp(min=0), behavior, gap, value, has_value), lambda one: (one * weight).sum(dim=2)


def _blocks(network: Network) -> list[EncoderBlock]:
    return [block for block in network.encoder.blocks if isinstance(block, EncoderBlock)]


def require_exporter() -> None:
    """Raises MissingDependencyError where no encoder can be written."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnx and onnxscript", "train") from error


def write_encoder(network: Network, path: Path) -> None:
    """The network as ONNX, for trees of any number and hidden_size; a history has at most `max_seq_len` tokens."""
    require_exporter()
    config = network.config
    tokens, vectors = min(7, config.max_seq_len), torch.zeros(5, config.hidden_size)
    gap = torch.zeros(3, tokens, dtype=torch.int64)
    of_events = (3, tokens) if config.visit_gap is None else (3, tokens, 5)
    item, behavior = torch.zeros(of_events, dtype=torch.int64), torch.zeros(of_events, dtype=torch.int64)
    value, has_value = torch.zeros(of_events), torch.zeros(of_events, dtype=torch.bool)
    bias = torch.zeros(config.num_layers, config.num_heads, 3, tokens, tokens)
    query, position = torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2, tokens, dtype=torch.int64)
    noise = torch.zeros(2, tokens, config.latent_dim)
    names = ("tree", "token", "branch", "sample", "row")
    tree, token, branch, sample, row = (torch.export.Dim(name) for name in names)
    cells, pairs = {0: tree, 1: token}, {2: tree, 3: token, 4: token}
    events = cells if config.visit_gap is None else {**cells, 2: torch.export.Dim("event")}
    ends = ({0: tree, 1: branch}, {0: tree, 1: branch, 2: token}, {0: sample, 1: torch.export.Dim("position")})
    shapes = ((events, events, cells, events, events), {0: row}, pairs, *ends)
    given = ((item, behavior, gap, value, has_value), vectors, bias, query, position, noise)
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            LastPreference(network),
            given,
            str(path),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own insides; what they made is held against the network in the tests."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
