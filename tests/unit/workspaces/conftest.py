"""Workspaces without sandboxes: files alone, on an image where the tests run as root, and in plain folders."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from zene.domain.errors import SandboxUnavailable
from zene.sandbox.base import Capabilities, Sandbox, Spec
from zene.workspaces.workspaces import Workspace, Workspaces

MEBIBYTE = 1 << 20


class NoSandboxes:
    """A provider on a machine that can mount images, and start nothing."""

    capabilities = Capabilities(commands=False, enforced=frozenset({"disk", "inodes"}), missing={})

    async def start(self) -> None:
        return

    async def open(self, spec: Spec) -> Sandbox:
        raise SandboxUnavailable(f"none for {spec.label}")

    async def kill(self, label: str) -> None:
        return

    def expect(self, spec: Spec) -> None:
        return

    async def reap(self) -> None:
        return

    async def close(self) -> None:
        return


@pytest.fixture(params=["images", "folders"])
async def workspaces(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[Workspaces, None]:
    """Of both kinds, with a small cap where there is one."""
    images = request.param == "images"
    if images and os.geteuid() != 0:
        pytest.skip("mounting an image needs root")
    made = Workspaces(
        data_dir=tmp_path,
        sandboxes=NoSandboxes(),
        disk_bytes=64 * MEBIBYTE if images else None,
        inodes=8192,
    )
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def workspace(workspaces: Workspaces) -> AsyncGenerator[Workspace, None]:
    """A session's, empty and open."""
    await workspaces.create("ses_1")
    async with workspaces.open("ses_1") as opened:
        yield opened


def host_path(workspace: Workspace) -> Path:
    """Where the test reaches the same files as the agent does, to play the agent."""
    return Path(f"/proc/self/fd/{workspace.root}")
