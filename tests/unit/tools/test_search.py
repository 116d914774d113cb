"""Finding files and lines."""

import os
from pathlib import Path

import pytest

from tests.local import LocalContext
from zene.domain.errors import InvalidInput
from zene.domain.messages import ToolResult
from zene.tools import search


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src/pkg").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/fields.py").write_text("secret = 1\n")
    (tmp_path / "src/pkg/fields.py").write_text("class Field:\n    value = 1\n")
    (tmp_path / "src/pkg/other.py").write_text("value = 2\n")
    (tmp_path / ".hidden.py").write_text("value = 3\n")
    return tmp_path


async def find(context: LocalContext, pattern: str, path: str = ".") -> ToolResult:
    return (await search.find(search.Arguments(pattern, path), context)).result


async def grep(context: LocalContext, pattern: str, path: str = ".") -> ToolResult:
    return (await search.search(search.Arguments(pattern, path), context)).result


@pytest.mark.usefixtures("project")
async def test_files_are_found_by_glob(context: LocalContext) -> None:
    assert (await find(context, "fields.py")).output == "src/pkg/fields.py"
    assert (await find(context, "fields.py", "src")).output == "src/pkg/fields.py"
    found = await find(context, "*.py", "/workspace")
    assert found.output == ".hidden.py\nsrc/pkg/fields.py\nsrc/pkg/other.py"
    assert (await find(context, "*.rs")).output == "[nothing found]"


@pytest.mark.usefixtures("project")
async def test_lines_are_found_by_pattern(context: LocalContext) -> None:
    found = await grep(context, r"value\s*=", "src")
    assert found.output == "src/pkg/fields.py:2:    value = 1\nsrc/pkg/other.py:1:value = 2"
    one = await grep(context, "class", "src/pkg/fields.py")
    assert one.output == "src/pkg/fields.py:1:class Field:"
    assert (await grep(context, "nothing like it")).output == "[nothing found]"


@pytest.mark.usefixtures("project")
async def test_what_looks_like_an_option_is_a_pattern(context: LocalContext) -> None:
    assert (await grep(context, "--files")).output == "[nothing found]"
    assert (await find(context, "--pre=sh")).output == "[nothing found]"


async def test_a_pattern_that_does_not_parse_is_told(context: LocalContext) -> None:
    result = await grep(context, "(")
    assert result.status == "failed"
    assert "unclosed group" in result.output


@pytest.mark.parametrize("pattern", ["", "a\0b", "x" * 5000])
async def test_a_pattern_that_cannot_be_passed_on_is_refused(
    context: LocalContext, pattern: str
) -> None:
    with pytest.raises(InvalidInput, match="Not run"):
        await grep(context, pattern)


async def test_a_missing_folder_is_told(context: LocalContext) -> None:
    result = await find(context, "*", "gone")
    assert result.status == "failed"
    assert "gone" in result.output


async def test_much_is_cut_with_a_mark(context: LocalContext, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("the same line again\n" * 50_000 + "x" * 5_000_000 + " same\n")
    result = await grep(context, "same")
    assert len(result.output) < search.OUTPUT_LIMIT + 200
    assert "bytes more; narrow the pattern or the path]" in result.output


async def test_a_pattern_made_to_take_for_ever_is_answered(
    context: LocalContext, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("a" * 100_000 + "!\n")
    assert (await grep(context, "^(a+)+$")).output == "[nothing found]"


async def test_a_search_without_end_is_stopped(context: LocalContext, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless")
    result = await grep(context, "a", "endless")
    assert result.status == "failed"
    assert result.output == "Stopped after 2 s. Narrow the pattern or the path."
