"""The value of the next event: a smoother of the person's residuals, one for two values, and a second task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.model.layers import drop, embedding_vectors

VALUE_HEADS, VALUE_HEAD_WIDTH = 4, 8
"""How many kernels the value head has, and how many numbers each has of an item."""
LARGEST_ENERGY = 8.0
"""One earlier value counts for at most e⁸ = 3,000."""
TWO_VALUED_WIDTH, TWO_VALUED_STATE = 32, 64
"""How many numbers the head of two values has of an item, and of a person."""
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class ValueEstimate:
    """A Gaussian for the value of each event, in standardised units.

    With the logistic loss the mean is the log-odds of the larger one of two values, and the log-variance is 0.
    """

    mean: Float[Tensor, "*token"]
    log_variance: Float[Tensor, "*token"]


class _OfItems(nn.Module):
    """What both heads have of each item, and last of the start token: a vector, and the bias and number of its values.

    `spread` is a factor of all standard deviations.
    """

    def __init__(self, num_items: int, width: int, bias: float, dropout: float) -> None:
        super().__init__()
        self.vector = embedding_vectors(num_items + 1, width)
        self.dropout = dropout
        self.bias: Tensor
        self.count: Tensor
        self.spread: Tensor
        self.register_buffer("bias", torch.full((num_items + 1,), bias))
        self.register_buffer("count", torch.zeros(num_items + 1))
        self.register_buffer("spread", torch.ones(()))


class ValueHead(_OfItems):
    """The value of an event, given its item, its time, and the person's earlier values.

    The residual r of an earlier value is what the item's bias b leaves of it. Head h averages them with weights that
    fall with the time since and grow with the likeness of the items, and shrinks the average as c events with residual
    0 would do it (a kernel smoother; Nadaraya 1964, Watson 1964):

        w_hs = exp(a_h U_hiᵀ U_hs) · (1 + Δt_s / τ_h)^−γ_h,    m_h = Σ_s w_hs r_s / (c_h + Σ_s w_hs).

    With U = 0 this is a running bias of the person. Mean = b_i + Σ_h f_h m_h + a small network of b_i, of the number of
    values that it is counted from, of m and of the masses Σ w; the log-variance is another output of that network. All
    are in standardised units. Nothing of the encoder is used: it made these forecasts no better (development/log.md).
    """

    def __init__(self, num_items: int, dropout: float) -> None:
        super().__init__(num_items, VALUE_HEADS * VALUE_HEAD_WIDTH, 0.0, dropout)
        self.sharpness = nn.Parameter(torch.full((VALUE_HEADS,), 3.0))
        self.log_time = nn.Parameter(torch.linspace(math.log(60.0), math.log(4e6), VALUE_HEADS))
        self.power = nn.Parameter(torch.zeros(VALUE_HEADS))
        self.log_prior = nn.Parameter(torch.full((VALUE_HEADS,), math.log(3.0)))
        self.factor = nn.Parameter(torch.full((VALUE_HEADS,), 1 / VALUE_HEADS))
        self.hidden = nn.Linear(2 * VALUE_HEADS + 2, 32)
        self.output = nn.Linear(32, 2)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        item: Int[Tensor, "history query"],
        time: Int[Tensor, "history query"],
        position: Int[Tensor, "history query"],
        earlier_item: Int[Tensor, "history key"],
        earlier_time: Int[Tensor, "history key"],
        earlier_value: Float[Tensor, "history key"],
    ) -> ValueEstimate:
        """From the earlier events at or before `position`; times in microseconds, a value that is not there is NaN."""
        residual = earlier_value - self.bias[earlier_item]
        known = residual.isfinite()
        query, key = self._heads_of(item), self._heads_of(earlier_item)
        ago = (time.unsqueeze(2) - earlier_time.unsqueeze(1)).clamp(min=0).float() / MICROSECONDS_PER_SECOND
        decay = torch.log1p(ago.unsqueeze(1) / _by_head(self.log_time.exp()))
        energy = (
            _by_head(self.sharpness) * (query @ key.transpose(2, 3)) - _by_head(functional.softplus(self.power)) * decay
        )
        sees = (torch.arange(earlier_item.shape[1], device=item.device) <= position.unsqueeze(2)) & known.unsqueeze(1)
        weight = torch.exp(energy.clamp(max=LARGEST_ENERGY)) * sees.unsqueeze(1)
        mass = weight.sum(dim=3)
        total = (weight @ torch.where(known, residual, 0.0)[:, None, :, None]).squeeze(3)
        mean = (total / (self.log_prior.exp()[:, None] + mass)).transpose(1, 2)
        bias = self.bias[item]
        counted = torch.stack([bias, torch.log1p(self.count[item])], dim=2)
        found = torch.cat([mean, torch.log1p(mass).transpose(1, 2), counted], dim=2)
        correction, log_variance = self.output(torch.tanh(self.hidden(found))).unbind(2)
        log_variance = log_variance.clamp(-6.0, 4.0) + 2 * torch.log(self.spread)
        return ValueEstimate(bias + mean @ self.factor + correction, log_variance)

    def _heads_of(self, item: Int[Tensor, "history token"]) -> Float[Tensor, "history head token share"]:
        vector = drop(functional.embedding(item, self.vector), self.dropout, self.training)
        return vector.view(*item.shape, VALUE_HEADS, VALUE_HEAD_WIDTH).transpose(1, 2)


class TwoValuedHead(_OfItems):
    """The log-odds of the larger one of two values (correct or not, liked or not); the smaller one is 0, the larger 1.

    Deep knowledge tracing (Piech et al. 2015): a recurrent network (GRU; Cho et al. 2014) reads the earlier items, each
    with its value. From its state h the log-odds of item i are those of the item's share of larger values, plus
    a(h) + v_iᵀ B h. The vectors v are those that it reads, so that it has one table of items. Times are not used.
    """

    def __init__(self, num_items: int, dropout: float) -> None:
        width, state = TWO_VALUED_WIDTH, TWO_VALUED_STATE
        super().__init__(num_items, width, 0.5, dropout)
        self.scale = math.sqrt(width)
        self.cell = nn.GRU(2 * width + 1, state, batch_first=True)
        self.output = nn.Linear(state, width + 1)

    def forward(
        self,
        item: Int[Tensor, "history query"],
        time: Int[Tensor, "history query"],
        position: Int[Tensor, "history query"],
        earlier_item: Int[Tensor, "history key"],
        earlier_time: Int[Tensor, "history key"],
        earlier_value: Float[Tensor, "history key"],
    ) -> ValueEstimate:
        """As `ValueHead`, from the earlier events at or before `position`."""
        sign = torch.nan_to_num(2 * earlier_value - 1).unsqueeze(2)
        earlier = self.scale * functional.embedding(earlier_item, self.vector)
        state, _ = self.cell(torch.cat([earlier, sign * earlier, sign], dim=2))
        # Before the first event the state is 0.
        state = drop(functional.pad(state, (0, 0, 1, 0)), self.dropout, self.training)
        state = state.gather(1, (position + 1).unsqueeze(2).expand(-1, -1, state.shape[2]))
        of_items, of_all = self.output(state).split([TWO_VALUED_WIDTH, 1], dim=2)
        added = of_all.squeeze(2) + self.scale * (of_items * functional.embedding(item, self.vector)).sum(dim=2)
        log_odds = torch.logit(self.bias[item], eps=LEAST_SHARE) + added
        return ValueEstimate(log_odds, torch.zeros_like(log_odds))


class ValueTask(nn.Module):
    """The value of the next event from the preference alone, as a second task of training.

    Mean and log-variance are linear in P_t ⊙ (V E_i), the agreement of preference and item, plus E_i itself. Its
    gradient reaches the encoder; what that is worth is in development/log.md. Forecasts are those of `ValueHead`.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.item = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(2 * hidden_size, 2)

    def forward(self, preference: Float[Tensor, "row hidden"], item: Float[Tensor, "row hidden"]) -> ValueEstimate:
        projected = self.item(item)
        mean, log_variance = self.output(torch.cat([preference * projected, projected], dim=1)).unbind(1)
        return ValueEstimate(mean, log_variance.clamp(-6.0, 4.0))


def _by_head(numbers: Float[Tensor, " head"]) -> Float[Tensor, "head 1 1"]:
    return numbers[:, None, None]
