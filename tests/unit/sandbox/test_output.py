"""What is remembered of a call's output: its first and its last part."""

from hypothesis import given
from hypothesis import strategies as st

from zene.sandbox.runner.output import Memory

HALF = 32 * 1024


def remembered(*parts: bytes) -> bytes:
    memory = Memory()
    for part in parts:
        memory.add(part)
    return memory.answer()


@given(st.lists(st.binary(max_size=40_000), max_size=4))
def test_what_fits_is_remembered_whole(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    if len(whole) <= 2 * HALF:
        assert remembered(*parts) == whole


@given(st.lists(st.integers(1, 60_000), min_size=3, max_size=8))
def test_what_does_not_fit_keeps_both_ends(sizes: list[int]) -> None:
    whole = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    at, parts = 0, []
    for size in sizes:
        parts.append(whole[at : at + size])
        at += size
    kept = remembered(*parts)
    assert kept[:HALF] == whole[:HALF]
    assert kept[-min(HALF, len(whole)) :] == whole[-min(HALF, len(whole)) :]
    if len(whole) > 2 * HALF:
        assert f"[... {len(whole) - 2 * HALF} bytes left out ...]".encode() in kept
