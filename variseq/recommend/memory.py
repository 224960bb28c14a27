"""What is counted in a log: what followed each item, and what was popular of late. Two of the voices of a forecast."""

from __future__ import annotations

from variseq.evaluation.baselines import LastItemTransitions, RecentPopular, State
from variseq.sequences.histories import Histories


class Memory:
    """Counted transitions and the trend of some histories, which say at once what a network would learn late.

    >>> memory = Memory(num_items=3).fit(Histories.of_items([[0, 1], [1, 2]]))
    >>> memory.trend.log_share.argmax().item()
    1
    """

    def __init__(self, num_items: int) -> None:
        self.transitions = LastItemTransitions(num_items)
        self.trend = RecentPopular(num_items)

    def fit(self, histories: Histories) -> Memory:
        """Count again, from nothing."""
        self.transitions.fit(histories)
        self.trend.fit(histories)
        return self

    def state(self) -> State:
        return {"log_trend": self.trend.log_share} | self.transitions.state()

    @classmethod
    def from_state(cls, state: State) -> Memory:
        memory = cls(len(state["log_trend"]))
        memory.trend.log_share, memory.transitions = state["log_trend"], LastItemTransitions.from_state(state)
        return memory
