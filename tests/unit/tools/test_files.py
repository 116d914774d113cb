"""Reading, writing and listing files."""

from pathlib import Path

import pytest

from tests.local import LocalContext
from zene.domain.errors import InvalidInput, NotFound
from zene.tools import files
from zene.tools.base import Done


async def read(context: LocalContext, path: str, **where: float) -> str:
    return (await files.read(files.Read(path, **where), context)).result.output


async def test_a_file_is_read_as_it_is(context: LocalContext, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  two\n")
    assert await read(context, "a.txt") == "one\n\n  two"
    assert await read(context, "/workspace/./a.txt") == "one\n\n  two"


async def test_lines_count_from_one_and_say_where_to_go_on(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("".join(f"line {number}\n" for number in range(1, 11)))
    shown = await read(context, "a", offset=3, limit=2)
    assert shown == "line 3\nline 4\n[lines 3 to 4 of 10; go on with offset 5]"
    assert await read(context, "a", offset=10) == "line 10"


@pytest.mark.parametrize(("offset", "limit"), [(-5, 1e18), (0, 1e18), (1, -1)])
async def test_numbers_out_of_range_are_clamped(
    context: LocalContext, tmp_path: Path, offset: float, limit: float
) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    assert (await read(context, "a", offset=offset, limit=limit)).startswith("one")


async def test_an_offset_beyond_the_end_is_told(context: LocalContext, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    with pytest.raises(InvalidInput, match="only 1 lines"):
        await read(context, "a", offset=2)


async def test_a_large_file_and_a_long_line_are_cut_with_a_mark(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("x" * 5_000_000 + "\nend\n")
    shown = await read(context, "a")
    assert len(shown) < 3000
    assert "[… 4998000 characters more]\nend" in shown
    (tmp_path / "b").write_text("0123456789\n" * 100_000)
    assert len(await read(context, "b", limit=5000)) < 45_000


async def test_what_is_not_text_is_named_with_its_size(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0" * 100)
    with pytest.raises(InvalidInput, match=r"not text \(100 bytes\)"):
        await read(context, "a.bin")
    (tmp_path / "b").write_bytes(b"gr\xfc\xdfe\r\nnext\x1b[31m\r\n")
    assert await read(context, "b") == "gr��e\nnext"


async def test_a_file_over_the_limit_is_left_to_commands(
    context: LocalContext, tmp_path: Path
) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(files.FILE_LIMIT + 1)
    with pytest.raises(InvalidInput, match="larger than 8 MiB"):
        await read(context, "a")


async def test_what_is_missing_is_told(context: LocalContext) -> None:
    with pytest.raises(NotFound, match="no file gone"):
        await read(context, "gone")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "/workspace/../etc", "a\0b", "/workspaces"]
)
async def test_paths_outside_the_workspace_are_refused(context: LocalContext, path: str) -> None:
    with pytest.raises(InvalidInput, match="Not done"):
        await read(context, path)


async def test_a_file_is_written_with_its_folders(context: LocalContext, tmp_path: Path) -> None:
    done = await files.write(files.Write("a/b/ü.txt", "grün\n"), context)
    assert (tmp_path / "a/b/ü.txt").read_text() == "grün\n"
    assert done.path == "a/b/ü.txt"
    assert done.result.output == "Wrote 6 bytes to a/b/ü.txt."


async def test_a_folder_is_listed_by_name_and_cut_with_a_mark(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("")
    (tmp_path / "c").symlink_to("a")
    assert output(await files.list_folder(files.Folder(), context)) == "a\nb/\nc@"
    assert output(await files.list_folder(files.Folder("b"), context)) == "[the folder is empty]"
    for number in range(1005):
        (tmp_path / "b" / f"{number:04}").touch()
    shown = output(await files.list_folder(files.Folder("b"), context))
    assert shown.endswith("0999\n[… more than 1000 in all; find_files or shell shows the others]")


def output(done: Done) -> str:
    return done.result.output
