import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zene.domain.errors import InvalidInput, NotFound
from zene.workspaces.outputs import Outputs


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Outputs]:
    kept = Outputs(tmp_path / "outputs", most_bytes=10)
    yield kept
    kept.close()


async def test_what_is_appended_is_read_by_offset(outputs: Outputs) -> None:
    assert await outputs.append("ses_1", "itm_1", b"abc") == 3
    assert await outputs.append("ses_1", "itm_1", b"def") == 3
    assert await outputs.read("ses_1", "itm_1", 2, 3) == (b"cde", 6)
    assert await outputs.read("ses_1", "itm_1", 99, 3) == (b"", 6)


async def test_what_does_not_fit_is_left_out(outputs: Outputs) -> None:
    assert await outputs.append("ses_1", "itm_1", b"12345678") == 8
    assert await outputs.append("ses_1", "itm_1", b"90ab") == 2
    assert await outputs.append("ses_1", "itm_1", b"c") == 0
    assert await outputs.read("ses_1", "itm_1", 0, 99) == (b"1234567890", 10)


async def test_only_its_owner_can_read_a_kept_output(outputs: Outputs, tmp_path: Path) -> None:
    await outputs.append("ses_1", "itm_1", b"x")
    place = tmp_path / "outputs/ses_1/itm_1"
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert place.stat().st_uid == os.geteuid()


async def test_a_deleted_sessions_outputs_are_gone(outputs: Outputs) -> None:
    await outputs.append("ses_1", "itm_1", b"x")
    await outputs.append("ses_2", "itm_1", b"y")
    await outputs.delete("ses_1")
    await outputs.delete("ses_1")
    with pytest.raises(NotFound):
        await outputs.read("ses_1", "itm_1", 0, 1)
    assert await outputs.read("ses_2", "itm_1", 0, 1) == (b"y", 1)


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "a\0", "é", "x" * 65])
async def test_an_id_that_is_no_file_name_is_refused(outputs: Outputs, name: str) -> None:
    with pytest.raises(InvalidInput):
        await outputs.append("ses_1", name, b"x")
    with pytest.raises(InvalidInput):
        await outputs.delete(name)
