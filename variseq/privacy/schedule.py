"""The public schedule of private training: how many steps of how many users, and how large each may be."""

from __future__ import annotations

from dataclasses import dataclass

USERS_OF_A_STEP = 1_000
"""So many users are expected in a step, if there are so many."""
LARGEST_RATE = 0.2


@dataclass(frozen=True)
class StepSchedule:
    """The steps of private training; nothing of it depends on the log but the public number of users.

    Args:
        num_users: The public number of users.
        sampling_rate: The probability of each user to be in a step.
        num_steps: How many there are.
        max_norm: The largest norm of a user's gradient over all parameters together.
        learning_rate: Of Adam in the first step; it falls to zero in a line.
        max_events: A user adds a random window of at most so many events to a step.
        ema_decay: Of the moving average of the weights, which is what training returns.
        mask_seen: Whether items of the history are left out of the softmax.
    """

    num_users: int
    sampling_rate: float
    num_steps: int = 100
    max_norm: float = 0.2
    learning_rate: float = 0.01
    max_events: int = 50
    ema_decay: float = 0.9
    mask_seen: bool = True

    @classmethod
    def of_users(cls, num_users: int, mask_seen: bool) -> StepSchedule:
        """The schedule for a public number of users."""
        return cls(num_users, min(LARGEST_RATE, USERS_OF_A_STEP / num_users), mask_seen=mask_seen)

    @property
    def expected_users(self) -> float:
        """The public number of users that a step is divided by."""
        return self.sampling_rate * self.num_users
