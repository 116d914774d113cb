"""What a tool is, and the operations that tools are handed: nothing here knows where they run.

A tool is a value: the Struct of its arguments, from which its schema is made, and a function. It changes
nothing but through its `Context`, so the same tool works locally and in a sandbox.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from zene.domain.events import ItemKind, PlanEntry
from zene.domain.messages import ToolResult
from zene.sandbox.base import Command, Exit, Output


class Entry(Struct, frozen=True, kw_only=True):
    """A name in a folder; `kind` is file, folder, link or other."""

    name: str
    kind: str
    size: int


class Workbench(Protocol):
    """A session's workspace and sandbox, as tools use them. Paths are relative to /workspace, or absolute
    below it. Errors are ZeneErrors whose message may be shown to the model.
    """

    def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]:
        """Run a command in the sandbox; see `sandbox.base.Sandbox.run`."""
        ...

    async def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a regular file. Raises NotFound, InvalidInput."""
        ...

    async def write(self, path: str, content: bytes) -> None:
        """Make the file hold exactly this, keeping its mode; missing folders are made. Raises InvalidInput."""
        ...

    async def list(self, path: str, limit: int) -> Sequence[Entry]:
        """What a folder holds, by name, the first `limit` of it. Raises NotFound, InvalidInput."""
        ...


class Context(Protocol):
    """One call's surroundings."""

    @property
    def bench(self) -> Workbench:
        """Where the call works."""
        ...

    @property
    def item_id(self) -> str:
        """The item of the call."""
        ...

    async def emit(self, data: bytes, stream: int = 1) -> None:
        """Output as it comes: shown live to followers, kept whole up to 16 MiB for `read_output`."""
        ...

    async def kept(self, call_id: str, offset: int, limit: int) -> tuple[bytes, int]:
        """Kept output of an earlier call of this session, by item id or call id, and its whole size in
        bytes. Raises NotFound.
        """
        ...

    async def earlier(self, offset: int, limit: int) -> tuple[Sequence[str], int]:
        """The session's whole history, items that a compaction summarised included, as lines of text
        (`agent.history.lines`) from `offset` on, and how many there are.
        """
        ...


class Done(Struct, frozen=True, kw_only=True):
    """What a tool gives back: the model's text in `result`, and for the page what the kind adds."""

    result: ToolResult
    path: str | None = None
    plan: tuple[PlanEntry, ...] | None = None


Arguments = TypeVar("Arguments", bound=Struct)


@dataclass(frozen=True, kw_only=True)
class Tool(Generic[Arguments]):
    """One thing the agent can do.

    `run` raises ZeneError for what the model should be told as a failure; cancelling it stops what it
    began. `arguments` forbids unknown fields. A `read_only` tool may run twice and side by side.
    """

    name: str
    description: str
    arguments: type[Arguments]
    run: Callable[[Arguments, Context], Awaitable[Done]]
    kind: ItemKind = "tool_call"
    read_only: bool = True


def succeeded(output: str) -> Done:
    """A result that says only this."""
    return Done(result=ToolResult(status="succeeded", output=output))


def failed(why: str) -> Done:
    """A result that says why the call did nothing, and what to do instead."""
    return Done(result=ToolResult(status="failed", output=why))
