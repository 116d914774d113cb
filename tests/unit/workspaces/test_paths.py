from typing import Any

import pytest

from tests.unit.workspaces.hostile import KEPT, cases, path_of
from zene.domain.errors import InvalidInput
from zene.workspaces import paths


@pytest.mark.parametrize("case", cases("path"), ids=lambda case: case["id"])
def test_a_hostile_path_is_not_written(case: dict[str, Any]) -> None:
    if case["expect"] == KEPT:
        assert ".." not in paths.for_writing(path_of(case)).split("/")
        return
    with pytest.raises(InvalidInput) as refused:
        paths.for_writing(path_of(case))
    assert refused.value.code == case["expect"]
    assert refused.value.message.isascii()
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ""),
        (".", ""),
        ("/workspace", ""),
        ("/workspace/", ""),
        ("/workspace//a/./b", "a/b"),
        ("a/../b", "b"),
        ("a//b/", "a/b"),
        ("workspace/a", "workspace/a"),
        ("ünïcode 名", "ünïcode 名"),
    ],
)
def test_a_path_is_taken_relative_to_the_workspace(path: str, expected: str) -> None:
    assert paths.inside(path) == expected


def test_names_as_long_as_linux_takes_them_are_allowed() -> None:
    assert paths.for_writing("n" * 255) == "n" * 255
    assert len(paths.inside("d/" * 2048)) == 4095
