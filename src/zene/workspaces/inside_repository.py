"""Runs inside a sandbox: the repositories that an upload leads to, Zene's baseline and the agent's own.

Of what was sent only objects, refs and files get into either.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from zene.workspaces.inside_answer import Refused
from zene.workspaces.inside_git import BASELINE, BASELINE_REF, WORKSPACE, git
from zene.workspaces.inside_tar import Member

INCOMING = "/tmp/incoming.git"  # noqa: S108 - inside the sandbox


def record_baseline(options: dict[str, Any]) -> None:
    """All files as they are now, as one tree in Zene's own repository; its index makes a diff fast.

    With the threshold at one byte, git writes them into one pack instead of a file for each.
    """
    git(options, "init", "-q", "--bare", "--template=", BASELINE)
    Path(BASELINE, "info").mkdir(exist_ok=True)
    Path(BASELINE, "info/attributes").write_text(options["attributes"])
    here = ("--git-dir=" + BASELINE, "--work-tree=" + WORKSPACE)
    git(
        options,
        *here,
        "-C",
        WORKSPACE,
        "-c",
        "core.bigFileThreshold=1",
        "add",
        "-A",
        "-f",
        "--",
        ".",
    )
    tree = git(options, *here, "write-tree").decode().strip()
    git(options, *here, "update-ref", BASELINE_REF, tree)


class Repository:
    """What of an archive's `.git` is kept: put aside in a bare repository, then fetched from there."""

    KEPT = re.compile(
        rb"objects/[0-9a-f]{2}/[0-9a-f]{38}|objects/pack/pack-[0-9a-f]{40}\.(pack|idx)"
        rb"|refs/[^\x00-\x20\x7f~^:?*\[\\]+|packed-refs|HEAD|shallow"
    )

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self.found = False
        self.dropped: set[str] = set()

    def add(self, one: Member, parts: list[bytes], data: Iterator[bytes]) -> None:
        """Keep or drop a member below any `.git`."""
        path = b"/".join(parts[1:])
        kept = one.kind == "file" and parts[0] == b".git" and self.KEPT.fullmatch(path)
        if not kept or path.endswith(b".lock"):
            self._drop(one, parts)
            return
        if not self.found:
            git(self._options, "init", "-q", "--bare", "--template=", INCOMING)
            self.found = True
        target = Path(INCOMING, os.fsdecode(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for part in data:
                file.write(part)

    def _drop(self, one: Member, parts: list[bytes]) -> None:
        at = [part.lower() for part in parts].index(b".git")
        inner = parts[at + 1 : at + 2]
        if one.kind == "dir" and parts[0] == b".git" and inner in ([], [b"objects"], [b"refs"]):
            return
        shown = parts[: at + 2] if inner not in ([b"objects"], [b"refs"]) else parts
        self.dropped.add(os.fsdecode(b"/".join(shown)))

    def take_over(self) -> None:
        """Make /workspace a repository with these objects and refs, and nothing else."""
        if not self.found:
            return
        try:
            git(self._options, "init", "-q", "--template=", "-b", "main", WORKSPACE)
            how = ("-q", "--no-tags", "--update-head-ok", "--update-shallow", "--no-auto-gc")
            self._git("fetch", *how, "--no-write-fetch-head", INCOMING, "+refs/*:refs/*")
            self._set_head()
        except subprocess.CalledProcessError as err:
            why = ascii(err.stderr.decode(errors="replace")[-300:])
            raise Refused(
                422, "archive_git_damaged", "its .git folder cannot be read: " + why
            ) from None
        shutil.rmtree(INCOMING)

    def _set_head(self) -> None:
        head = os.fsdecode(Path(INCOMING, "HEAD").read_bytes()[:1024]).strip()
        if re.fullmatch("[0-9a-f]{40}", head):
            self._git("update-ref", "--no-deref", "HEAD", head)
        elif head.startswith("ref: refs/heads/"):
            self._git("symbolic-ref", "HEAD", head[len("ref: ") :])
        with suppress(subprocess.CalledProcessError):  # a branch that has no commit yet
            self._git("read-tree", "HEAD")

    def _git(self, *arguments: str) -> None:
        allowed = ("-c", "protocol.file.allow=always", "-c", "fetch.unpackLimit=1")
        git(self._options, *allowed, "-C", WORKSPACE, *arguments)
