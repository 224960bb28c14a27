"""A recurrent recommender network: ratings from states of users and of items over wall-clock time.

Source: Wu, Ahmed, Beutel, Smola and Jing, "Recurrent recommender networks" (WSDM 2017). It is a competitor of
`python -m benchmarks.values`, and no part of the package.

A rating of item j by user i in step t is mean + b_i + b_j + ⟨p_i, q_j⟩ + ⟨A h_it + a, B g_jt + b⟩. The stationary
biases and factors are those of matrix factorization. The states h and g are those of two LSTMs. A step is a fixed
time, and an LSTM moves on in the steps in which its user (item) has a rating. Its input has the ratings of the last
such step through a linear map, whether there was none yet, the time of the step and that since the last one. So a
forecast knows what was rated in earlier steps, and nothing of its own step.

Both sides are trained by turns while the states of the other are fixed, as in the paper. Not as in the paper: ratings
of a step are divided by the root of their number, and there is no training of the factors before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from variseq.sequences.histories import ragged_index

DAY_SECONDS = 86_400.0
STATES_AT_ONCE = 40_000


@dataclass(frozen=True)
class RrnOptions:
    """How the network is trained. Without `has_states` it is a biased matrix factorization."""

    width: int = 16
    user_step_days: float = 7.0
    item_step_days: float = 7.0
    penalty: float = 0.3
    learning_rate: float = 5e-3
    batch_ratings: int = 2_000
    max_epochs: int = 60
    patience: int = 6
    dropout: float = 0.5
    has_states: bool = True
    """The defaults are the best of a few on validation of MovieLens-100K split by time."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Who rated what, when (seconds), and how."""

    user: Int[np.ndarray, " rating"]
    item: Int[np.ndarray, " rating"]
    seconds: Float[np.ndarray, " rating"]
    value: Float[np.ndarray, " rating"]
    num_users: int
    num_items: int


