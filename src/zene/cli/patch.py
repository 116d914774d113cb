"""What the agent changed: shown in colours, or applied to the caller's folder by the caller's git."""

import asyncio
import contextlib
import os
from pathlib import Path

from zene.cli import terminal
from zene.cli.terminal import Style, safe, styled
from zene.domain.errors import Conflict, SetupError, ZeneError

# A line of a diff by how it begins; the first that fits counts.
_STYLES: tuple[tuple[str, Style], ...] = (
    ("diff ", "bold"), ("index ", "dim"), ("+++", "bold"), ("---", "bold"),
    ("@@", "cyan"), ("+", "green"), ("-", "red"),
)  # fmt: skip


def show(patch: str) -> None:
    """Write the patch to stdout; coloured on a terminal, else as it is but for control characters."""
    for line in patch.removesuffix("\n").split("\n"):
        style = next((style for start, style in _STYLES if line.startswith(start)), None)
        terminal.say(styled(safe(line), style) if style else safe(line))


async def apply(patch: str, folder: Path, session: str) -> None:
    """Apply the patch to the folder, all of it or nothing.

    Raises SetupError without git, and Conflict where the patch does not fit; it is kept as a file then.
    """
    try:
        git = await asyncio.create_subprocess_exec(
            "git", "apply", "--whitespace=nowarn", "-",
            cwd=folder,
            env=_environment(folder),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError as err:
        raise SetupError(f"git is not installed here. {_keep(patch, session)}") from err
    _, complaint = await git.communicate(patch.encode(errors="surrogateescape"))
    if git.returncode:
        reason = complaint.decode(errors="replace").strip()
        raise Conflict(
            f"The diff does not fit {folder} any more. {_keep(patch, session)}\n{reason}"
        )


def _environment(folder: Path) -> dict[str, str]:
    """Git must take the folder for the top, also where it lies inside a larger work tree."""
    return os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}


def _keep(patch: str, session: str) -> str:
    file = Path(f"zene-{session}.patch")
    with contextlib.suppress(OSError):
        file.write_text(patch, errors="surrogateescape")
        return f"The diff is kept in {file}."
    raise ZeneError(f"The diff could not be applied, nor kept in {file}.")
