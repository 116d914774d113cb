"""What a session says beside its messages: how far its sandbox is, what has been used, what was changed."""

import asyncio
import os
import signal
from contextlib import aclosing

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.servers import SECONDS, Log, Zene, begin, data, says
from zene.client import AsyncClient
from zene.domain.events import Event

DONE = Answer(text="Done.")


def shell(*commands: str) -> list[Answer]:
    calls = [Call(name="shell", arguments={"command": command}) for command in commands]
    return [*(Answer(calls=[call]) for call in calls), DONE]


async def again(log: Log, prompt: str) -> str:
    """One more task in the session, to its end."""
    task = await log.client.submit(log.session_id, prompt)
    await log.finished(task.id)
    return task.id


async def followed(client: AsyncClient) -> list[Event]:
    """All that a follower sees of a task who was there before it."""
    session = await client.create_session()
    seen: list[Event] = []
    async with asyncio.timeout(SECONDS), aclosing(client.follow(session.id)) as events:
        async for event in events:
            seen.append(event)
            if event.type == "session.created":
                await client.submit(session.id, "Go.")
            if event.type == "task.finished":
                break
    return seen


async def test_what_a_task_changed_is_told_after_its_end_and_once(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(
        answers_to={
            "write": shell("printf 'a\\nb\\n' > new.txt", "printf 'x\\n' > other.txt"),
            "look": [Answer(calls=[Call(name="read_file", arguments={"path": "new.txt"})]), DONE],
            "same": shell("cat new.txt > /tmp/x; cat /tmp/x > new.txt"),
            "undo": shell("rm new.txt other.txt"),
        }
    )
    log, task = await begin(zene, "write")
    await log.finished(task)
    first = await log.until(says("diff.updated"))
    files = [
        {"path": "new.txt", "added": 2, "removed": 0},
        {"path": "other.txt", "added": 1, "removed": 0},
    ]
    assert data(first) == {"files": files, "added": 3, "removed": 0}
    assert first.task_id is None
    for prompt in ("look", "same", "undo"):
        await again(log, prompt)
    last = await log.until(lambda event: event.type == "diff.updated" and event.seq > first.seq)
    assert data(last) == {"files": [], "added": 0, "removed": 0}
    assert len(log.of("diff.updated")) == 2
    await log.check()


async def test_what_was_changed_is_told_while_a_task_waits(zene: Zene, model: ModelServer) -> None:
    write = Call(name="write_file", arguments={"path": "a", "content": "a\n"})
    model.scripts["*"] = Script(answers=[Answer(calls=[write]), *shell("true")])
    log, _ = await begin(zene, approval_policy="ask_for_writes")
    asked = await log.until(says("approval.requested", name="write_file"))
    await log.client.decide(data(asked)["approval_id"], "allow")
    await log.until(says("approval.requested", name="shell"))
    await log.until(says("diff.updated", added=1))
    assert not log.of("task.finished")


async def test_the_sandbox_is_told_with_the_next_batch_and_its_end_with_the_tasks(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(
        answers_to={"warm": shell("true"), "sleep": shell("echo begun; sleep 600")}
    )
    log, task = await begin(zene, "warm")
    await log.finished(task)
    assert [one["phase"] for one in log.of("task.phase")] == ["preparing", "ready"]
    assert [one["state"] for one in log.of("sandbox.state")] == ["started"]
    assert log.of("sandbox.state")[0]["ms"] >= 0
    slow = await log.client.submit(log.session_id, "sleep")
    await log.live(says("item.delta", kind="command", text="begun"))
    await log.client.cancel(slow.id)
    await log.finished(slow.id)
    assert [one["phase"] for one in log.of("task.phase")] == ["preparing", "ready", "ready"]
    assert log.of("sandbox.state")[1:] == [{"state": "gone", "reason": "killed"}]
    await log.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no caps to hold")
async def test_a_sandbox_that_runs_out_of_memory_says_so(zene: Zene, model: ModelServer) -> None:
    await zene.programs[0].end(signal.SIGTERM)
    zene.variables = {**zene.variables, "ZENE_SANDBOX_MEMORY_MIB": "128"}
    await zene.up()
    model.scripts["*"] = Script(answers=shell("python3 -c 'bytearray(1 << 30)'"))
    log, task = await begin(zene)
    await log.finished(task)
    assert {"state": "out_of_memory"} in log.of("sandbox.state")


async def test_followers_see_what_a_task_uses_as_it_goes(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=shell("true 1", "true 2"))
    client = await zene.client()
    events = await followed(client)
    totals = [
        data(event)["usage"]["input_tokens"] for event in events if says("usage.updated")(event)
    ]
    steps = [
        data(event)["usage"]["input_tokens"] for event in events if says("step.finished")(event)
    ]
    assert totals == [steps[0], steps[0] + steps[1]], "the end tells the last by itself"
    assert data(events[-1])["usage"]["input_tokens"] == sum(steps)
    page = await client.events(events[0].session_id)
    assert "usage.updated" not in {event.type for event in page.events}


async def test_a_queued_task_moves_up_before_its_followers(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers_to={"hold": shell("echo begun; sleep 600"), "next": [DONE]})
    log, first = await begin(zene, "hold")
    await log.live(says("item.delta", kind="command", text="begun"))
    second = (await log.client.submit(log.session_id, "hold")).id
    third = (await log.client.submit(log.session_id, "next")).id
    waiting, places = [second, third], []
    async with asyncio.timeout(SECONDS), aclosing(log.client.follow(log.session_id)) as events:
        async for event in events:
            if event.type != "queue.changed":
                continue
            places.append((event.task_id, data(event)["position"]))
            if len(places) == 2:
                waiting.append((await log.client.submit(log.session_id, "next")).id)
            if len(places) == 3:
                await log.client.cancel(first)
            if len(places) == 5:
                break
    fourth = waiting[2]
    assert places == [(second, 1), (third, 2), (fourth, 3), (third, 1), (fourth, 2)]
    for task in reversed(waiting):
        await log.client.cancel(task)
