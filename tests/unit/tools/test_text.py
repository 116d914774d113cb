"""Cutting and showing text."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from zene.tools.text import Clip, printable, shortened


@given(st.lists(st.binary(max_size=200), max_size=30), st.integers(2, 300))
def test_a_clip_keeps_both_ends_and_counts_the_rest(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    clip = Clip(limit)
    for piece in pieces:
        clip.add(piece)
    text = clip.text("see there")
    assert clip.size == len(whole)
    half = limit // 2
    if len(whole) <= 2 * half:
        assert text == printable(whole.decode(errors="replace"))
    else:
        assert f"[… {len(whole) - 2 * half} bytes left out; see there …]" in text


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(2, 60))
def test_how_output_is_cut_into_pieces_makes_no_difference(pieces: list[bytes], limit: int) -> None:
    one, many = Clip(limit), Clip(limit)
    one.add(b"".join(pieces))
    for piece in pieces:
        many.add(piece)
    assert one.text("x") == many.text("x")


@given(st.text())
def test_nothing_printable_hides(text: str) -> None:
    shown = printable(text)
    assert all(c in "\n\t" or unicodedata.category(c) != "Cc" for c in shown)
    assert not any(0xE0000 <= ord(c) < 0xE0080 for c in shown)
    assert printable(shown) == shown


@given(st.text(max_size=100), st.integers(2, 120))
def test_a_shortened_text_keeps_both_ends(text: str, limit: int) -> None:
    cut = shortened(text, limit)
    if len(text) <= limit:
        assert cut == text
    else:
        assert cut.startswith(text[: limit // 2])
        assert cut.endswith(text[-(limit // 2) :])
