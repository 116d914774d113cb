"""What the agent loop is handed and what it gives back: it knows neither bus, store nor server.

The loop yields `Batch`es. Each is committed whole, and published, before the loop is resumed; the answer
to a batch that reserves tokens is a `Grant` (`domain.situation`). It never yields inside a scope that it
would have to leave for a cancel, and holds no state that the stored history does not, so it can be ended
after any batch and started again on what is stored.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from zene.domain.events import Draft, ItemKind, TaskFinished, TaskWaiting
from zene.domain.messages import ToolResult
from zene.domain.situation import Steer
from zene.tools.base import Context, Done, Workbench


class Limits(Struct, frozen=True, kw_only=True):
    """When a run ends by itself. `deadline_ms` is when the task's working time is used up."""

    steps: int = 200
    deadline_ms: int | None = None
    approval_seconds: int = 7 * 24 * 3600


class Batch(Struct, frozen=True, kw_only=True):
    """What becomes true at once, in this order.

    `intents` names the open calls (item ids) whose effect begins once this is committed; a call is named
    once in its life. `reserve` is the input's bound in tokens of the model call that StepStarted, the last
    of `drafts`, announces; where the call may never be made, the task ends with the batch. A last draft of
    TaskWaiting or TaskFinished ends the run: nothing comes after, but where the answer is Unheard the task
    has not ended.
    """

    drafts: Sequence[Draft]
    intents: Sequence[str] = ()
    reserve: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether the run ends with this batch."""
        return any(isinstance(draft.body, TaskFinished | TaskWaiting) for draft in self.drafts[-1:])


class Finished(Struct, frozen=True, kw_only=True):
    """A finished side-by-side call."""

    item_id: str
    done: Done


class Operations(Protocol):
    """What the runner does for the loop."""

    @property
    def bench(self) -> Workbench:
        """The session's workspace, for what the loop itself reads (AGENTS.md)."""
        ...

    def new_id(self, prefix: str) -> str:
        """An id that nothing else has."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        ...

    def delta(self, item_id: str, kind: ItemKind, offset: int, text: str) -> None:
        """Show followers that the item's text from `offset` (code points) on is this. Never waits; may
        coalesce; ordered with the next batch.
        """
        ...

    def context(self, item_id: str) -> Context:
        """The surroundings of one call."""
        ...

    def together(
        self, work: Mapping[str, Callable[[], Awaitable[Done]]]
    ) -> AsyncGenerator[Finished, None]:
        """Run the calls (by item id) side by side in a scope of the runner's; yields each as it ends. They
        raise nothing but what ends the run. Closing early cancels the rest and waits for them.
        """
        ...

    async def changed_files(self) -> tuple[Sequence[str], int] | None:
        """Paths of the files that are not as the session found them, whatever changed them, and how many more
        there may be; None when they cannot be compared now.
        """
        ...

    async def steers(self) -> Sequence[Steer]:
        """What the user said to the task that is not in the history yet."""
        ...

    async def outcome(self, item_id: str) -> ToolResult | None:
        """What the sandbox's supervisor remembers of a call that may have run (`tools.shell.recovered`
        words it); None when nobody knows.
        """
        ...
