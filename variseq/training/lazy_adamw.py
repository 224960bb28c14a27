"""AdamW and a moving average for tables of items, of which a step touches a few rows; the other rows wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from variseq.model.network import ITEM_TABLES

BETAS = (0.9, 0.98)
EPSILON = 1e-8
TAIL = 256
"""Steps after which what a gradient still moves is below rounding: (β₁ / √β₂)²⁵⁶ = 10⁻¹¹."""
ROWS_AT_ONCE = 1 << 16
Factors = dict[str, Float[Tensor, "#row"]]


@dataclass(frozen=True, eq=False)
class Schedule:
    """What dense AdamW does to a row without a gradient between two steps, as sums over steps.

    A row that a step does not touch still moves: its moments fall by β₁ and β₂, it goes on by lr · m̂ / √v̂, and it
    decays. All that follows from the moments at the last touch. With c = √(1 − β₂ʲ) / (1 − β₁ʲ), r = β₁ / √β₂ and
    the decay W(s, t) = Π (1 − lr_j λ), the row after step t is

        W(s, t) x_s − u Σ_j lr_j c_j rʲ⁻ˢ W(j, t),    u = m_s / (√v_s + ε √(1 − β₂ˢ)),

    and the sum is W(s, t) tail_s − rᵗ⁻ˢ tail_t, where tail_s is the sum without end. Only ε is not as in dense AdamW,
    where it would grow beside the falling √v. Source, for regularization alone: Carpenter 2008, "Lazy sparse stochastic
    gradient descent for regularized multinomial logistic regression".

    Args:
        first: The number of steps before the first one of the schedule.
        rate: lr_j c_j for each number of steps.
        log_kept: The logarithm of Π (1 − lr_j λ) up to each number of steps.
        tail: See above.
        log_average: The logarithm of the product of the decays of the moving average.
    """

    first: int
    rate: Float[np.ndarray, " step"]
    log_kept: Float[np.ndarray, " step"]
    tail: Float[np.ndarray, " step"]
    log_average: Float[np.ndarray, " step"]

    @classmethod
    def of(cls, first: int, rates: Sequence[float], averages: Sequence[float], weight_decay: float) -> Schedule:
        """From the learning rate and the decay of the average of each step after the `first` ones, `TAIL` too many."""
        beta1, beta2 = BETAS
        number = first + 1 + np.arange(len(rates))
        correction = np.sqrt(1 - beta2**number) / (1 - beta1**number)
        rate, kept = np.array(rates) * correction, 1 - np.array(rates) * weight_decay
        tail = np.zeros(len(rate) + 1)
        for step in range(len(rate) - 1, -1, -1):
            tail[step] = beta1 / beta2**0.5 / kept[step] * (rate[step] + tail[step + 1])
        log_average = np.log(np.maximum(averages, 1e-30))
        sums = (np.concatenate([[0.0], np.cumsum(one)]) for one in (np.log(kept), log_average))
        log_kept, log_average = sums
        return cls(first, np.concatenate([[0.0], rate]), log_kept, tail, log_average)

    def between(self, begun: Int[Tensor, " row"], ended: int) -> Factors:
        """What the numbers of rows are multiplied by from step `begun` to step `ended`."""
        last = begun.cpu().numpy()
        step, now, waited = last - self.first, ended - self.first, ended - last
        kept = np.exp(self.log_kept[now] - self.log_kept[step])
        beta1, beta2 = BETAS
        found = {
            "epsilon": EPSILON * np.sqrt(1 - beta2 ** np.maximum(last, 1)),
            "kept": kept,
            "moved": kept * self.tail[step] - (beta1 / beta2**0.5) ** waited * self.tail[now],
            "first": beta1**waited,
            "second": beta2**waited,
            "average": 1 - np.exp(self.log_average[now] - self.log_average[step]),
        }
        return {name: torch.from_numpy(factor).float().to(begun.device) for name, factor in found.items()}


@dataclass(eq=False)
class _Table:
    """A parameter, its moving average, and its two moments."""

    numbers: tuple[Tensor, Tensor, Tensor, Tensor]
    weight_decay: float
    schedule: Schedule | None = None

    def rows(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " own"]:
        """Only some tables have a row for the start token, which is the last one."""
        return rows if len(self.numbers[0]) > rows[-1] else rows[:-1]

    def take(self, rows: Int[Tensor, " row"], begun: Int[Tensor, " row"], ended: int) -> tuple[Tensor, ...]:
        """Copies of the rows, as they are after step `ended`."""
        assert self.schedule is not None
        parameter, average, first, second = (table[rows] for table in self.numbers)
        shape = (-1, *(1,) * (parameter.ndim - 1))
        factors = {name: factor.view(shape) for name, factor in self.schedule.between(begun, ended).items()}
        direction = first / (second.sqrt() + factors["epsilon"])
        parameter = (parameter * factors["kept"]).sub_(direction.mul_(factors["moved"]))
        average = average.lerp_(parameter, factors["average"].expand_as(average))
        return parameter, average, first.mul_(factors["first"]), second.mul_(factors["second"])

    def put(self, rows: Int[Tensor, " row"], taken: tuple[Tensor, ...]) -> None:
        for table, numbers in zip(self.numbers, taken, strict=True):
            table.index_copy_(0, rows, numbers)

    def stepped(self, taken: tuple[Tensor, ...], gradient: Tensor, done: int) -> tuple[Tensor, ...]:
        """The rows after one more step, of AdamW and of the average."""
        assert self.schedule is not None
        schedule, (beta1, beta2) = self.schedule, BETAS
        index, (parameter, average, first, second) = done + 1 - schedule.first, taken
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        epsilon = EPSILON * (1 - beta2 ** (done + 1)) ** 0.5
        kept, averaged = (
            float(np.exp(of_steps[index] - of_steps[index - 1]))
            for of_steps in (schedule.log_kept, schedule.log_average)
        )
        parameter = parameter.mul(kept).addcdiv_(first, second.sqrt().add_(epsilon), value=-float(schedule.rate[index]))
        return parameter, average.lerp_(parameter, 1 - averaged), first, second


class LazyAdamW:
    """AdamW with the moving average of the weights, for parameters with a row for each item.

    The result is that of `torch.optim.AdamW` on whole tables up to rounding, see `Schedule`. A step touches its rows
    alone; all rows are touched once an epoch. In the average a row that waits counts as if it had moved at once.

    Args:
        network: The network that is trained; its tables are changed in place.
        averaged: The moving average of its weights.
        decay_of: The weight decay of each parameter, by name.
    """

    def __init__(self, network: nn.Module, averaged: nn.Module, decay_of: dict[str, float]) -> None:
        parameters, averages = dict(network.named_parameters()), dict(averaged.named_parameters())
        self._tables = {
            name: _Table((one.data, averages[name].data, torch.zeros_like(one), torch.zeros_like(one)), decay_of[name])
            for name, one in parameters.items()
            if name in ITEM_TABLES
        }
        longest = max(table.numbers[0].shape[0] for table in self._tables.values())
        self.last_step = torch.zeros(longest, dtype=torch.int64, device=next(iter(parameters.values())).device)
        self._taken: dict[str, tuple[Tensor, ...]] = {}

    def plan(self, first: int, num_steps: int, rate: Callable[[int], float], average: Callable[[int], float]) -> None:
        """Set learning rate and decay of the average, functions of the number of steps before, for the next steps.

        No row may wait since before `first`, see `finish`.
        """
        steps = range(first, first + num_steps + TAIL)
        rates, averages = [rate(step) for step in steps], [average(step) for step in steps]
        for table in self._tables.values():
            table.schedule = Schedule.of(first, rates, averages, table.weight_decay)

    @torch.no_grad()
    def take(self, rows: Int[Tensor, " row"], done: int) -> dict[str, Tensor]:
        """The rows as they are after `done` steps, as parameters by their names, with gradients to come."""
        begun = self.last_step[rows]
        self._taken = {
            name: table.take(table.rows(rows), begun[: len(table.rows(rows))], done)
            for name, table in self._tables.items()
        }
        return {name: taken[0].requires_grad_() for name, taken in self._taken.items()}

    @torch.no_grad()
    def step(self, rows: Int[Tensor, " row"], gradients: dict[str, Tensor | None], done: int) -> None:
        """Move the rows that were taken, after `done` steps, by their gradients."""
        for name, table in self._tables.items():
            gradient, taken = gradients[name], self._taken[name]
            gradient = torch.zeros_like(taken[0]) if gradient is None else gradient
            table.put(table.rows(rows), table.stepped(taken, gradient, done))
        self.last_step[rows] = done + 1

    @torch.no_grad()
    def finish(self, done: int) -> None:
        """Bring all rows to where they are after `done` steps."""
        for table in self._tables.values():
            for first in range(0, len(table.numbers[0]), ROWS_AT_ONCE):
                last = min(first + ROWS_AT_ONCE, len(table.numbers[0]))
                rows = torch.arange(first, last, device=self.last_step.device)
                table.put(rows, table.take(rows, self.last_step[rows], done))
        self.last_step.fill_(done)

    def tensors(self) -> dict[str, Tensor]:
        """The moments and the last step of each row."""
        moments = {
            f"items.{name}.{number}": table.numbers[2 + number]
            for name, table in self._tables.items()
            for number in range(2)
        }
        return moments | {"items.last_step": self.last_step}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
