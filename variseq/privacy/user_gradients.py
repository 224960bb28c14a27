"""The gradient of the network's objective for each user of a batch, and their sum after each is clipped to a norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from variseq.model import losses
from variseq.model.attention import AdditiveAttention
from variseq.model.network import Network, Weights
from variseq.privacy.noise import GRID
from variseq.sequences.batches import Batch, Layout

OF_ITEMS = ("embedding.item", "embedding.category", "embedding.content_map")
"""Parameters that the item vectors are made of."""
LEAST_TOKENS, MOST_TOKENS = 32, 512
"""A block of the softmax has at least and at most so many tokens."""
BIAS, VALUE_VECTOR = "item_bias", "value_head.vector"


@dataclass(frozen=True, eq=False)
class UserGradients:
    """The gradients of each user.

    Args:
        of_users: For each parameter that is trained, by its name; the first axis is that of the users.
        rows: The rows of parameters with a row for each item that the gradients are of; None: all rows.
    """

    of_users: dict[str, Tensor]
    rows: Int[Tensor, " row"] | None

    def norms(self) -> Float[Tensor, " user"]:
        """The norm of each user's gradient over all parameters together. It is not private."""
        norms = [torch.linalg.vector_norm(one.flatten(1), dim=1).double() for one in self.of_users.values()]
        return torch.linalg.vector_norm(torch.stack(norms), dim=0)

    def factors(self, max_norm: float) -> Float[Tensor, " user"]:
        """What each user's gradient is multiplied by, so that its norm is at most `max_norm`; 0 for no number."""
        norms = self.norms()
        return torch.where(norms.isfinite(), (max_norm / norms.clamp(min=1e-30)).clamp(max=1.0), 0.0)

    def clipped_steps(self, max_norm: float, like: Mapping[str, Tensor]) -> dict[str, Int[Tensor, "*number"]]:
        """The sum over users of their clipped gradients over `max_norm`, in whole steps of `GRID`.

        A user adds a vector of whole numbers whose norm is at most 1 / `GRID`, exactly, as they are rounded toward
        zero. So noise on the grid hides a user, and sums over parties are exact.

        Args:
            max_norm: The largest norm of a user's gradient over all parameters together.
            like: Tensors with the shape of each parameter.
        """
        # Room for the rounding of norms in float32, and for a number that falls on the next step; see `clipped_sum`.
        factor = self.factors(max_norm) * ((1 - 1e-4) / (max_norm * GRID))
        assert len(factor) * GRID**-1 < 2**24, "sums of so many users are not exact in float32"
        found = {}
        for name, one in self.of_users.items():
            scaled = one * factor.to(one.dtype).view(-1, *[1] * (one.dim() - 1))
            if not factor.all():
                scaled.nan_to_num_(0.0, 0.0, 0.0)
            steps = scaled.trunc_().sum(dim=0).long()
            if self.rows is not None and name in (OF_ITEMS[0], BIAS, VALUE_VECTOR):
                rows = self.rows if len(like[name]) > int(self.rows[-1]) else self.rows[:-1]
                steps = torch.zeros_like(like[name], dtype=torch.int64).index_copy(0, rows, steps[: len(rows)])
            found[name] = steps
        return found


def user_gradients(
    network: Network, batch: Batch, weights: Weights, negatives: losses.Negatives | None = None
) -> UserGradients:
    """The gradients of `Network.objective` of each history of a batch alone, for all parameters that require one.

    The body of the network runs once on all users with weights of their own (`torch.func.vmap`); the softmax, whose
    gradient of the item vectors is dense, runs once a user, or once in all where no item vector is trained. A history
    without a target has the gradient zero.

    Args:
        network: No ensemble; without dropout, visits and values of two kinds, whose recurrent head `vmap` cannot run.
        batch: One window for each user.
        weights: Of the terms of the objective; free nats and skip-grams mix positions and are not possible.
        negatives: Shared by all users, and drawn without looking at any of them; None: the softmax is over all items.
    """
    config = network.config
    is_recurrent = config.has_values and config.value_loss == "logistic"
    if config.dropout or config.visit_gap is not None or is_recurrent or config.num_members > 1:
        raise ValueError("gradients of users need one member, dropout=0, no visits and no values of two kinds")
    if weights.free_nats or weights.skip_gram:
        raise ValueError("gradients of users need free_nats=0 and skip_gram=0")
    return _Pass.of(network, batch, weights, negatives).gradients()


