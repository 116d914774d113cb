"""Ids: a prefix that says of what, then 26 characters that sort by time. Time and randomness come in."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
RANDOM_BYTES = 10


def make_id(prefix: str, now_ms: int, randomness: bytes) -> str:
    """An id such as `tsk_01jd…`: 48 bits of milliseconds since 1970, then 80 random bits, in base 32."""
    number = (now_ms << 80) | int.from_bytes(randomness[:RANDOM_BYTES], "big")
    digits = [_ALPHABET[(number >> shift) & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the form of an id of that prefix; says nothing about whether it exists."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == _LENGTH and all(c in _ALPHABET for c in tail)
