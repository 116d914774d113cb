"""`zene up` on Redis: a whole task goes over it, and whatever happens to it costs a delay at most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.model_server import Answer, Call, Fault, ModelServer, Script
from tests.redis_server import RedisServer, redis_server
from tests.servers import SECONDS, Log, Zene, a_free_port, begin, data, says, served_by
from zene.domain.events import FLEETING, Event

SHELL = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun"})
FOR_EVER = Call(name="shell", arguments={"command": "echo begun; sleep 600"})
WORDS = "one two three four five six seven eight nine ten " * 4
ENDLESS = Answer(text=WORDS, delay_ms=20, fault=Fault(stall_at=6000))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def zene(tmp_path: Path, model: ModelServer, server: RedisServer) -> AsyncIterator[Zene]:
    settings = served_by(model, ZENE_BUS=server.url)
    async with Zene(tmp_path, settings, a_free_port()) as person:
        await person.up()
        yield person


class Follower:
    """Somebody who follows a session from its beginning: its durable events, and each item's text by its deltas."""

    def __init__(self, log: Log) -> None:
        self._events = log.client.follow(log.session_id)
        self.seqs: list[int] = []
        self.texts: dict[str, str] = {}
        self.completed: dict[str, Any] = {}

    async def until(self, kind: str, /, **values: object) -> Event:
        """Read on to the first event that says this."""
        is_it = says(kind, **values)
        async with asyncio.timeout(SECONDS):
            async for event in self._events:
                self._take(event)
                if is_it(event):
                    return event
        raise AssertionError("the session was deleted")

    async def __aenter__(self) -> "Follower":
        return self

    async def __aexit__(self, *_: object) -> None:
        async with aclosing(self._events):
            pass

    def _take(self, event: Event) -> None:
        said = data(event)
        if event.type == "item.delta":
            before = self.texts.get(said["item_id"], "")
            assert said["offset"] <= len(before), "a delta leaves a gap"
            self.texts[said["item_id"]] = before[: said["offset"]] + said["text"]
        if event.type in FLEETING:
            return
        self.seqs.append(event.seq)
        if event.type == "item.completed":
            self.completed[said["item_id"]] = said

    def check(self) -> None:
        """Every event came once and in order; what was seen of a message is what it is."""
        assert self.seqs == list(range(1, len(self.seqs) + 1))
        for item_id, said in self.completed.items():
            if said["kind"] == "message":  # a short one has no deltas
                assert self.texts.get(item_id, said["text"]) == said["text"]


async def test_a_task_is_streamed_allowed_and_finished_over_redis(
    zene: Zene, model: ModelServer, server: RedisServer
) -> None:
    model.scripts["*"] = Script(
        answers=[Answer(text=WORDS, calls=[SHELL], delay_ms=5), Answer(text="Done.")]
    )
    log, task = await begin(zene, approval_policy="ask_always")
    async with Follower(log) as follower:
        await follower.until("approval.requested")
        [channel] = await server.ask("PUBSUB", "CHANNELS", "zene:*:live:*")
        assert channel.decode().endswith(log.session_id)
        [approval] = (await log.client.approvals()).items
        await log.client.decide(approval.id, "allow")
        await follower.until("task.finished", outcome="succeeded")
        follower.check()
        assert next(iter(follower.texts.values())) == WORDS
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()


async def test_a_cancel_ends_a_command_that_runs(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER])])
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    await log.client.cancel(task)
    assert (await log.finished(task, 5))["outcome"] == "cancelled"
    await log.check()


async def test_redis_restarts_in_the_middle_of_an_answer_and_nothing_is_missing(
    zene: Zene, model: ModelServer, server: RedisServer
) -> None:
    model.scripts["*"] = Script(
        answers=[Answer(text=WORDS, calls=[SHELL], delay_ms=40), Answer(text="Done.")]
    )
    log, task = await begin(zene)
    async with Follower(log) as follower, Follower(log) as late:
        await follower.until("item.delta", text="three")
        await server.restart()
        await follower.until("item.delta", text="ten")
        await late.until("item.delta", text="one two three")
        for each in (follower, late):
            await each.until("task.finished", outcome="succeeded")
            each.check()
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    await log.ran_once()


async def test_everything_goes_on_without_redis(
    zene: Zene, model: ModelServer, server: RedisServer
) -> None:
    answers = {"first": [Answer(calls=[SHELL])], "second": [Answer(calls=[FOR_EVER])]}
    model.scripts["*"] = Script(answers_to=answers)
    await server.kill()
    log, first = await begin(zene, "first", approval_policy="ask_always")
    async with Follower(log) as follower:
        await follower.until("approval.requested")
        [approval] = (await log.client.approvals()).items
        await log.client.decide(approval.id, "allow")
        await follower.until("task.finished", outcome="succeeded")
        follower.check()
    assert (await log.finished(first))["outcome"] == "succeeded"
    await log.check()
    log, second = await begin(zene, "second")
    async with Follower(log) as follower:
        await follower.until("item.started", name="shell")
        await log.client.cancel(second)
        await follower.until("task.finished", outcome="cancelled")
        follower.check()
    await log.check()


async def test_a_text_that_redis_lost_is_there_for_who_comes_later(
    zene: Zene, model: ModelServer, server: RedisServer
) -> None:
    model.scripts["*"] = Script(answers=[ENDLESS])
    log, task = await begin(zene)
    async with Follower(log) as follower:
        await follower.until("item.delta", text="ten")
        await server.restart()
        whole = says("item.delta", offset=0, text="one two three four")
        await log.live(lambda event: whole(event) and data(event)["text"].startswith("one two"))
    await log.client.cancel(task)
    assert (await log.finished(task))["outcome"] == "cancelled"


async def test_a_server_says_why_it_cannot_start_without_its_redis(tmp_path: Path) -> None:
    port = a_free_port()
    settings = {"ZENE_BUS": f"redis://:hidden@127.0.0.1:{port}"}
    async with Zene(tmp_path, settings, a_free_port()) as person:
        up, looked = await asyncio.gather(
            person("up", "--port", str(person.port)), person("doctor")
        )
    for code, out, err in (up, looked):
        assert code != 0
        assert f"The Redis at redis://127.0.0.1:{port}/0 cannot be used" in out + err
        assert "hidden" not in out + err
