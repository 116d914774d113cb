"""Runs inside a sandbox: git, the same way for every script.

The options of every command come from the host (`inside.GIT`), since a command that lacked one could be
made to run a program by what is in the workspace.
"""

import subprocess
from typing import Any

WORKSPACE, BASELINE = "/workspace", "/baseline"
BASELINE_REF = "refs/zene/baseline"  # a tree


def git(options: dict[str, Any], *arguments: str) -> bytes:
    """What the command printed. Raises CalledProcessError."""
    return subprocess.run(  # noqa: S603 - that is what the sandbox is for
        git_command(options, *arguments),
        env=options["environment"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    ).stdout


def git_command(options: dict[str, Any], *arguments: str) -> list[str]:
    """The command line of a git that can be trusted with this."""
    return [*options["git"], *arguments]
