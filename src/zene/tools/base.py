"""What a tool is, and the operations that tools are handed: nothing here knows where they run."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

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

    def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]: ...

    async def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a regular file. Raises NotFound, InvalidInput."""
        ...

    async def write(self, path: str, content: bytes) -> None: ...

    async def list(self, path: str) -> Sequence[Entry]: ...


class Context(Protocol):
    """One call's surroundings."""

    @property
    def bench(self) -> Workbench: ...

    @property
    def item_id(self) -> str: ...

    async def emit(self, data: bytes, stream: int = 1) -> None:
        """Output as it comes: shown live to followers, kept whole up to 16 MiB for `read_output`."""
        ...

    async def kept(self, item_id_or_call_id: str, offset: int, limit: int) -> tuple[bytes, int]:
        """Kept output of an earlier call of this session and its whole size. Raises NotFound."""
        ...

    async def earlier(self, offset: int, limit: int) -> tuple[Sequence[str], int]:
        """The session's whole history, items that a compaction summarised included, as lines of text."""
        ...


class Done(Struct, frozen=True, kw_only=True):
    """What a tool gives back: the model's text in `result`, and for the page what the kind adds."""

    result: ToolResult
    path: str | None = None
    plan: tuple[PlanEntry, ...] | None = None


class Tool(Protocol):
    """One thing the agent can do. `run` raises ZeneError for what the model should be told as a failure;
    cancelling it stops what it began.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> dict[str, Any]: ...

    @property
    def kind(self) -> ItemKind: ...

    @property
    def read_only(self) -> bool: ...

    async def run(self, arguments: Any, context: Context) -> Done: ...
