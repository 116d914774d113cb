import subprocess
from pathlib import Path

import pytest

from zene.cli import patch
from zene.domain.errors import Conflict

CHANGE = """\
diff --git a/a.txt b/a.txt
--- a/a.txt
+++ b/a.txt
@@ -1 +1 @@
-old
+new \x1b[31mred
"""


def make_work_tree(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.txt").write_text("old\n")
    return folder


def test_a_diff_is_shown_with_its_control_characters_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    patch.show(CHANGE)
    assert capsys.readouterr().out == CHANGE.replace("\x1b", "\\x1b")


async def test_a_diff_is_applied_to_a_folder_without_git(folder: Path) -> None:
    await patch.apply(CHANGE, folder, "ses_1")
    assert (folder / "a.txt").read_text() == "new \x1b[31mred\n"


async def test_a_diff_is_applied_to_a_folder_inside_a_work_tree(
    folder: Path, tmp_path: Path
) -> None:
    make_work_tree(tmp_path)
    await patch.apply(CHANGE, folder, "ses_1")
    assert (folder / "a.txt").read_text() == "new \x1b[31mred\n"


async def test_a_diff_that_does_not_fit_is_kept_and_changes_nothing(folder: Path) -> None:
    (folder / "a.txt").write_text("something else\n")
    with pytest.raises(Conflict, match=r"kept in zene-ses_1\.patch"):
        await patch.apply(CHANGE, folder, "ses_1")
    assert (folder / "a.txt").read_text() == "something else\n"
    assert (folder.parent / "zene-ses_1.patch").read_text() == CHANGE


@pytest.mark.parametrize("target", ["../outside", ".git/hooks/pre-commit", "link/outside"])
async def test_a_diff_writes_nowhere_else(folder: Path, target: str) -> None:
    make_work_tree(folder)
    (folder / "link").symlink_to(folder.parent)
    hostile = f"diff --git a/{target} b/{target}\nnew file mode 100755\n--- /dev/null\n+++ b/{target}\n@@ -0,0 +1 @@\n+x\n"
    with pytest.raises(Conflict):
        await patch.apply(hostile, folder, "ses_1")
    assert not (folder / target).exists()
