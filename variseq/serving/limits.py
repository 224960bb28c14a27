"""A stream of requests into 'go on' or 'wait so long': token buckets, in a table that cannot grow without end."""

from __future__ import annotations

from collections import OrderedDict

MAX_NAMES = 10_000


class TokenBuckets:
    """One bucket a name: `burst` requests at once, `rate` a second in the long run. Of one thread only.

    The table keeps the names used last; one that falls out starts with a full bucket again.

    >>> buckets = TokenBuckets(rate=2.0, burst=1.0)
    >>> [buckets.wait_seconds("shop", now) for now in (0.0, 0.1, 0.6)]
    [0.0, 0.4, 0.0]
    """

    def __init__(self, rate: float, burst: float, max_names: int = MAX_NAMES) -> None:
        self.rate = rate
        self.burst = burst
        self.max_names = max_names
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_seconds(self, name: str, now: float) -> float:
        """0 where the request may go on (one token is taken), otherwise how long to wait."""
        tokens, since = self._buckets.get(name, (self.burst, now))
        tokens = min(self.burst, tokens + (now - since) * self.rate)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self.rate
        self._buckets[name] = (tokens - 1.0 if wait == 0.0 else tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self.max_names:
            self._buckets.popitem(last=False)
        return wait
