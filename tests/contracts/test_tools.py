"""The tools do the same on every workbench: a plain folder, and a workspace with its real sandbox."""

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.local import LocalBench, LocalContext
from zene.domain.errors import InvalidInput, NotFound, ZeneError
from zene.domain.messages import ToolResult
from zene.sandbox.base import MEBIBYTE, Command, Exit, Output, Sandbox, Spec
from zene.sandbox.bwrap import BubblewrapProvider
from zene.tools import TOOLS
from zene.tools.base import Entry, Workbench
from zene.tools.shell import recovered
from zene.workspaces.files import Files
from zene.workspaces.workspaces import Workspaces


class SandboxBench:
    """A session's workspace as the host sees it, and the sandbox that shows it."""

    def __init__(self, sandbox: Sandbox, files: Files) -> None:
        self.sandbox = sandbox
        self._files = files

    async def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]:
        async with aclosing(self.sandbox.run(command)) as outputs:
            async for output in outputs:
                yield output

    async def read(self, path: str, limit: int) -> bytes:
        return await self._files.read(path, limit)

    async def write(self, path: str, content: bytes) -> None:
        await self._files.write(path, content)

    async def list(self, path: str, limit: int) -> Sequence[Entry]:
        page = await self._files.list(path, limit=limit)
        return [Entry(name=e.name, kind=e.kind, size=e.size) for e in page.entries]


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncGenerator[BubblewrapProvider, None]:
    started = BubblewrapProvider(installation=f"test-{uuid.uuid4().hex[:12]}", data_dir=tmp_path)
    await started.start()
    yield started
    await started.close()


@pytest.fixture
async def in_sandbox(
    provider: BubblewrapProvider, tmp_path: Path
) -> AsyncGenerator[SandboxBench, None]:
    workspaces = Workspaces(
        data_dir=tmp_path, sandboxes=provider, disk_bytes=96 * MEBIBYTE, inodes=8192
    )
    await workspaces.start()
    await workspaces.create("ses_1", None)
    workspace = await workspaces.acquire("ses_1")
    sandbox = await provider.open(Spec(label="ses_1", folders=workspace.folders))
    yield SandboxBench(sandbox, workspace.files)
    await sandbox.close()
    await workspace.release()
    await workspaces.close()


@pytest.fixture(params=["folder", "sandbox"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> LocalContext:
    bench: Workbench
    if request.param == "folder":
        (tmp_path / "plain").mkdir()
        bench = LocalBench(tmp_path / "plain")
    else:
        bench = request.getfixturevalue("in_sandbox")
    return LocalContext(bench, f"itm_{uuid.uuid4().hex}", {})


async def use(context: LocalContext, name: str, **arguments: Any) -> ToolResult:
    """Use a tool as the agent does."""
    tool = next(tool for tool in TOOLS if tool.name == name)
    return (await tool.run(tool.arguments(**arguments), context)).result


async def test_what_one_tool_does_the_others_see(context: LocalContext) -> None:
    await use(
        context, "write_file", path="src/a b/app.py", content="def answer():\n    return 41\n"
    )
    assert (await use(context, "list_files")).output == "src/"
    assert (await use(context, "find_files", pattern="*.py")).output == "src/a b/app.py"
    found = await use(context, "search_files", pattern="return", path="src")
    assert found.output == "src/a b/app.py:2:    return 41"
    await use(context, "edit_file", path="src/a b/app.py", old_text="41", new_text="42")
    ran = await use(context, "shell", command="cat 'src/a b/app.py'; touch made")
    assert ran.output == "def answer():\n    return 42"
    assert (await use(context, "list_files")).output == "made\nsrc/"
    read = await use(context, "read_file", path="src/a b/app.py", offset=2)
    assert read.output == "    return 42"


async def test_a_long_folder_is_cut_with_a_mark(context: LocalContext) -> None:
    await use(context, "shell", command="mkdir many; cd many; touch $(seq -f %04g 0 1002)")
    listed = (await use(context, "list_files", path="many")).output.splitlines()
    assert (len(listed), listed[0], listed[999]) == (1001, "0000", "0999")
    assert listed[-1] == "[… more than 1000 in all; find_files or shell shows the others]"


async def test_a_file_keeps_its_mode_when_it_is_edited(context: LocalContext) -> None:
    await use(context, "shell", command="printf '#!/bin/sh\\necho one\\n' > run; chmod 755 run")
    await use(context, "edit_file", path="run", old_text="one", new_text="two")
    assert (await use(context, "shell", command="./run")).output == "two"


async def test_what_is_missing_is_told(context: LocalContext) -> None:
    with pytest.raises(NotFound):
        await use(context, "read_file", path="gone")
    with pytest.raises(NotFound):
        await use(context, "list_files", path="gone")
    assert (await use(context, "search_files", pattern="x", path="gone")).status == "failed"


async def test_a_folder_is_no_file(context: LocalContext) -> None:
    await use(context, "shell", command="mkdir folder")
    with pytest.raises(InvalidInput):
        await use(context, "read_file", path="folder")


async def test_commands_end_as_they_end(context: LocalContext) -> None:
    assert (await use(context, "shell", command="echo out; echo err >&2; exit 7")).exit_code == 7
    killed = await use(context, "shell", command="kill -9 $$")
    assert killed.output.endswith("[killed by signal 9]")
    late = await use(context, "shell", command="echo begun; sleep 60", timeout_seconds=1)
    assert late.output.startswith("begun\n[timed out after 1 s")


async def test_output_is_streamed_kept_and_cut(context: LocalContext) -> None:
    result = await use(context, "shell", command="seq 1 20000")
    assert "bytes left out" in result.output
    kept, size = await context.kept(context.item_id, 0, 1 << 20)
    assert size == len(kept) == 108_894
    rest = await use(context, "read_output", call_id=context.item_id, offset=108_888)
    assert rest.output == "20000\n\n[bytes 108888 to 108894 of 108894]"


async def test_output_that_no_terminal_should_see_is_made_visible(context: LocalContext) -> None:
    shown = await use(context, "shell", command=r"printf 'a\0b\rc\377\033[2Jd'")
    assert shown.output == "a␀b\nc�␛[2Jd"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "/workspace/../etc/passwd"])
async def test_no_tool_for_files_leaves_the_workspace(context: LocalContext, path: str) -> None:
    with pytest.raises(ZeneError):
        await use(context, "read_file", path=path)
    with pytest.raises(ZeneError):
        await use(context, "write_file", path=path, content="x")


async def test_a_link_out_of_the_workspace_is_not_followed(in_sandbox: SandboxBench) -> None:
    context = LocalContext(in_sandbox, "itm_1", {})
    await use(context, "shell", command="ln -s /etc/passwd out; ln -s / root")
    for path in ("out", "root/etc/passwd"):
        with pytest.raises(ZeneError):
            await use(context, "read_file", path=path)


async def test_the_sandbox_remembers_a_call_for_the_next_run(in_sandbox: SandboxBench) -> None:
    context = LocalContext(in_sandbox, "itm_remembered", {})
    told = await use(context, "shell", command="echo once; exit 4")
    outcome = await in_sandbox.sandbox.outcome("itm_remembered")
    assert outcome is not None
    assert recovered(outcome) == told
