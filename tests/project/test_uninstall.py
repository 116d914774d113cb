"""`make uninstall`, in a mount namespace of its own: nothing stays of what Zene set up, but the data."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path("scripts/uninstall").resolve()
MACHINE = """
mount -t tmpfs none /run
mount -t tmpfs none /sys/fs/cgroup
mkdir -p /run/zene/shown /run/zene/uids
touch /run/zene/uids/200000
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script works on, so that it spares the one under test."""
    for name in ("checkout/scripts", "checkout/.venv", "data"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "checkout/scripts")
    (tmp_path / "data/zene.db").touch()
    return tmp_path / "checkout"


def uninstalled(checkout: Path, script: str, purge: str = "") -> str:
    """What it says on a machine where Zene was; the script's last lines look at what is left."""
    data = str(checkout.parent / "data")
    ended = subprocess.run(
        ("unshare", "--mount", "bash", "-euc", MACHINE + script),
        cwd=checkout,
        env={**os.environ, "ZENE_DATA_DIR": data, "PURGE": purge},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout


def test_nothing_stays_but_the_data(checkout: Path) -> None:
    told = uninstalled(checkout, "scripts/uninstall; test ! -e /run/zene")
    assert "removed /run/zene\n" in told
    assert not (checkout / ".venv").exists()
    assert (checkout.parent / "data/zene.db").exists()


def test_a_purge_leaves_no_data_either(checkout: Path) -> None:
    uninstalled(checkout, "scripts/uninstall; test ! -e /run/zene", purge="1")
    assert not (checkout.parent / "data").exists()


def test_what_a_running_neighbour_shows_its_sandboxes_stays(checkout: Path) -> None:
    held = "exec 9</run/zene/uids/200000; flock 9; "
    told = uninstalled(checkout, held + "scripts/uninstall; test -d /run/zene/shown")
    assert "left /run/zene: another Zene is using it\n" in told
