"""What the agent loop is handed and what it gives back: it knows neither bus, store nor server.

The loop yields `Batch`es. Each is committed whole, and published, before the loop is resumed; the answer
to a batch that reserves tokens is a `Grant` (`domain.situation`). It never yields inside a scope that it would have to leave
for a cancel, and holds no state that the stored history does not, so it can be ended after any batch
and started again on what is stored.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from zene.domain.events import Draft
from zene.domain.messages import ToolResult


class Batch(Struct, frozen=True, kw_only=True):
    """What becomes true at once.

    `intents` names the open calls (item ids) whose effect begins once this is committed.
    `reserve` is the input's bound in tokens of the model call that StepStarted in `drafts` announces.
    A last draft of TaskWaiting or TaskFinished ends the run: nothing is asked for after it.
    """

    drafts: Sequence[Draft]
    intents: Sequence[str] = ()
    reserve: int | None = None


class Finished(Struct, frozen=True, kw_only=True):
    """A finished side-by-side call."""

    item_id: str
    result: ToolResult


class Operations(Protocol):
    """What the runner does for the loop."""

    def new_id(self, prefix: str) -> str: ...

    def now_ms(self) -> int: ...

    def delta(self, draft: Draft) -> None:
        """Show followers an ItemDelta soon; never waits, may coalesce, ordered with the next batch."""
        ...

    def together(
        self, work: Mapping[str, Callable[[], Awaitable[ToolResult]]]
    ) -> AsyncGenerator[Finished, None]:
        """Run the calls side by side in a scope of the runner's; yields each as it ends. Leaving early
        cancels the rest.
        """
        ...

    async def outcome(self, item_id: str) -> ToolResult | None:
        """What the sandbox's supervisor remembers of a call that may have run; None when nobody knows."""
        ...
