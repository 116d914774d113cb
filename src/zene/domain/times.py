"""Times: milliseconds since 1970 inside, RFC 3339 in UTC with milliseconds outside."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

_FIRST_MS: Final = -30_610_224_000_000  # the year 1000
_LAST_MS: Final = 253_402_300_799_999  # the year 9999


@lru_cache(maxsize=64)  # events come in batches of one moment, and a log is read by thousands
def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as text, such as `2026-01-31T08:15:00.250Z`; what is no year of four digits (an agent
    may set the times of its files) as the nearest that is.
    """
    ms = min(max(ms, _FIRST_MS), _LAST_MS)
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment.isoformat()[:19]}.{ms % 1000:03d}Z"


def milliseconds(text: str) -> int:
    """What `rfc3339` made a text of. Raises ValueError for what is no time with an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} does not say its offset from UTC")
    return round(moment.timestamp() * 1000)
