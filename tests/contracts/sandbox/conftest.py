"""A started provider, a session's folders as workspaces make them, and a sandbox on them."""

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from zene.sandbox import privileged
from zene.sandbox.base import (
    INSIDE_UID,
    MEBIBYTE,
    Command,
    Exit,
    Folder,
    Limits,
    Output,
    Sandbox,
    Spec,
)
from zene.sandbox.bwrap import BubblewrapProvider
from zene.sandbox.cgroups import Cgroups, find_cgroups

IMAGE_BYTES = 64 * MEBIBYTE
IMAGE_INODES = 1024
TARGETS = {"workspace": "/workspace", "home": "/home/zene", "tmp": "/tmp"}


@dataclass
class Ran:
    """What a command did."""

    exit: Exit
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        return self.output.decode()


async def run(sandbox: Sandbox, *argv: str, **options: object) -> Ran:
    """Run a command to its end."""
    output, errors = bytearray(), bytearray()
    async for frame in sandbox.run(Command(argv=argv, **options)):  # type: ignore[arg-type]  # by test
        if isinstance(frame, Exit):
            return Ran(frame, bytes(output), bytes(errors))
        if frame.stream == 1:
            output += frame.data
        else:
            errors += frame.data
    raise AssertionError("the stream ended without an Exit")


async def shell(sandbox: Sandbox, script: str, **options: object) -> Ran:
    """Run a shell script to its end."""
    return await run(sandbox, "/bin/sh", "-c", script, **options)


async def python(sandbox: Sandbox, script: str, **options: object) -> Ran:
    """Run a Python script to its end."""
    return await run(sandbox, "/usr/bin/python3", "-I", "-S", "-c", script, **options)


def first_output(frame: Output | Exit) -> bytes:
    """The bytes of a frame that must be output."""
    assert isinstance(frame, Output), frame
    return frame.data


def groups_of(installation: str) -> Cgroups:
    found = find_cgroups(installation)
    assert isinstance(found, Cgroups), found
    return found


def pids_under(installation: str, label: str) -> set[int]:
    """The processes of the sandbox of that label."""
    groups = groups_of(installation).find(label)
    return {pid for group in groups for pid in group.processes()}


def is_running(pid: int) -> bool:
    """Whether the process is there and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


@pytest.fixture
def installation() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def provider(installation: str, tmp_path: Path) -> AsyncIterator[BubblewrapProvider]:
    made = BubblewrapProvider(installation=installation, data_dir=tmp_path / "data")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[Folder, ...]]:
    """Workspace, home and temporary folder: in one image as root, else plain."""
    if os.geteuid() != 0:
        for name in TARGETS:
            (tmp_path / name).mkdir()
        yield tuple(
            Folder(target=target, mount=None, path=str(tmp_path / name))
            for name, target in TARGETS.items()
        )
        return
    mount = attach_new_image(tmp_path / "session.img")
    yield tuple(Folder(target=target, mount=mount, path=name) for name, target in TARGETS.items())
    os.close(mount)


def attach_new_image(path: Path) -> int:
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    options = ["-q", "-F", "-m", "0", "-N", str(IMAGE_INODES), "-O", "^resize_inode"]
    subprocess.run(["mkfs.ext4", *options, str(path)], check=True)
    mount = privileged.attach_image(path)
    for name in TARGETS:
        os.mkdir(name, 0o700, dir_fd=mount)
        os.chown(name, INSIDE_UID, INSIDE_UID, dir_fd=mount)
    return mount


@pytest.fixture
def limits() -> Limits:
    return Limits(memory_bytes=256 * MEBIBYTE, pids=64, open_files=256)


@pytest.fixture
def spec(folders: tuple[Folder, ...], limits: Limits) -> Spec:
    return Spec(label="session", folders=folders, limits=limits)


@pytest.fixture
async def sandbox(provider: BubblewrapProvider, spec: Spec) -> Sandbox:
    return await provider.open(spec)
