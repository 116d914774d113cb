"""A cancelled task ends at once, whatever it is doing, and nothing of it goes on."""

import asyncio
import os
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import randrange

import pytest

from tests.model_server import Answer, Call, Fault, ModelServer, Script
from tests.servers import RESUMED_SECONDS, Log, Zene, begin, says

GONE_SECONDS = 5.0
SPEAKS = Answer(text="one two three " * 30, delay_ms=20, fault=Fault(stall_at=2000))
DONE = Answer(text="Done.")

# Each leaves processes whose command line holds {nap}, which nothing else on the machine has.
COMMANDS = {
    "sleeps": "echo begun; sleep {nap}",
    "has left its session": "setsid sleep {nap} & setsid -f sleep {nap}; echo begun; sleep {nap}",
    "will not hear of it": (
        "trap '' TERM INT HUP; (trap '' TERM INT HUP; exec setsid sleep {nap}) & sleep 0.1;"
        " echo begun; while true; do sleep {nap}; done"
    ),
}


@pytest.fixture
def nap() -> str:
    """Seconds to sleep that are found again in a command line."""
    return f"600.{randrange(10**9, 10**10)}"


def of(nap: str) -> list[int]:
    """The processes of this machine that have it in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if nap.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@asynccontextmanager
async def all_ending(nap: str) -> AsyncIterator[None]:
    """Wait afterwards until the processes that were there before have ended, for as long as they may take."""
    begun = [os.pidfd_open(pid) for pid in of(nap)]
    assert begun, "no process is there to be ended"
    try:
        yield
        async with asyncio.timeout(GONE_SECONDS):
            for each in begun:
                await asyncio.to_thread(select.select, [each], [], [], GONE_SECONDS)
    finally:
        for each in begun:
            os.close(each)
    assert of(nap) == []


def shell(command: str) -> Script:
    call = Call(name="shell", arguments={"command": command})
    return Script(answers=[Answer(calls=[call]), DONE])


async def nothing_more_is_asked(zene: Zene, model: ModelServer) -> None:
    """Another task is done from beginning to end, and the model is asked for that one alone."""
    asked = len(model.requests)
    model.scripts["*"] = Script(answers=[DONE])
    log, task = await begin(zene, "Something else.")
    assert (await log.finished(task))["outcome"] == "succeeded"
    assert len(model.requests) == asked + 1


async def check_cancelled(log: Log, task: str) -> None:
    assert (await log.finished(task, GONE_SECONDS))["outcome"] == "cancelled"
    again = await log.client.cancel(task)
    assert (again.status, again.outcome) == ("finished", "cancelled")
    await log.check()


async def test_an_answer_that_streams_is_broken_off(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[SPEAKS])
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="message", text="one"))
    assert (await log.client.cancel(task)).status in ("cancelling", "finished")
    await check_cancelled(log, task)
    await model.until(lambda: not model.open_connections)
    assert log.of("step.finished")[0]["usage"]["estimated"]
    await nothing_more_is_asked(zene, model)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_no_process_is_left_of_a_command_that(
    zene: Zene, model: ModelServer, nap: str, command: str
) -> None:
    model.scripts["*"] = shell(command.format(nap=nap))
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    async with all_ending(nap):
        await log.client.cancel(task)
    await check_cancelled(log, task)
    assert [call["status"] for call in log.calls()] == ["interrupted"]
    await nothing_more_is_asked(zene, model)


async def test_no_process_is_left_of_an_earlier_call(
    zene: Zene, model: ModelServer, nap: str
) -> None:
    calls = [
        Call(
            name="shell", arguments={"command": f"setsid -f sleep {nap} </dev/null >/dev/null 2>&1"}
        ),
        Call(name="shell", arguments={"command": "echo begun; sleep 600"}),
    ]
    model.scripts["*"] = Script(answers=[Answer(calls=calls), DONE])
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    await log.client.cancel(task)
    await check_cancelled(log, task)
    assert of(nap) == []


async def test_no_process_is_left_of_a_call_that_had_ended(
    zene: Zene, model: ModelServer, nap: str
) -> None:
    """Nothing runs that could be broken off: the model is speaking, and an earlier call left something."""
    left = Call(
        name="shell", arguments={"command": f"setsid -f sleep {nap} </dev/null >/dev/null 2>&1"}
    )
    model.scripts["*"] = Script(answers=[Answer(calls=[left]), SPEAKS])
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="message", text="one"))
    async with all_ending(nap):
        await log.client.cancel(task)
    await check_cancelled(log, task)
    assert [call["status"] for call in log.calls()] == ["succeeded"]


async def test_the_session_works_on_after_a_cancel(
    zene: Zene, model: ModelServer, nap: str
) -> None:
    model.scripts["*"] = shell(f"echo x >> log.txt; echo begun; sleep {nap}")
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    await log.client.cancel(task)
    await check_cancelled(log, task)
    model.scripts["*"] = shell("cat log.txt")
    task = (await log.client.submit(log.session_id, "What is in it?")).id
    assert (await log.finished(task))["outcome"] == "succeeded"
    assert log.calls()[-1]["output"] == "x"


async def test_a_queued_task_is_never_begun(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[SPEAKS])
    log, running = await begin(zene)
    await model.until(lambda: model.requests)
    queued = (await log.client.submit(log.session_id, "And then this.")).id
    assert (await log.client.cancel(queued)).outcome == "cancelled"
    assert (await log.client.task(running)).status == "running"
    await log.client.cancel(running)
    await check_cancelled(log, running)
    await check_cancelled(log, queued)
    assert len(model.requests) == 1
    assert [each for each in log.events if each.task_id == queued][-2].type == "task.queued"


async def test_a_task_that_waits_for_somebody_is_cancelled_at_once(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = shell("echo x >> log.txt")
    log, task = await begin(zene, approval_policy="ask_always")
    await log.until(says("task.waiting"))
    assert (await log.client.cancel(task)).outcome == "cancelled"
    await check_cancelled(log, task)
    assert (await log.client.files(log.session_id)).items == ()
    await nothing_more_is_asked(zene, model)


async def test_many_who_cancel_at_once_end_it_once(
    zene: Zene, model: ModelServer, nap: str
) -> None:
    model.scripts["*"] = shell(f"echo begun; sleep {nap}")
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    async with all_ending(nap):
        await asyncio.gather(*(log.client.cancel(task) for _ in range(10)))
    await check_cancelled(log, task)


async def test_a_cancel_outlives_a_kill_right_after(
    zene: Zene, model: ModelServer, nap: str
) -> None:
    model.scripts["*"] = shell(f"echo begun; sleep {nap}")
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    async with all_ending(nap):
        await log.client.cancel(task)
        await zene.kill()
    await zene.up()
    assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "cancelled"
    await check_cancelled(log, task)
    assert len(model.requests) == 1
