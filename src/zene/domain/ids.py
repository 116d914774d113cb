"""Ids: a prefix that says of what, then 26 characters that sort by time. Time and randomness come in."""

from collections.abc import Callable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
RANDOM_BYTES = 10
_STEP_BYTES = 8  # of randomness between two ids of one millisecond


class Ids:
    """Makes ids, each of which sorts after those made before it: in the same millisecond, after the clock was
    set back, and whatever their prefixes. For one thread; `clock` is in milliseconds since 1970.
    """

    def __init__(self, clock: Callable[[], int], random_bytes: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._last = -1

    def new(self, prefix: str) -> str:
        """A new id of that prefix."""
        number = _number(self._clock(), self._random_bytes(RANDOM_BYTES))
        if number <= self._last:
            step = int.from_bytes(self._random_bytes(_STEP_BYTES), "big")
            number = self._last + 1 + step
        self._last = number
        return _text(prefix, number)


def make_id(prefix: str, now_ms: int, randomness: bytes) -> str:
    """An id such as `tsk_01jd…`: 48 bits of milliseconds since 1970, then 80 random bits, in base 32."""
    return _text(prefix, _number(now_ms, randomness))


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the form of an id of that prefix; says nothing about whether it exists."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == _LENGTH and all(c in _ALPHABET for c in tail)


def _number(now_ms: int, randomness: bytes) -> int:
    return (now_ms << 8 * RANDOM_BYTES) | int.from_bytes(randomness[:RANDOM_BYTES], "big")


def _text(prefix: str, number: int) -> str:
    digits = [_ALPHABET[(number >> shift) & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)]
    return f"{prefix}_{''.join(digits)}"
