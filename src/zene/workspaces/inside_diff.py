"""Runs inside a sandbox: what of /workspace differs from /baseline, as a list and as a patch.

The baseline's index finds what may have changed without reading the rest; only those files go into a small
index of their own, in memory, on which git then compares. The workspace may change meanwhile: nothing that
is no regular file is given to git by name, and the host sets a time limit.
"""
# ruff: noqa: B905 - zip(strict) came with Python 3.10

import os
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zene.workspaces.inside_answer import answer
from zene.workspaces.inside_git import BASELINE, BASELINE_REF, WORKSPACE, git_command

SCRATCH = "/tmp/scratch.git"  # noqa: S108 - inside the sandbox
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
EMPTY_BLOB = b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
NO_BLOB = b"0" * 40
GONE = -1  # the size of what is no regular file and no link any more
CHUNK = 1 << 16
RAW = ("diff-index", "--raw", "-z", "--no-renames", "--abbrev=40")
NUMBERS = ("diff-index", "--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv")
PATCH = (
    "diff-index",
    "-p",
    "--binary",
    "--full-index",
    "--no-renames",
    "--no-ext-diff",
    "--no-textconv",
)


class Candidate(NamedTuple):
    """A path that may differ: its mode and blob in the baseline (none if new), and its size then and now."""

    path: bytes
    mode: bytes
    blob: bytes
    size: int
    old_size: int = 0


class Difference(NamedTuple):
    """A candidate that does differ, with its lines; both 0 for what is no text."""

    candidate: Candidate
    added: int
    removed: int
    is_binary: bool


class Comparison:
    """git between the baseline and the workspace."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._most_bytes: int = options["most_file_bytes"]
        reference = Path(BASELINE, BASELINE_REF)
        self._tree = reference.read_text().strip() if reference.exists() else EMPTY_TREE
        for name in ("info", "objects/info", "refs"):
            Path(SCRATCH, name).mkdir(parents=True)
        Path(SCRATCH, "HEAD").write_text("ref: refs/heads/none\n")
        if reference.exists():
            Path(SCRATCH, "objects/info/alternates").write_text(f"{BASELINE}/objects\n")
        self.treat_as_text(is_text=True)

    def treat_as_text(self, *, is_text: bool) -> None:
        """Whether the next patch shows lines, or only what git can carry in ASCII whatever the content."""
        attributes = self._options["attributes"] if is_text else "* -diff\n"
        Path(SCRATCH, "info/attributes").write_text(attributes)

    def candidates(self) -> tuple[list[Candidate], int]:
        """Whatever may differ, by path, cut at a number; and how many there are."""
        found: list[Candidate] = []
        total = 0
        for candidate in self._known():
            total += 1
            if total <= self._options["most_files"]:
                found.append(candidate)
        for path in self._new():
            size = size_of(path)
            total += size != GONE
            if size != GONE and total <= self._options["most_files"]:
                found.append(Candidate(path, b"", b"", size))
        return self._with_old_sizes(sorted(found)), total

    def differences(self, candidates: Sequence[Candidate]) -> list[Difference]:
        """Those of them that differ. Files that are too large to be shown are not read if their sizes say it."""
        sure = [one for one in candidates if self.is_large(one) and one.size != one.old_size]
        rest = sorted(set(candidates) - set(sure))
        by_path = {one.path: one for one in rest}
        found = [Difference(one, 0, 0, is_binary=True) for one in sure]
        if not rest:
            return found
        for line in self._records(*NUMBERS, self._fill(rest)):
            added, removed, path = line.split(b"\t", 2)
            lines = (0, 0) if added == b"-" else (int(added), int(removed))
            found.append(Difference(by_path[path], *lines, is_binary=added == b"-"))
        return sorted(found)

    def patch(self, differences: Sequence[Difference], most: int) -> bytes:
        """At most so many bytes of the patch of those that are not too large."""
        shown = [one.candidate for one in differences if not self.is_large(one.candidate)]
        if not shown:
            return b""
        process = self._begin(*PATCH, self._fill(shown))
        with process, process.stdout as out:  # type: ignore[union-attr] # it is a pipe
            text = out.read(most + 1)
            process.kill()
        return bytes(text)

    def is_large(self, one: Candidate) -> bool:
        """Whether it is only named, with its size."""
        return max(one.size, one.old_size) > self._most_bytes

    def _known(self) -> Iterator[Candidate]:
        """Files of the baseline whose size, times or inode are not as they were recorded."""
        if self._tree == EMPTY_TREE:
            return
        records = self._records(*RAW, self._tree, index=f"{BASELINE}/index")
        for fields, path in zip(records, records):
            mode, _, blob = fields[1:].split(b" ")[:3]
            yield Candidate(path, mode, blob, size_of(path))

    def _new(self) -> Iterator[bytes]:
        """Files that the baseline does not have and no .gitignore names; also below repositories of the agent."""
        others = ("ls-files", "-z", "--others", "--exclude-standard")
        for path in self._records(*others, index=f"{BASELINE}/index"):
            if path.endswith(b"/"):
                yield from files_below(path.rstrip(b"/"))
            else:
                yield path

    def _with_old_sizes(self, found: list[Candidate]) -> list[Candidate]:
        blobs = b"".join(one.blob + b"\n" for one in found if one.blob)
        if not blobs:
            return found
        sizes = iter(self._run("cat-file", "--batch-check=%(objectsize)", data=blobs).split())
        return [one._replace(old_size=int(next(sizes))) if one.blob else one for one in found]

    def _fill(self, candidates: Sequence[Candidate]) -> str:
        """Make them the whole index, and what they were a tree; answers the tree's id."""
        old = [b"%s %s\t%s" % (one.mode, one.blob, one.path) for one in candidates if one.blob]
        gone = [b"0 %s\t%s" % (NO_BLOB, one.path) for one in candidates if one.size == GONE]
        new = [b"100644 %s\t%s" % (EMPTY_BLOB, one.path) for one in candidates if not one.blob]
        Path(SCRATCH, "index").unlink(missing_ok=True)
        self._run("update-index", "-z", "--index-info", data=b"\0".join([*old, b""]))
        tree = self._run("write-tree", "--missing-ok").decode().strip()
        self._run("update-index", "-z", "--index-info", data=b"\0".join([*gone, *new, b""]))
        self._run("update-index", "-q", "--refresh", check=False)  # fails where files differ
        return tree

    def _records(self, *arguments: str, index: str = "") -> Iterator[bytes]:
        """What the command prints, ended by NUL each, as it comes."""
        rest = b""
        with self._begin(*arguments, index=index) as process:
            while chunk := os.read(process.stdout.fileno(), CHUNK):  # type: ignore[union-attr]
                *records, rest = (rest + chunk).split(b"\0")
                yield from records

    def _begin(self, *arguments: str, index: str = "") -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 - that is what the sandbox is for
            self._command(*arguments),
            env=self._environment(index),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def _run(self, *arguments: str, data: bytes = b"", check: bool = True) -> bytes:
        return subprocess.run(  # noqa: S603 - as above
            self._command(*arguments),
            env=self._environment(),
            input=data,
            stdout=subprocess.PIPE,
            check=check,
        ).stdout

    def _command(self, *arguments: str) -> list[str]:
        threshold = f"core.bigFileThreshold={self._most_bytes}"
        here = (f"--git-dir={SCRATCH}", f"--work-tree={WORKSPACE}")
        return git_command(self._options, "-c", threshold, *here, *arguments)

    def _environment(self, index: str = "") -> dict[str, str]:
        return {**self._options["environment"], "GIT_INDEX_FILE": index or f"{SCRATCH}/index"}


