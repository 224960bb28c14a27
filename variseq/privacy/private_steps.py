"""Training of a network with differential privacy: noisy sums of clipped gradients of a random part of the users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from variseq.errors import CheckpointError
from variseq.model.losses import ItemFrequency, Negatives
from variseq.model.network import Network, Weights
from variseq.privacy.noise import GRID, Noise, secure_noise
from variseq.privacy.schedule import StepSchedule
from variseq.privacy.user_gradients import UserGradients, user_gradients
from variseq.sequences.batches import Windows, make_batch
from variseq.sequences.histories import Histories

TOKENS_AT_ONCE = 4096
USERS_AT_ONCE, NUMBERS_AT_ONCE = 128, 1 << 26
"""Gradients of at most so many users, and so many numbers of them, are in memory together."""
LENGTHS = np.array([5, *range(10, 60, 10), *(1 << power for power in range(6, 31))])
"""The lengths of rectangles."""
BETAS = (0.9, 0.98)
LEAST_VARIANCE, LEAST_SHARE = 1e-16, 0.1
"""The corrected second moment is at least so large, and at least this share of the variance of the noise."""
NUM_NEGATIVES = 2048
Report = Callable[[int, int], None]
Changed = Callable[[Int[np.ndarray, " member"], UserGradients], UserGradients]
"""For audits: other gradients of a group, whose members are given as numbers of windows."""


class PrivateTraining:
    """DP-SGD of the parameters that require a gradient, step by step. Source: Abadi et al. 2016, algorithm 1.

    Users are sampled one by one (Poisson sampling), so that a step may have none of them; it has its noise all the
    same. The sum is divided by the public expected number of users. Gradients are computed in float32, see
    `clipped_sum`; the parameters move in float64.

    Args:
        network: See `user_gradients`. It starts from what is public or was released, and is trained in place.
        schedule: What is public.
        noise_multiplier: Standard deviation of the noise of a whole sum over `max_norm`.
        frequency: How often items are drawn as negatives, which no user decides; None: the softmax is over all items.
    """

    def __init__(
        self,
        network: Network,
        schedule: StepSchedule,
        noise_multiplier: float,
        frequency: ItemFrequency | None = None,
    ) -> None:
        self.network, self.schedule, self.noise_multiplier = network.float(), schedule, noise_multiplier
        self.step = 0
        self._frequency = frequency
        self._trained = [one for one in network.parameters() if one.requires_grad]
        start = parameters_to_vector(self._trained).detach().double()
        self._optimizer = NoisyAdam.of(start, schedule, noise_multiplier / schedule.expected_users)
        self._average = start.clone()

    @property
    def size(self) -> int:
        """How many numbers a step sums."""
        return len(self._average)

    def tensors(self) -> dict[str, Tensor]:
        """The state between two steps, beside `step`."""
        moments = {"first": self._optimizer.first, "second": self._optimizer.second}
        return {"position": self._optimizer.position, "average": self._average, **moments}

    def go_on(self, tensors: dict[str, Tensor], step: int) -> None:
        """Take the state of `tensors` after so many steps.

        Raises:
            CheckpointError: The tensors are those of another network.
        """
        for name, own in self.tensors().items():
            if name not in tensors or tensors[name].shape != own.shape:
                raise CheckpointError(f"The state has no {name} of this network. Start the fit again.")
            own.copy_(tensors[name])
        self.step = self._optimizer.step = step
        self._take(self._optimizer.position)
        self._take_average_at_the_end()

    def sum_of(self, histories: Histories, generator: np.random.Generator) -> Int[np.ndarray, " parameter"]:
        """What the users of a log add to the running step, without noise; see `clipped_sum`.

        Args:
            histories: All events of the users that the run may learn from.
            generator: Samples users and windows. Nobody may know its state.
        """
        return self.sum_over(self.sampled(histories, generator))

    def sampled(self, histories: Histories, generator: np.random.Generator) -> tuple[Histories, Windows]:
        """The users of the running step with a window each; see `sum_of`."""
        chosen = np.flatnonzero(generator.random(len(histories)) < self.schedule.sampling_rate)
        return random_windows(histories, chosen, self.schedule.max_events, generator)

    def sum_over(
        self, windows: tuple[Histories, Windows], changed: Changed | None = None
    ) -> Int[np.ndarray, " parameter"]:
        """What users with these windows add to the running step, without noise; see `clipped_sum`."""
        negatives = None if self._frequency is None else self._frequency.draw(NUM_NEGATIVES, seed=self.step)
        return clipped_sum(self.network, windows, self.schedule, negatives, changed)

    def move(self, total: Int[np.ndarray, " parameter"]) -> None:
        """Take the running step by the sum over all users, with its noise; after the last one the average is taken."""
        schedule = self.schedule
        mean = torch.from_numpy(total * (GRID * schedule.max_norm / schedule.expected_users))
        position = self._optimizer.moved(mean)
        self._take(position)
        decay = min(schedule.ema_decay, (1 + self.step) / (10 + self.step))
        self._average.lerp_(position, 1 - decay)
        self.step += 1
        self._take_average_at_the_end()

    def _take(self, position: Float[Tensor, " parameter"]) -> None:
        vector_to_parameters(position.float(), self._trained)

    def _take_average_at_the_end(self) -> None:
        if self.step == self.schedule.num_steps:
            self._take(self._average)
            self.network.eval()


def train_privately(
    training: PrivateTraining,
    histories: Histories,
    noise: Noise = secure_noise,
    report: Report = lambda done, total: None,
) -> None:
    """Take all steps on one log that are not yet taken.

    Args:
        training: Before its first step, or one that goes on.
        histories: All events of the users that the run may learn from.
        noise: For tests and audits only; without it there is no privacy.
        report: Gets the number of steps that are done, and of all.
    """
    generator = np.random.default_rng()
    while training.step < training.schedule.num_steps:
        total = training.sum_of(histories, generator)
        training.move(total + noise(training.noise_multiplier, len(total)))
        report(training.step, training.schedule.num_steps)


def random_windows(
    histories: Histories, users: Int[np.ndarray, " user"], max_events: int, generator: np.random.Generator
) -> tuple[Histories, Windows]:
    """A random window of at most `max_events` events of each user; users without events have none."""
    users = users[histories.lengths[users] > 0]
    start, lengths = histories.offsets[users], histories.lengths[users]
    first = start + generator.integers(0, np.maximum(lengths - max_events, 0) + 1)
    return histories, Windows(start, first, np.minimum(first + max_events, start + lengths))


def clipped_sum(
    network: Network,
    windows: tuple[Histories, Windows],
    schedule: StepSchedule,
    negatives: Negatives | None = None,
    changed: Changed | None = None,
) -> Int[np.ndarray, " parameter"]:
    """The sum of the clipped gradients of users, one window each, in steps of `GRID` times `max_norm`.

    One user more or less changes it by a vector with a norm of at most 1 / `GRID`. That takes that nobody else's
    gradient moves, not even by rounding, as it might then fall on another step of the grid. So rectangles have public
    sizes: the number of users is fixed, and the length is the least of `LENGTHS` that holds the user's own window.
    Kernels are then the same whoever else is there. The order is that of the parameters that require a gradient.
    """
    histories, of_users = windows
    weights = Weights(noise=0.0, mask_seen=schedule.mask_seen)
    like = {name: one for name, one in network.named_parameters() if one.requires_grad}
    total = np.zeros(sum(one.numel() for one in like.values()), dtype=np.int64)
    of_length = np.searchsorted(LENGTHS, of_users.lengths)
    for number in np.unique(of_length):
        longest = int(LENGTHS[number])
        at_once = min(USERS_AT_ONCE, TOKENS_AT_ONCE // longest, NUMBERS_AT_ONCE // max(1, len(total)))
        at_once = max(1, at_once)
        group = np.flatnonzero(of_length == number)
        for members in np.split(group, range(at_once, len(group), at_once)):
            batch = make_batch(histories, of_users, members, network.config.num_items)
            batch = replace(batch, layout=batch.layout.enlarged(at_once, longest)).to(network.item_bias.device)
            gradients = user_gradients(network, batch, weights, negatives)
            gradients = gradients if changed is None else changed(members, gradients)
            steps = gradients.clipped_steps(schedule.max_norm, like)
            total += torch.cat([one.flatten() for one in steps.values()]).cpu().numpy()
    return total


@dataclass(eq=False)
class NoisyAdam:
    """Adam whose second moment does not count the noise of the gradient.

    Source: Tang, Shpilevskiy and Lécuyer 2023, "DP-AdamBC", algorithm 1: m̂ / √max(v̂ − noise variance, least).
    """

    position: Float[Tensor, " parameter"]
    schedule: StepSchedule
    noise_variance: float
    first: Float[Tensor, " parameter"]
    second: Float[Tensor, " parameter"]
    step: int = 0

    @classmethod
    def of(cls, start: Float[Tensor, " parameter"], schedule: StepSchedule, relative_noise: float) -> NoisyAdam:
        """`relative_noise` is the standard deviation of the gradient's noise over `max_norm`."""
        noise = relative_noise * schedule.max_norm
        return cls(start.clone(), schedule, noise**2, torch.zeros_like(start), torch.zeros_like(start))

    def moved(self, gradient: Float[Tensor, " parameter"]) -> Float[Tensor, " parameter"]:
        """The parameters after one more step."""
        rate = self.schedule.learning_rate * (1 - self.step / self.schedule.num_steps)
        self.step += 1
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient.square(), 1 - BETAS[1])
        mean = self.first / (1 - BETAS[0] ** self.step)
        variance = self.second / (1 - BETAS[1] ** self.step) - self.noise_variance
        least = max(LEAST_VARIANCE, LEAST_SHARE * self.noise_variance)
        self.position = self.position - rate * mean / variance.clamp(min=least).sqrt()
        return self.position
