"""Exact replacement, and what is said when it is not exact."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.local import LocalContext
from zene.domain.errors import InvalidInput
from zene.tools import edit

SHORT = st.binary(max_size=12).map(
    lambda data: data.translate(bytes(b"ab\n"[n % 3] for n in range(256)))
)


async def change(context: LocalContext, old: str, new: str, path: str = "a.py") -> str:
    return (await edit.run(edit.Arguments(path, old, new), context)).result.output


async def test_the_one_place_is_replaced(context: LocalContext, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\nb = 2\n")
    assert await change(context, "b = 2", "b = 3") == "Replaced at line 2 of a.py."
    assert (tmp_path / "a.py").read_text() == "a = 1\nb = 3\n"


async def test_several_places_are_named_by_line(context: LocalContext, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x\ny\nx\nx\n")
    with pytest.raises(InvalidInput, match="3 times, at lines 1, 3, 4"):
        await change(context, "x", "z")
    (tmp_path / "a.py").write_text("x\n" * 100)
    with pytest.raises(InvalidInput, match=r"more than 10 times, at lines 1, .* 10 and more"):
        await change(context, "x", "z")
    assert (tmp_path / "a.py").read_text() == "x\n" * 100


async def test_where_nothing_matches_the_nearest_lines_are_shown(
    context: LocalContext, tmp_path: Path
) -> None:
    lines = ["def one():", "    return 1", "", "def two():", "    return value * 2", "# end"]
    (tmp_path / "a.py").write_text("\n".join(lines))
    with pytest.raises(InvalidInput, match="nearest lines") as error:
        await change(context, "return value*2", "return 4")
    assert error.value.message.endswith("3: \n4: def two():\n5:     return value * 2\n6: # end")
    with pytest.raises(InvalidInput, match="nearest lines"):
        await change(context, "\treturn 1", "return 4")
    with pytest.raises(InvalidInput, match="No line of it is like any"):
        await change(context, "§" * 40, "")


async def test_the_nearest_lines_have_the_numbers_that_read_file_gives(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_bytes(b"one\x0ctwo\x0b\xe2\x80\xa8\r\ndef first(): pass\r\n")
    with pytest.raises(InvalidInput, match=r"\n2: def first\(\): pass") as refused:
        await change(context, "def first(): pas$", "x")
    assert "\r" not in refused.value.message


async def test_an_empty_or_equal_piece_is_refused(context: LocalContext, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    with pytest.raises(InvalidInput, match="old_text is empty"):
        await change(context, "", "y")
    with pytest.raises(InvalidInput, match="are the same"):
        await change(context, "x", "x")


async def test_windows_line_ends_and_bytes_that_are_no_text_stay(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\r\none\r\ntwo\r\n")
    await change(context, "one\ntwo", "three\nfour")
    assert (tmp_path / "a.py").read_bytes() == b"\xff\r\nthree\r\nfour\r\n"


async def test_looking_for_what_was_meant_takes_no_time(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(
        "\n".join(f"value_{n} = compute(value_{n - 1})" for n in range(99_000))
    )
    begun = time.process_time()
    with pytest.raises(InvalidInput, match="does not hold"):
        await change(context, "velue_77 = compote(volue_76) " * 9, "x")
    assert time.process_time() - begun < 2


@given(content=SHORT, old=SHORT, new=SHORT)
def test_a_replacement_changes_the_one_place_or_nothing(
    content: bytes, old: bytes, new: bytes
) -> None:
    places = [at for at in range(len(content)) if old and content.startswith(old, at)]
    try:
        changed, line = edit.replaced(content, old, new, "a")
    except InvalidInput:
        assert len(places) != 1 or old == new
        return
    assert len(places) == 1
    assert changed == content.replace(old, new, 1)
    assert line == content[: places[0]].count(b"\n") + 1
