"""The loop holds no state: ended after any batch and started on what was stored, it goes on as if it had not."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace as replace_struct

from tests.local import LocalBench, LocalOperations
from tests.record import Record, new_task
from tests.scripted import Answer, Scripted, call, raw_call, says, thinks
from zene.agent.base import Batch, Limits
from zene.agent.loop import run
from zene.domain.approvals import ApprovalStatus
from zene.domain.events import StepFinished, TaskFinished, TaskWaiting
from zene.domain.messages import Block, Message, Reasoning, ToolCall, Usage, UserMessage
from zene.domain.sessions import ApprovalPolicy
from zene.domain.situation import Grant, Situation
from zene.llm.anthropic import Messages
from zene.llm.base import ModelInfo, Retrying
from zene.llm.openai import ChatCompletions
from zene.llm.responses import Responses
from zene.llm.wire import Wire
from zene.tools import TOOLS
from zene.tools.base import Context, Done, Tool

APPEND = call("shell", call_id="append", command="echo line >> log.txt; cat log.txt")


_WIRES: dict[str, Wire] = {"anthropic": Messages(), "openai.responses": Responses()}


def sealed(*parts: Message | Reasoning | ToolCall) -> list[Message | Reasoning | ToolCall]:
    """The parts as items of Responses, each with its block."""
    blocks = [Block(wire="openai.responses", data=Raw(b'{"n":%d}' % n)) for n in range(len(parts))]
    return [replace_struct(part, block=block) for part, block in zip(parts, blocks, strict=True)]


@dataclass(frozen=True)
class Story:
    """A conversation, how a person decides where one is asked, and what they say while a step is taken."""

    answers: Sequence[Answer]
    policy: ApprovalPolicy = "auto"
    decisions: Sequence[tuple[ApprovalStatus, str]] = ()
    window: int = 128_000
    wire: str = "scripted"
    only_reads: bool = False
    is_slow: bool = False
    steers: Mapping[int, Sequence[str]] = field(default_factory=dict)


STORIES = {
    "an answer without calls": Story([says("Nothing to do.")], only_reads=True),
    "calls one after the other": Story(
        [
            says("First.", APPEND),
            says(call("write_file", path="a.txt", content="one\ntwo\n")),
            says(call("edit_file", path="a.txt", old_text="two", new_text="three")),
            says(call("read_file", path="a.txt")),
            says("Done."),
        ]
    ),
    "calls side by side and in order": Story(
        [
            says(
                "Looking.",
                call("list_files"),
                call("find_files", pattern="*.md"),
                APPEND,
                call("write_file", path="b.txt", content="b"),
                call("read_file", path="log.txt"),
                call("read_file", path="b.txt"),
            ),
            says("Done."),
        ]
    ),
    "failures": Story(
        [
            says(raw_call("shell", '{"command": "ls'), call("nothing", x=1)),
            says(call("read_file", path="missing"), call("shell", command="exit 3")),
            [Retrying(1, 500, "429"), *says("Cut ", call("shell", "cut", command="x"), stop="length")],
            says("Done.", usage=None),
        ]
    ),
    "an answer that takes its time": Story(
        [
            says(thinks("Let me see what there is.", "s1"), "I look into it.", call("list_files")),
            says("There is nothing to be done here."),
        ],
        only_reads=True,
        is_slow=True,
    ),
    "a plan and long output": Story(
        [
            says(call("plan", entries=[{"text": "look"}])),
            says(call("shell", command="seq 1 20000")),
            says("Done."),
        ]
    ),
    "approvals, allowed": Story(
        [
            says("May I?", APPEND, call("list_files"), call("write_file", path="c", content="c")),
            says(call("shell", command="cat c")),
            says("Done."),
        ],
        policy="ask_for_writes",
        decisions=[("allowed", ""), ("allowed", "")],
    ),
    "approvals, denied": Story(
        [says("May I?", APPEND, call("list_files")), says("A pity.")],
        policy="ask_always",
        decisions=[("denied", "not now")],
        only_reads=True,
    ),
    "approvals, expired": Story(
        [says("May I?", APPEND), says("A pity.")],
        policy="ask_for_writes",
        decisions=[("expired", "")],
        only_reads=True,
    ),
    "compaction": Story(
        [
            says("First.", call("write_file", path="a", content="a"), usage=Usage(input_tokens=900, output_tokens=9)),
            says(call("plan", entries=[{"text": "look"}]), usage=Usage(input_tokens=9000, output_tokens=9)),
            says("The summary."),
            says(call("read_file", path="a"), usage=Usage(input_tokens=950, output_tokens=9)),
            says("Done."),
        ],
        window=10_000,
    ),
    "reasoning, anthropic": Story(
        [
            says(thinks("Hm.", "s1", "anthropic"), "Looking.", call("list_files"), APPEND),
            says(thinks("", "s2", "anthropic"), call("read_file", path="log.txt")),
            says(thinks("So.", "s3", "anthropic"), "Done."),
        ],
        wire="anthropic",
    ),
    "reasoning, responses": Story(
        [
            says(*sealed(thinks("Hm.", "s1"), Message("Looking."), call("list_files"), APPEND)),
            says(*sealed(thinks("", "s2"), call("read_file", path="log.txt"))),
            says(*sealed(thinks("So.", "s3"), Message("Done."))),
        ],
        wire="openai.responses",
    ),
    "steers": Story(
        [
            says("First.", APPEND, call("list_files")),
            says(call("read_file", path="log.txt")),
            says("Done."),
            says("Really done."),
        ],
        steers={1: ["Be brief."], 3: ["And then?", "I mean it."]},
    ),
    "steers, while a person is asked": Story(
        [says("May I?", call("list_files")), says("Done."), says("Done again.")],
        policy="ask_always",
        decisions=[("denied", "")],
        only_reads=True,
        steers={1: ["Be brief."], 2: ["Go on."]},
    ),
    "reasoning of another provider": Story(
        [
            says(thinks("Hm.", "s1", "other"), "Looking.", call("list_files")),
            says("Done."),
        ],
        only_reads=True,
    ),
}  # fmt: skip


@dataclass
class World:
    """A session with a workspace, in which a story happens."""

    story: Story
    root: Path
    record: Record = field(init=False)
    ops: LocalOperations = field(init=False)
    model: Scripted = field(init=False)
    runs: Counter[str] = field(default_factory=Counter)
    remembers: bool = True

    def __post_init__(self) -> None:
        self.root.mkdir()
        (self.root / "AGENTS.md").write_text("Write tests.\n")
        (self.root / "README.md").write_text("Read me.\n")
        self.record = Record(new_task(), self.story.policy)
        self.ops = LocalOperations(LocalBench(self.root))
        self.model = Scripted(
            *self.story.answers,
            wire=self.story.wire,
            info=ModelInfo(name="claude-sonnet-4-5", window=self.story.window, output_cap=1000),
            position=lambda: self.record.finished_steps,
            after_delta=self.ops.pass_time if self.story.is_slow else None,
        )
        self.ops.unheard = self.record.unheard
        self._decisions = list(self.story.decisions)
        self._steers = {step: list(said) for step, said in self.story.steers.items()}

    def start(self, situation: Situation | None = None) -> Any:
        return run(
            situation or self.record.situation(),
            model=self.model,
            tools=[self._watched(tool) for tool in TOOLS],
            ops=self.ops,
            limits=Limits(),
        )

    @property
    def moment(self) -> tuple[int, ...]:
        """How far the story is; steps that were begun do not count, since they are begun again."""
        record = self.record
        settled = sum(call.result is not None for call in record.calls.values())
        kept = sum(item is not None for item in record.items.values())
        counts = (record.finished_steps, kept, len(record.open), settled, len(record.begun))
        return (*counts, len(self._decisions), len(record.unheard))

    @property
    def is_over(self) -> bool:
        return isinstance(self.record.end, TaskFinished)

    def speak(self, batch: Batch) -> dict[str, str]:
        """What the user says just before a batch that ends a step is committed, by the ids it gets."""
        step = self.record.finished_steps + 1
        ends_step = any(isinstance(draft.body, StepFinished) for draft in batch.drafts)
        texts = self._steers.pop(step, []) if ends_step else []
        said = {f"itm_9{step}{number}": text for number, text in enumerate(texts)}
        self.record.unheard.update(said)
        return said

    def commit(self, batch: Batch) -> Grant | None:
        """The user may speak, and then the batch is stored."""
        self.speak(batch)
        return self.record.commit(batch)

    def answer_people(self) -> ApprovalStatus | None:
        if not isinstance(self.record.end, TaskWaiting):
            return None
        status, note = self._decisions.pop(0)
        self.record.decide(status, note)
        return status

    def bodies(self) -> list[bytes]:
        """Every request as it goes over the wire, ids named by the order in which they appear."""
        wire = _WIRES.get(self.story.wire, ChatCompletions(is_openai=False))
        return [_named(wire.body(request)) for request in self.model.requests]

    def _watched(self, tool: Tool[Any]) -> Tool[Any]:
        async def watched(arguments: Any, context: Context) -> Done:
            if not tool.read_only:
                self.runs[context.item_id] += 1
            done = await tool.run(arguments, context)
            if self.remembers and not tool.read_only:
                self.ops.remembered[context.item_id] = done.result
            return done

        return replace(tool, run=watched)


def _named(body: bytes) -> bytes:
    names: dict[bytes, bytes] = {}
    return re.sub(rb"itm_\d+", lambda m: names.setdefault(m[0], b"itm_%d" % len(names)), body)


async def tell(world: World) -> None:
    """The story without an interruption."""
    while not world.is_over:
        async with aclosing(world.start()) as loop:
            grant = None
            while world.record.end is None:
                grant = world.commit(await loop.asend(grant))
        world.answer_people()


async def tell_with_every_batch_lost_once(world: World) -> None:
    """A run dies with each batch in its hands, once: what it did is done, but not said."""
    lost = set()
    while not world.is_over:
        async with aclosing(world.start()) as loop:
            grant = None
            while world.record.end is None:
                batch = await loop.asend(grant)
                moment = (world.moment, type(batch.drafts[-1].body) if batch.drafts else None)
                if moment not in lost:
                    lost.add(moment)
                    break
                grant = world.commit(batch)
        world.answer_people()


async def tell_killed_after_each_commit(world: World) -> None:
    """A run dies right after each commit, once: what was announced did not happen."""
    seen = set()
    while not world.is_over:
        async with aclosing(world.start()) as loop:
            grant = None
            while world.record.end is None:
                grant = world.commit(await loop.asend(grant))
                if world.moment not in seen:
                    seen.add(world.moment)
                    break
        world.answer_people()


def distinct(bodies: Sequence[bytes]) -> list[bytes]:
    return list(dict.fromkeys(bodies))


@pytest.mark.parametrize("name", STORIES)
async def test_a_run_that_loses_every_batch_once_asks_the_model_the_same(
    name: str, tmp_path: Path
) -> None:
    whole = World(STORIES[name], tmp_path / "whole")
    await tell(whole)
    killed = World(STORIES[name], tmp_path / "killed")
    await tell_with_every_batch_lost_once(killed)
    assert distinct(killed.bodies()) == whole.bodies()
    assert max(killed.runs.values(), default=1) == 1
    assert sum(killed.runs.values()) == sum(whole.runs.values())
    assert ends(killed) == ends(whole) == ("succeeded", whole.record.finished.usage)
    assert files(killed) == files(whole)


@pytest.mark.parametrize("name", [name for name, story in STORIES.items() if story.only_reads])
async def test_a_run_killed_after_every_commit_asks_the_model_the_same(
    name: str, tmp_path: Path
) -> None:
    whole = World(STORIES[name], tmp_path / "whole")
    await tell(whole)
    killed = World(STORIES[name], tmp_path / "killed")
    await tell_killed_after_each_commit(killed)
    assert distinct(killed.bodies()) == whole.bodies()
    assert ends(killed) == ends(whole)


@pytest.mark.parametrize("name", [name for name, story in STORIES.items() if not story.only_reads])
async def test_a_call_that_may_have_run_is_marked_and_never_run_again(
    name: str, tmp_path: Path
) -> None:
    killed = World(STORIES[name], tmp_path / "killed", remembers=False)
    await tell_with_every_batch_lost_once(killed)
    assert max(killed.runs.values()) == 1
    changing = {tool.name for tool in TOOLS if not tool.read_only}
    results = [
        call.result for item_id, call in killed.record.calls.items() if item_id in killed.runs
    ]
    assert {result.status for result in results if result} == {"interrupted"}
    assert all(
        call.name in changing for call in killed.record.calls.values() if call.result in results
    )
    assert killed.record.finished.outcome == "succeeded"


async def test_what_is_said_comes_after_all_results_and_once(tmp_path: Path) -> None:
    world = World(STORIES["steers"], tmp_path / "killed")
    await tell_with_every_batch_lost_once(world)
    last = world.model.requests[-1].items
    said = [item.content.text for item in last if isinstance(item.content, UserMessage)]
    assert said == ["Mend it.", "Be brief.", "And then?", "I mean it."]
    contents = [type(item.content).__name__ for item in last]
    assert contents == [
        "SystemText", "UserMessage", "Message", "ToolCall", "ToolCall", "UserMessage", "ToolCall",
        "Message", "UserMessage", "UserMessage",
    ]  # fmt: skip
    assert len(world.record.of(TaskFinished)) == 1


def ends(world: World) -> tuple[str, Usage]:
    return world.record.finished.outcome, world.record.finished.usage


def files(world: World) -> dict[str, str]:
    return {path.name: path.read_text() for path in world.root.iterdir()}
