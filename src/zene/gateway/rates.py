"""How often somebody may ask: a token bucket a caller, in this process's memory."""

from collections import OrderedDict
from collections.abc import Callable

from zene.domain.errors import TooMany

_CALLERS = 10_000


class Rate:
    """`per_second` requests, `burst` at once. `clock` is in seconds and only ever grows.

    The callers seen least recently are forgotten first: by then their buckets are full again, unless
    more than ten thousand callers ask at once.
    """

    def __init__(self, clock: Callable[[], float], *, per_second: float, burst: int) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one request. Raises TooMany when the caller's bucket is empty."""
        now = self._clock()
        left, since = self._buckets.get(caller, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._per_second)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise TooMany(
                f"More than {self._per_second:g} requests a second. Wait and try again.",
                code="rate_limited",
                retry_after=(1 - left) / self._per_second,
            )
