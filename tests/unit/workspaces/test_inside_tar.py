import gzip
import io
import tarfile
from typing import Any

import pytest

from tests.unit.workspaces.archives import archive, archive_of
from tests.unit.workspaces.hostile import archive_for, cases
from zene.workspaces.inside_answer import Refused
from zene.workspaces.inside_tar import Gunzip, Member, content, members

LIMIT = 64 << 20


def read(data: bytes) -> list[tuple[Member, bytes]]:
    tar = Gunzip(io.BytesIO(data), LIMIT)
    return [(one, b"".join(content(tar, one.size))) for one in members(tar)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_pythons_tarfile_writes_is_read_back(form: int) -> None:
    contents = {
        "plain.txt": b"text\n",
        "empty": b"",
        "d" * 90 + "/" + "f" * 90: b"long name",
        "exactly": b"x" * 512,
        "large": bytes(range(256)) * 2000,
    }
    found = read(archive(contents, form=form))
    assert {one.name.decode(): data for one, data in found} == contents
    assert {one.mtime for one, _ in found} == {1_600_000_000}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_and_alphabet_are_read_back(form: int) -> None:
    contents = {"名" * 80 + "/ü" * 100: b"x"}
    assert [one.name.decode() for one, _ in read(archive(contents, form=form))] == list(contents)


def test_links_and_folders_are_told_apart() -> None:
    found = read(
        archive_of(
            [{"name": "l", "link": "x"}, {"name": "h", "same": "l"}, {"name": "d", "type": "5"}]
        )
    )
    assert [(one.kind, one.target) for one, _ in found] == [
        ("link", b"x"),
        ("same", b"l"),
        ("dir", b""),
    ]


def test_gzip_members_one_after_the_other_are_one_stream() -> None:
    tar = gzip.decompress(archive({"x": b"content " * 1000}))
    pieces = b"".join(gzip.compress(tar[at : at + 700]) for at in range(0, len(tar), 700))
    assert read(pieces + bytes(512))[0][1] == b"content " * 1000


def test_an_archive_that_is_cut_anywhere_is_refused() -> None:
    whole = archive({f"{i}": b"x" * i for i in range(50)})
    for at in range(len(whole)):
        with pytest.raises(Refused):
            read(whole[:at])


@pytest.mark.parametrize(
    "case",
    [case for case in cases("archive") if case["category"] in ("form", "bomb") and "maker" in case],
    ids=lambda case: case["id"],
)
def test_a_hostile_archive_is_refused_by_the_reader(case: dict[str, Any]) -> None:
    if case["id"] == "inodes":  # that is for who makes the files
        assert len(read(archive_for(case))) == 9000
        return
    with pytest.raises(Refused) as refused:
        read(archive_for(case))
    assert refused.value.code == case["expect"]
