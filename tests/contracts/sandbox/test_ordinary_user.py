"""The same suite for a user without rights: run as one, in a process of its own."""

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.contracts.sandbox.as_ordinary_user import UID

SUITE = ("test_running.py", "test_confinement.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="the suite runs as an ordinary user already")
async def test_an_ordinary_user_has_the_same_sandbox_without_caps() -> None:
    here = Path(__file__).parent
    home = Path(tempfile.mkdtemp(dir="/var/tmp"))
    os.chown(home, UID, UID)
    argv = ["pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(home / "tmp")]
    files = [str(here / name) for name in SUITE]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contracts.sandbox.as_ordinary_user", *argv, *files),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    shutil.rmtree(home)
    assert process.returncode == 0, output.decode()
