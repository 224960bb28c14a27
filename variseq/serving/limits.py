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
        tokens = self._tokens(name, now)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self.rate
        self._keep(name, tokens - 1.0 if wait == 0.0 else tokens, now)
        return wait

    def charge(self, name: str, tokens: int, now: float) -> None:
        """Take tokens that may not be there yet: what follows waits until the bucket has one again.

        >>> buckets = TokenBuckets(rate=2.0, burst=1.0)
        >>> buckets.wait_seconds("shop", 0.0), buckets.charge("shop", 3, 0.0), buckets.wait_seconds("shop", 0.0)
        (0.0, None, 2.0)
        """
        self._keep(name, self._tokens(name, now) - tokens, now)

    def _tokens(self, name: str, now: float) -> float:
        tokens, since = self._buckets.get(name, (self.burst, now))
        return min(self.burst, tokens + (now - since) * self.rate)

    def _keep(self, name: str, tokens: float, now: float) -> None:
        self._buckets[name] = (tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self.max_names:
            self._buckets.popitem(last=False)