def size_of(path: bytes) -> int:
    """The size of a regular file or a link, or GONE for everything that git does not look at."""
    try:
        found = os.lstat(path)
    except OSError:
        return GONE
    return found.st_size if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode) else GONE


def files_below(folder: bytes) -> Iterator[bytes]:
    """Paths of what is in a folder that git takes for somebody else's repository, but for its `.git`."""
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name.lower() != b".git")
        links = [name for name in folders if size_of(above + b"/" + name) != GONE]
        for name in sorted(names + links):
            if name.lower() != b".git":
                yield above + b"/" + name


def in_utf8(
    comparison: Comparison, differences: Sequence[Difference], most: int
) -> tuple[bytes, bool]:
    """The patch, with files that are no UTF-8 carried as if they were binary, so that it can be applied; and
    whether it is cut. It is cut between files before any is looked at: half a letter is no UTF-8.
    """
    shown = [one for one in differences if not comparison.is_large(one.candidate)]
    whole = comparison.patch(shown, most)
    patch = whole_parts(whole, most)
    parts = parts_of(patch)
    others = [one for part, one in zip(parts, shown) if not is_utf8(part)]
    if others:
        text = b"".join(part for part in parts if is_utf8(part))
        comparison.treat_as_text(is_text=False)
        both = text + comparison.patch(others, most)
        patch = whole_parts(both, most)
        return patch, len(whole) > most or len(both) > most
    return patch, len(whole) > most


def parts_of(patch: bytes) -> list[bytes]:
    """One for each file; no line of content begins like that. What became a link, or was one, is shown as
    deleted and as new, under the same heading twice.
    """
    parts: list[bytes] = []
    for part in re.split(rb"(?m)^(?=diff --git )", patch):
        if parts and part.partition(b"\n")[0] == parts[-1].partition(b"\n")[0]:
            parts[-1] += part
        elif part:
            parts.append(part)
    return parts


def is_utf8(text: bytes) -> bool:
    """Whether it can be sent as text."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def whole_parts(patch: bytes, most: int) -> bytes:
    """Cut between two files, so that what remains can be applied."""
    if len(patch) <= most:
        return patch
    return patch[: patch.rfind(b"\ndiff --git ", 0, most) + 1]


def compare(options: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """All of it."""
    os.chdir(WORKSPACE)
    comparison = Comparison(options)
    candidates, total = comparison.candidates()
    differences = comparison.differences(candidates)
    patch, is_cut = b"", False
    if options["most_patch_bytes"]:
        patch, is_cut = in_utf8(comparison, differences, options["most_patch_bytes"])
    said = {
        "files": [told(comparison, one) for one in differences],
        "more_files": total - len(candidates),
        "is_cut": is_cut,
    }
    return said, patch


def told(comparison: Comparison, one: Difference) -> dict[str, Any]:
    """A difference as the host gets it; a size only where the content is too large to be shown."""
    candidate = one.candidate
    status = "added" if not candidate.blob else "deleted" if candidate.size == GONE else "modified"
    return {
        "path": candidate.path.decode(errors="backslashreplace"),
        "status": status,
        "added": one.added,
        "removed": one.removed,
        "is_binary": one.is_binary,
        "size": max(candidate.size, 0) if comparison.is_large(candidate) else None,
    }


if __name__ == "__main__":
    answer(compare)
