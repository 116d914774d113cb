import pytest

from zene.cli import terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("ünï 漢字 🙂", "ünï 漢字 🙂"),
        ("dos\r\n", "dos\n"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("\x07\x08\x7f", "\\x07\\x08\\x7f"),
        ("over\rwritten", "over\\x0dwritten"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\ue0041"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert terminal.safe(text) == shown


def test_a_table_is_as_wide_as_its_widest_cells() -> None:
    rows = [["a", "longer"], ["wider", "b\nc\x1b"]]
    assert terminal.table(["ID", "TITLE"], rows).splitlines() == [
        "ID     TITLE",
        "a      longer",
        "wider  b c\\x1b",
    ]


def test_without_a_terminal_there_are_no_colours() -> None:
    assert terminal.styled("text", "red") == "text"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (2_340_000, "2.3 MB"),
        (5e9, "5.0 GB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(count: int, told: str) -> None:
    assert terminal.size(count) == told