class _OneUser(nn.Module):
    """The network on the window of one user, whose rows of items stand in for all items."""

    def __init__(self, network: Network, weights: Weights) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(
        self, columns: dict[str, Tensor], length: Int[Tensor, ""], rows: Float[Tensor, "row hidden"]
    ) -> tuple[Float[Tensor, "sample token hidden"], Float[Tensor, ""]]:
        """The preferences, and the terms of the objective besides the softmax."""
        network, weights, longest = self.network, self.weights, len(columns["gap"])
        index = torch.arange(longest, device=rows.device)
        layout = Layout(1, longest, index, torch.tensor([longest], device=rows.device))
        batch = Batch(item=index, target_item=longest + index, layout=layout, **columns)
        posterior = network.encode(batch, rows)
        preference = network._preferences(posterior, batch, weights.noise, weights.num_samples)
        is_token = (index < length).unsqueeze(1)
        kl = torch.where(is_token, posterior.kl_to_prior(), 0.0).sum() / length.clamp(min=1)
        loss = weights.beta * kl
        if network.value_head is not None and weights.regression > 0:
            value = network.embedding.standardise(batch.target_value)
            regression = losses.value_loss(network.values(batch), value, network.config.value_loss)
            of_task = network._value_task_loss(preference, rows[longest:], batch.target_value)
            loss = loss + weights.regression * (regression + of_task)
        return preference, loss


