"""The checks have teeth: on a build that breaks a promise, the check of that promise fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.broken.builds import BUILDS

CAUGHT_SECONDS = 60
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", BUILDS)
def test_it_is_caught_that(name: str, tmp_path: Path) -> None:
    check = BUILDS[name].caught_by
    options = (
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"--basetemp={tmp_path / 'of'}",
    )
    ran = subprocess.run(
        [sys.executable, "-m", "tests.broken", name, "pytest", *options, check],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=CAUGHT_SECONDS,
        check=False,
    )
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout + ran.stderr
    assert f"FAILED {check}" in ran.stdout, ran.stdout
