"""Runs inside a sandbox: git, the same way for every script.

The options of every command come from the host (`inside.GIT`), since a command that lacked one could be
made to run a program by what is in the workspace.
"""

import errno
import os
import subprocess
from typing import Any

WORKSPACE, BASELINE = "/workspace", "/baseline"
FULL_DISK = (b"No space left on device", b"Out of diskspace")  # git says the one or the other
BASELINE_REF = "refs/zene/baseline"  # a tree


def git(options: dict[str, Any], *arguments: str) -> bytes:
    """What the command printed. Raises CalledProcessError, and OSError where the disk is full."""
    done = subprocess.run(  # noqa: S603 - that is what the sandbox is for
        git_command(options, *arguments),
        env=options["environment"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode and any(words in done.stderr for words in FULL_DISK):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    done.check_returncode()
    return done.stdout


def git_command(options: dict[str, Any], *arguments: str) -> list[str]:
    """The command line of a git that can be trusted with this."""
    return [*options["git"], *arguments]