class _ItemVectors(nn.Module):
    """The item vectors as a forward pass, which `functional_call` needs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self) -> Float[Tensor, "item_and_start hidden"]:
        return self.network.embedding.vectors()


@dataclass(frozen=True, eq=False)
class _Pass:
    """One batch: its windows as a rectangle, and the item vectors and biases that it needs.

    `made_of` are the parameters that the vectors are made of, with a graph from them to `vectors`.
    """

    network: Network
    batch: Batch
    weights: Weights
    negatives: losses.Negatives | None
    rows: Int[Tensor, " row"] | None
    made_of: dict[str, Tensor]
    vectors: Float[Tensor, "row hidden"]
    bias: Float[Tensor, " item"]

    @classmethod
    def of(cls, network: Network, batch: Batch, weights: Weights, negatives: losses.Negatives | None) -> _Pass:
        named = dict(network.named_parameters())
        tensors = {name: named[name].detach() for name in (*OF_ITEMS, BIAS) if name in named}
        rows = None
        if negatives is not None:
            # Only these rows have a gradient.
            rows = batch.rows(negatives.items, start=network.config.num_items)
            batch, negatives = batch.among(rows), negatives.among(rows)
            tensors[OF_ITEMS[0]], tensors[BIAS] = tensors[OF_ITEMS[0]][rows], tensors[BIAS][rows[:-1]]
        made_of = {
            name: tensors[name].requires_grad_() for name in OF_ITEMS if name in named and named[name].requires_grad
        }
        replaced = tensors if rows is None else tensors | network.of_rows(rows)
        vectors = functional_call(_ItemVectors(network), {f"network.{name}": one for name, one in replaced.items()}, ())
        return cls(network, batch, weights, negatives, rows, made_of, vectors, tensors[BIAS])

    def gradients(self) -> UserGradients:
        network, layout = self.network, self.batch.layout
        named = {name: one for name, one in network.named_parameters() if one.requires_grad}
        users = layout.num_histories
        item, target = layout.rectangle(self.batch.item), layout.rectangle(self.batch.target_item)
        both = torch.cat([item, target], dim=1)
        of_users = {
            name: one.detach().expand(users, *one.shape).requires_grad_()
            for name, one in named.items()
            if name not in (*OF_ITEMS, BIAS, VALUE_VECTOR)
        }
        found = functional.embedding(both, self.vectors.detach()).requires_grad_()
        tensors, looked_up = dict(of_users), {"rows": found}
        if network.value_head is not None:
            all_rows = both if self.rows is None else self.rows[both]
            tensors |= {f"value_head.{name}": getattr(network.value_head, name)[all_rows] for name in ("bias", "count")}
            tensors[VALUE_VECTOR] = functional.embedding(all_rows, network.value_head.vector.detach()).requires_grad_()
            looked_up[VALUE_VECTOR] = tensors[VALUE_VECTOR]
        preference, others = self._body(tensors, found)
        of_softmax, of_vectors, of_bias = self._softmax(preference.detach(), BIAS in named)
        has_target = torch.zeros_like(others).index_fill(0, self._targets()[0], 1.0)
        wanted = [*of_users.values(), *looked_up.values()]
        outputs, given = (preference, others), (of_softmax, has_target)
        grads = torch.autograd.grad(outputs, wanted, given, materialize_grads=True)
        gradients = dict(zip((*of_users, *looked_up), grads, strict=True))
        of_rows = gradients.pop("rows")
        if of_vectors is not None:
            gradients |= self._of_made(_added(of_vectors, both, of_rows))
        if BIAS in named:
            assert of_bias is not None
            gradients[BIAS] = of_bias
        if (of_value := gradients.pop(VALUE_VECTOR, None)) is not None and VALUE_VECTOR in named:
            number = len(named[VALUE_VECTOR]) if self.rows is None else len(self.rows)
            gradients[VALUE_VECTOR] = _added(of_value.new_zeros(users, number, of_value.shape[2]), both, of_value)
        return UserGradients({name: gradients[name] for name in named}, self.rows)

    def _body(
        self, tensors: dict[str, Tensor], rows: Float[Tensor, "user row hidden"]
    ) -> tuple[Float[Tensor, "user sample token hidden"], Float[Tensor, " user"]]:
        batch, layout = self.batch, self.batch.layout
        value = batch.target_value if batch.is_target is None else batch.target_value.where(batch.is_target, torch.nan)
        names = ("behavior", "gap", "value", "time", "target_time")
        columns = {name: layout.rectangle(getattr(batch, name)) for name in names}
        # A value that is not there has no loss.
        columns["target_value"] = layout.rectangle(value).masked_fill(self._is_empty(), torch.nan)
        module = _OneUser(self.network, self.weights)

        def of_user(
            own: dict[str, Tensor], columns: dict[str, Tensor], length: Tensor, rows: Tensor
        ) -> tuple[Tensor, ...]:
            named = {f"network.{name}": one for name, one in own.items()}
            found: tuple[Tensor, ...] = functional_call(module, named, (columns, length, rows))
            return found

        with _in_one_piece(self.network):
            preference, others = torch.vmap(of_user, randomness="different")(tensors, columns, layout.lengths, rows)
        return preference, others

    def _is_empty(self) -> Bool[Tensor, "user longest"]:
        layout = self.batch.layout
        return torch.arange(layout.longest, device=layout.lengths.device) >= layout.lengths.unsqueeze(1)

    def _targets(self) -> tuple[Int[Tensor, " target"], Int[Tensor, " target"], Int[Tensor, " target"]]:
        """Of each target its user, its position in the rectangle, and its item."""
        layout = self.batch.layout
        token, item, _ = self.batch.targets()
        slot = layout.slot if token is None else layout.slot[token]
        return slot // layout.longest, slot % layout.longest, item

    def _softmax(
        self, preference: Float[Tensor, "user sample token hidden"], trains_bias: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The gradients of the softmax: of the preferences, and for each user of the item vectors and the biases."""
        user, position, target = self._targets()
        num_items = len(self.bias)
        seen = losses.Pairs(*self.batch.seen(num_items)) if self.weights.mask_seen else None
        of_preference = torch.zeros_like(preference)
        number = torch.bincount(user, minlength=len(preference))
        vectors, bias = self.vectors.detach(), self.bias.detach()
        if not self.made_of and not trains_bias:
            rows = preference[user, :, position].transpose(0, 1)
            grad = self._of_preferences(rows, target, seen) / number[user].to(rows.dtype).unsqueeze(1)
            of_preference[user, :, position] = grad.transpose(0, 1)
            return of_preference, None, None
        of_vectors = preference.new_zeros(len(preference), *vectors.shape)
        of_bias = preference.new_zeros(len(preference), num_items)
        vectors, bias = vectors[:num_items].requires_grad_(), bias.requires_grad_()
        for row in torch.nonzero(number).flatten().tolist():
            own = user == row
            rows = preference[row][:, position[own]].contiguous().requires_grad_()
            of_seen = None if seen is None else seen.of_tokens(own)
            loss = losses.softmax_loss(rows, vectors, bias, losses.Targets.next(target[own]), self.negatives, of_seen)
            grads = torch.autograd.grad(loss, (rows, vectors, bias))
            of_preference[row, :, position[own]], of_vectors[row, :num_items], of_bias[row] = grads
        return of_preference, of_vectors if self.made_of else None, of_bias

    def _of_preferences(
        self,
        preference: Float[Tensor, "sample token hidden"],
        target: Int[Tensor, " token"],
        seen: losses.Pairs | None,
    ) -> Float[Tensor, "sample token hidden"]:
        """The gradient of the softmax of each token.

        Tokens are worked on in blocks of one size, a power of two, which the last ones are filled up to, and with a
        bound on their norms that follows from the weights. So the last bits of a gradient do not depend on the other
        tokens.
        """
        vectors, bias = self.vectors.detach()[: len(self.bias)], self.bias.detach()
        num_tokens = losses.CHUNK_NUMBERS // (len(bias) if self.negatives is None else len(self.negatives.items))
        size = min(MOST_TOKENS, max(LEAST_TOKENS, 1 << (max(1, num_tokens).bit_length() - 1)))
        filled = -(-len(target) // size) * size - len(target)
        rows, target = functional.pad(preference, (0, 0, 0, filled)), functional.pad(target, (0, filled))
        found, ((_, _, decoder),) = torch.empty_like(rows), self.network.members()
        # The norm of what an RMS norm gives; a little more, for rounding.
        max_norm = 1.001 * rows.shape[-1] ** 0.5 * float(decoder.norm.weight.detach().abs().max())
        for first in range(0, len(target), size):
            block, own = rows[:, first : first + size].contiguous().requires_grad_(), target[first : first + size]
            of_block = None if seen is None else seen.between(first, first + size)
            targets = losses.Targets.next(own)
            loss = losses.softmax_loss(block, vectors, bias, targets, self.negatives, of_block, max_norm)
            found[:, first : first + size] = torch.autograd.grad(loss, block)[0] * size
        return found[:, : len(target) - filled]

    def _of_made(self, of_vectors: Float[Tensor, "user row hidden"]) -> dict[str, Tensor]:
        """The gradients of what the item vectors are made of."""
        if tuple(self.made_of) == OF_ITEMS[:1] and not self.network.embedding.is_sum:
            return {OF_ITEMS[0]: of_vectors}
        each = [
            torch.autograd.grad(self.vectors, list(self.made_of.values()), one, retain_graph=True) for one in of_vectors
        ]
        return {name: torch.stack(grads) for name, grads in zip(self.made_of, zip(*each, strict=True), strict=True)}


@contextmanager
def _in_one_piece(network: Network) -> Iterator[None]:
    """With the attention in plain operations, as its kernel in chunks has one set of weights for all users."""
    found = [decoder.attention for _, _, decoder in network.members()]
    additive = [one for one in found if isinstance(one, AdditiveAttention)]
    for one in additive:
        one.in_chunks = False
    try:
        yield
    finally:
        for one in additive:
            one.in_chunks = True


def _added(
    tables: Float[Tensor, "user row size"], row: Int[Tensor, "user index"], numbers: Float[Tensor, "user index size"]
) -> Float[Tensor, "user row size"]:
    """The tables of users with numbers added to some rows, in place."""
    users, num_rows, size = tables.shape
    flat = (torch.arange(users, device=row.device).unsqueeze(1) * num_rows + row).flatten()
    tables.view(users * num_rows, size).index_add_(0, flat, numbers.reshape(-1, size))
    return tables
