"""What a run knows: the session's history as the store holds it once all that was said is committed.

Whatever the loop makes true it says here, so that its own view changes by the very drafts that the store
gets, and a run that starts from the store sees the same.
"""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from zene.agent.base import Batch
from zene.domain.events import (
    Body,
    Draft,
    ItemCompleted,
    ItemKind,
    ItemStarted,
    StepFinished,
    StepStarted,
    TaskFinished,
    TaskWaiting,
    as_json,
)
from zene.domain.messages import (
    Compaction,
    Content,
    Item,
    Message,
    Reasoning,
    SystemText,
    ToolCall,
    Usage,
)
from zene.domain.situation import Situation
from zene.tools.base import Done


class Conversation:
    """The history, and what of it has been said but not yet been given to be committed."""

    def __init__(self, situation: Situation) -> None:
        self.task = situation.task
        self.items = list(situation.items)
        self.begun = set(situation.begun)
        self.step = situation.step
        self.usage: Usage = situation.usage
        self.cost = situation.task.cost
        self.counted = situation.counted
        self.has_ended = False
        self._places = {item.id: place for place, item in enumerate(self.items)}
        self._said: list[Draft] = []

    @property
    def has_news(self) -> bool:
        """Whether something was said that is not yet in a batch."""
        return bool(self._said)

    @property
    def is_new_task(self) -> bool:
        """Whether the task has no item yet."""
        return not any(item.task_id == self.task.id for item in self.items)

    @property
    def system(self) -> str | None:
        """The system text in force."""
        texts = (item.content for item in reversed(self.items))
        return next((content.text for content in texts if isinstance(content, SystemText)), None)

    @property
    def can_be_compacted(self) -> bool:
        """Whether the model has said anything since the last compaction that a summary could shorten."""
        return any(isinstance(item.content, Message | Reasoning | ToolCall) for item in self.items)

    def calls(self) -> Iterator[tuple[Item, ToolCall]]:
        """Every tool call since the last compaction, oldest first."""
        for item in self.items:
            if isinstance(item.content, ToolCall):
                yield item, item.content

    def open_calls(self) -> list[tuple[Item, ToolCall]]:
        """The calls that have no result."""
        return [(item, call) for item, call in self.calls() if call.result is None]

    def batch(self, intents: Sequence[str] = (), reserve: int | None = None) -> Batch:
        """What was said since the last batch, to be committed."""
        drafts, self._said = self._said, []
        self.begun.update(intents)
        return Batch(drafts=drafts, intents=intents, reserve=reserve)

    def say(
        self, body: Body, *, item_id: str | None = None, content: Content | None = None
    ) -> None:
        """Make this true with the next batch."""
        match body:
            case StepStarted():
                self.step += 1
            case StepFinished(usage=usage, cost=cost):
                self.usage = self.usage + usage
                self.cost = self.cost if cost is None else (self.cost or 0.0) + cost
            case TaskFinished() | TaskWaiting():
                self.has_ended = True
            case _:
                pass
        self._said.append(
            Draft(body=body, task_id=self.task.id, step=self.step, item_id=item_id, content=content)
        )
        if item_id is not None and content is not None:
            self._remember(item_id, content)

    def say_item(self, item_id: str, kind: ItemKind, content: Content, text: str) -> None:
        """An item that is whole at once."""
        self.say(ItemStarted(item_id=item_id, kind=kind), item_id=item_id)
        self.say_text(item_id, kind, content, text)

    def say_text(self, item_id: str, kind: ItemKind, content: Content, text: str) -> None:
        """The end of an item of text that was started."""
        body = ItemCompleted(item_id=item_id, kind=kind, status="completed", text=text)
        self.say(body, item_id=item_id, content=content)

    def say_call(self, item_id: str, kind: ItemKind, call: ToolCall) -> None:
        """A call that is open from now on."""
        body = ItemStarted(
            item_id=item_id,
            kind=kind,
            call_id=call.call_id,
            name=call.name,
            arguments=as_json(call.arguments),
        )
        self.say(body, item_id=item_id, content=call)

    def say_result(self, item_id: str, kind: ItemKind, call: ToolCall, done: Done) -> None:
        """The end of a call."""
        result = done.result
        body = ItemCompleted(
            item_id=item_id,
            kind=kind,
            status=result.status,
            call_id=call.call_id,
            name=call.name,
            arguments=as_json(call.arguments),
            output=result.output,
            exit_code=result.exit_code,
            duration_ms=result.duration_ms,
            path=done.path,
            plan=None if done.plan is None else list(done.plan),
        )
        self.say(body, item_id=item_id, content=replace(call, result=result))

    def _remember(self, item_id: str, content: Content) -> None:
        if isinstance(content, Compaction):
            self.items.clear()
            self._places.clear()
            self.counted = None
        place = self._places.get(item_id)
        if place is None:
            item = Item(id=item_id, task_id=self.task.id, step=self.step, content=content)
            self._places[item_id] = len(self.items)
            self.items.append(item)
        else:
            self.items[place] = replace(self.items[place], content=content)