class Steps:
    """The steps of each owner (user or item) that have a rating, and the ratings of each step."""

    def __init__(
        self, owner: Int[np.ndarray, " rating"], other: Int[np.ndarray, " rating"], step: np.ndarray, num_owners: int
    ) -> None:
        num_steps = int(step.max()) + 1
        pairs, self.of_rating = np.unique(owner * num_steps + step, return_inverse=True)
        self.offsets = np.searchsorted(pairs // num_steps, np.arange(num_owners + 1))
        self.ratings = np.argsort(self.of_rating, kind="stable")
        self.rating_offsets = np.searchsorted(self.of_rating[self.ratings], np.arange(len(pairs) + 1))
        self.other = other
        now = (pairs % num_steps) / num_steps
        is_first = np.zeros(len(pairs), dtype=bool)
        is_first[self.offsets[:-1][np.diff(self.offsets) > 0]] = True
        last = np.where(is_first, now, np.roll(now, 1))
        self.clock = torch.tensor(np.stack([is_first, now, now - last], axis=1), dtype=torch.float32)

    def batches(self, owners: Int[np.ndarray, " owner"], most: int) -> Iterator[Int[np.ndarray, " some"]]:
        """Owners in batches of about so many steps when they are padded."""
        lengths = np.diff(self.offsets)[owners]
        owners = owners[np.argsort(lengths, kind="stable")]
        lengths = np.sort(lengths)
        begin = 0
        while begin < len(owners):
            end = begin + max(1, int(np.searchsorted(lengths[begin:] * np.arange(1, len(owners) - begin + 1), most)))
            yield owners[begin:end]
            begin = end


class Side(nn.Module):
    """Users or items: stationary biases and factors, and states."""

    def __init__(self, num_owners: int, num_others: int, options: RrnOptions) -> None:
        super().__init__()
        width = options.width
        self.has_states = options.has_states
        self.bias = nn.Embedding(num_owners, 1)
        self.factors = nn.Embedding(num_owners, width)
        self.rated = nn.Embedding(num_others, width)
        self.clock = nn.Linear(3, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.drop = nn.Dropout(options.dropout)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.bias.weight)
        nn.init.normal_(self.factors.weight, std=0.05)
        nn.init.normal_(self.rated.weight, std=0.3)

    def states(
        self, steps: Steps, owners: Int[np.ndarray, " owner"], given: Float[Tensor, " rating"]
    ) -> tuple[Int[np.ndarray, " step"], Float[Tensor, "step width"]]:
        """The steps of some owners, and what their states give; `given` is 0 for ratings that are not known."""
        first, lengths = steps.offsets[owners], np.diff(steps.offsets)[owners]
        numbers = ragged_index(first, lengths)
        if not self.has_states or not len(numbers):
            return numbers, torch.zeros(len(numbers), self.out.out_features)
        row = np.repeat(np.arange(len(owners)), lengths)
        position = np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        size = np.diff(steps.rating_offsets)[numbers]
        ratings = steps.ratings[ragged_index(steps.rating_offsets[numbers], size)]
        step_of_rating = torch.from_numpy(np.repeat(np.arange(len(numbers)), size))
        weight = given[ratings] / torch.from_numpy(np.sqrt(np.repeat(size, size))).float()
        of_ratings = self.rated(torch.from_numpy(steps.other[ratings])) * weight[:, None]
        total = torch.zeros(len(numbers), of_ratings.shape[1]).index_add(0, step_of_rating, of_ratings)
        # The input of a step has the ratings of the one before it.
        before = torch.cat([torch.zeros_like(total[:1]), total[:-1]]) * torch.from_numpy(position > 0)[:, None]
        inputs = torch.zeros(len(owners), int(lengths.max()), total.shape[1])
        inputs[row, position] = self.drop(before) + self.clock(steps.clock[numbers])
        return numbers, self.out(self.drop(self.lstm(inputs)[0][row, position]))


class Rrn(nn.Module):
    """The network of one log."""

    def __init__(self, ratings: Ratings, options: RrnOptions, mean: float) -> None:
        super().__init__()
        self.mean, self.ratings, self.options = mean, ratings, options
        days = (ratings.seconds - ratings.seconds.min()) / DAY_SECONDS
        self.steps = [
            Steps(ratings.user, ratings.item, (days // options.user_step_days).astype(np.int64), ratings.num_users),
            Steps(ratings.item, ratings.user, (days // options.item_step_days).astype(np.int64), ratings.num_items),
        ]
        sizes = (ratings.num_users, ratings.num_items)
        self.sides = nn.ModuleList([Side(*sizes, options), Side(*sizes[::-1], options)])
        self.value = torch.from_numpy((ratings.value - mean).astype(np.float32))
        self.owners = [torch.from_numpy(ratings.user), torch.from_numpy(ratings.item)]

    def given(self, known: Bool[np.ndarray, " rating"]) -> Float[Tensor, " rating"]:
        """The input of the states: the ratings that are known, less the mean."""
        return self.value * torch.from_numpy(known)

    @torch.no_grad()
    def all_states(self, side: int, given: Float[Tensor, " rating"]) -> Float[Tensor, "step width"]:
        """What the states of all users (0) or items (1) give."""
        self.sides[side].eval()
        found = torch.zeros(len(self.steps[side].clock), self.options.width)
        for owners in self.steps[side].batches(np.arange(len(self.steps[side].offsets) - 1), STATES_AT_ONCE):
            numbers, states = self.sides[side].states(self.steps[side], owners, given)
            found[numbers] = states
        self.sides[side].train()
        return found

    def forecast(
        self, chosen: Int[np.ndarray, " some"], states: tuple[Float[Tensor, "some width"], Float[Tensor, "some width"]]
    ) -> tuple[Float[Tensor, " some"], Float[Tensor, ""]]:
        """Forecasts of some ratings less the mean, and the penalty of what they use."""
        user, item = (
            (side.bias(owner[chosen])[:, 0], side.factors(owner[chosen]))
            for side, owner in zip(self.sides, self.owners, strict=True)
        )
        forecast = user[0] + item[0] + (user[1] * item[1]).sum(dim=1) + (states[0] * states[1]).sum(dim=1)
        squares = user[0].square() + item[0].square() + user[1].square().sum(dim=1) + item[1].square().sum(dim=1)
        return forecast, self.options.penalty * squares.mean()

    def epoch(
        self, fitted: Bool[np.ndarray, " rating"], optimizer: torch.optim.Optimizer, generator: np.random.Generator
    ) -> None:
        """One pass over the fitted ratings by users, then one by items."""
        given = self.given(fitted)
        for side in (0, 1):
            steps, fixed = self.steps[side], self.all_states(1 - side, given)
            owner = self.ratings.user if side == 0 else self.ratings.item
            order = generator.permutation(len(steps.offsets) - 1)
            num_batches = max(1, int(fitted.sum()) // self.options.batch_ratings)
            for owners in np.array_split(order, min(num_batches, len(order))):
                numbers, states = self.sides[side].states(steps, owners, given)
                local = np.full(len(steps.clock), -1)
                local[numbers] = np.arange(len(numbers))
                is_member = np.zeros(len(steps.offsets) - 1, dtype=bool)
                is_member[owners] = True
                chosen = np.flatnonzero(is_member[owner] & fitted)
                if not len(chosen):
                    continue
                own, others = states[local[steps.of_rating[chosen]]], fixed[self.steps[1 - side].of_rating[chosen]]
                forecast, penalty = self.forecast(chosen, (own, others) if side == 0 else (others, own))
                loss = (forecast - self.value[chosen]).square().mean() + penalty
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters(), 1.0)
                optimizer.step()

    @torch.no_grad()
    def forecasts(
        self, chosen: Int[np.ndarray, " some"], known: Bool[np.ndarray, " rating"]
    ) -> Float[np.ndarray, " some"]:
        """Forecasts of some ratings, each from the known ratings of earlier steps, within the range of the values."""
        given = self.given(known)
        states = tuple(self.all_states(side, given)[steps.of_rating[chosen]] for side, steps in enumerate(self.steps))
        found = self.forecast(chosen, (states[0], states[1]))[0].numpy() + self.mean
        return np.clip(found, self.ratings.value.min(), self.ratings.value.max()).astype(np.float64)


def fit_rrn(
    ratings: Ratings,
    train: Bool[np.ndarray, " rating"],
    valid: Bool[np.ndarray, " rating"],
    options: RrnOptions,
    seed: int,
    is_refitted: bool = True,
) -> tuple[Rrn, float]:
    """The network, and the root mean squared error on validation of the best epoch.

    The number of epochs is that with the least error on validation. Then the network is trained anew for so many epochs
    on both parts.
    """
    model, optimizer, generator = _started(ratings, train, options, seed)
    best, best_epoch, kept, chosen = np.inf, 0, copy.deepcopy(model.state_dict()), np.flatnonzero(valid)
    for epoch in range(1, options.max_epochs + 1):
        model.epoch(train, optimizer, generator)
        error = model.forecasts(chosen, train | valid) - ratings.value[chosen]
        rmse = float(np.sqrt(np.square(error).mean()))
        if rmse < best:
            best, best_epoch, kept = rmse, epoch, copy.deepcopy(model.state_dict())
        if epoch - best_epoch >= options.patience:
            break
    if is_refitted:
        model, optimizer, generator = _started(ratings, train | valid, options, seed)
        for _ in range(best_epoch):
            model.epoch(train | valid, optimizer, generator)
    else:
        model.load_state_dict(kept)
    return model, best


def _started(
    ratings: Ratings, fitted: Bool[np.ndarray, " rating"], options: RrnOptions, seed: int
) -> tuple[Rrn, torch.optim.Optimizer, np.random.Generator]:
    torch.manual_seed(seed)
    model = Rrn(ratings, options, float(ratings.value[fitted].mean()))
    return model, torch.optim.Adam(model.parameters(), lr=options.learning_rate), np.random.default_rng(seed)
