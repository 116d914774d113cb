"""What is queued is changed, moved and withdrawn over HTTP, and a task that cannot wait interrupts another."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.flows.test_http_work import asked, claimed
from tests.gateway import Gateway, running
from tests.model_server import Answer, ModelServer, Script
from tests.servers import Zene, begin, data, says
from zene.bus.base import Signal
from zene.client import AsyncClient
from zene.domain.errors import Conflict, InvalidInput, NotFound, TooLarge
from zene.store import steers


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Gateway, None]:
    async with running(tmp_path) as started:
        yield started


@pytest.fixture
async def ada(gateway: Gateway) -> AsyncClient:
    return await gateway.client("ada")


async def test_a_queued_task_is_changed_moved_and_withdrawn(ada: AsyncClient) -> None:
    session = await ada.create_session()
    first, second, third = [await ada.submit(session.id, each) for each in ("One.", "Two.", "3.")]
    changed = await ada.change_task(
        third.id, prompt="Three.", model="openai:other", priority=7, before=first.id
    )
    assert (changed.prompt, changed.model, changed.position) == ("Three.", "openai:other", 0)
    assert [(await ada.task(each.id)).position for each in (first, second)] == [1, 2]
    gone = await ada.withdraw(first.id)
    assert (gone.status, gone.outcome) == ("finished", "cancelled")
    assert (await ada.task(second.id)).position == 1
    log = (await ada.events(session.id, after=4)).events
    assert [event.type for event in log] == ["task.updated", "task.finished"]
    assert data(log[0]) == {
        "prompt": "Three.", "model": "openai:other", "priority": 7, "position": 0,
    }  # fmt: skip


async def test_followers_are_told_their_new_place(ada: AsyncClient) -> None:
    session = await ada.create_session()
    first, moved = await ada.submit(session.id, "One."), await ada.submit(session.id, "Two.")
    await ada.change_task(moved.id, before=first.id)
    places: dict[str | None, int] = {}
    async with asyncio.timeout(10), aclosing(ada.follow(session.id, after=3)) as events:
        async for event in events:
            if event.type == "queue.changed":
                places[event.task_id] = data(event)["position"]
            if len(places) == 2:
                break
    assert places == {moved.id: 0, first.id: 1}


async def test_what_is_worked_on_is_changed_no_more(gateway: Gateway, ada: AsyncClient) -> None:
    session = await ada.create_session()
    task = await ada.submit(session.id, "One.")
    await claimed(gateway)
    for refused in (ada.change_task(task.id, prompt="Two."), ada.withdraw(task.id)):
        with pytest.raises(Conflict) as caught:
            await refused
        assert caught.value.code == "already_started"


@pytest.mark.parametrize(
    "change",
    [{"prompt": ""}, {"prompt": " "}, {"priority": 101}, {"model": "openai:unknown"},
     {"effort": "more"}, {"max_tokens_total": 0}, {"status": "finished"}, {"before": "x" * 65}],
)  # fmt: skip
async def test_a_change_that_does_not_fit_changes_nothing(
    ada: AsyncClient, change: dict[str, object]
) -> None:
    session = await ada.create_session()
    task = await ada.submit(session.id, "One.")
    with pytest.raises(InvalidInput):
        await ada.change_task(task.id, **change)
    assert await ada.task(task.id) == task


async def test_a_prompt_is_not_changed_to_one_that_is_too_large(ada: AsyncClient) -> None:
    session = await ada.create_session()
    task = await ada.submit(session.id, "One.")
    with pytest.raises(TooLarge):
        await ada.change_task(task.id, prompt="x" * ((256 << 10) + 1))


async def test_a_submit_may_be_refused_while_the_session_works(ada: AsyncClient) -> None:
    session = await ada.create_session()
    await ada.submit(session.id, "One.", on_busy="reject")
    with pytest.raises(Conflict) as caught:
        await ada.submit(session.id, "Two.", on_busy="reject", idempotency_key="k")
    assert caught.value.code == "session_busy"
    assert len((await ada.tasks(session.id)).items) == 1
    made = await ada.submit(session.id, "Two.", idempotency_key="k")
    assert made.position == 1


async def test_an_interrupt_tells_the_worker_once(gateway: Gateway, ada: AsyncClient) -> None:
    session = await ada.create_session()
    first, waits = await ada.submit(session.id, "One."), await ada.submit(session.id, "Two.")
    await claimed(gateway)
    async with gateway.bus.signals() as signals:
        urgent, again = [
            await ada.submit(session.id, "Three.", on_busy="interrupt", idempotency_key="k")
            for _ in range(2)
        ]
        assert again == urgent
        await ada.cancel(first.id)
        told = [await anext(aiter(signals)) for _ in range(2)]
    assert told == [Signal(kind="cancel", session_id=session.id, task_id=first.id)] * 2
    assert (urgent.position, (await ada.task(waits.id)).position) == (1, 2)


async def test_an_interrupt_withdraws_what_a_person_was_asked(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session(approval_policy="ask_always")
    first = await ada.submit(session.id, "One.")
    await asked(gateway, await claimed(gateway))
    urgent = await ada.submit(session.id, "Two.", on_busy="interrupt")
    assert (urgent.position, (await ada.task(first.id)).outcome) == (0, "cancelled")
    assert (await ada.approvals()).items == []


async def test_a_word_to_a_task_is_accepted_once(gateway: Gateway, ada: AsyncClient) -> None:
    session = await ada.create_session()
    task = await ada.submit(session.id, "One.")
    with pytest.raises(Conflict) as caught:
        await ada.steer(task.id, "Be brief.", idempotency_key="k")
    assert caught.value.code == "not_running"
    await claimed(gateway)
    first, again = [await ada.steer(task.id, "Be brief.", idempotency_key="k") for _ in range(2)]
    assert (first, first.text) == (again, "Be brief.")
    assert len(await gateway.store.read(steers.unheard, task.id)) == 1
    for text in ("", " \n"):
        with pytest.raises(InvalidInput):
            await ada.steer(task.id, text)
    with pytest.raises(TooLarge):
        await ada.steer(task.id, "x" * ((256 << 10) + 1))
    await ada.delete_session(session.id)
    with pytest.raises(NotFound):
        await ada.steer(task.id, "Be brief.")


async def test_a_task_that_cannot_wait_ends_the_one_that_is_worked_on(
    zene: Zene, model: ModelServer
) -> None:
    slow = Answer(text="one two three " * 30, delay_ms=50)
    model.scripts["*"] = Script(answers=[Answer(text="Done.")], answers_to={"Slowly.": [slow]})
    log, task = await begin(zene, "Slowly.")
    await log.live(says("item.delta", kind="message", text="one"))
    behind = (await log.client.submit(log.session_id, "After that.")).id
    urgent = (await log.client.submit(log.session_id, "Now.", on_busy="interrupt")).id
    assert (await log.finished(task))["outcome"] == "cancelled"
    for each in (urgent, behind):
        assert (await log.finished(each))["outcome"] == "succeeded"
    await log.check()
    started = [event.task_id for event in log.events if event.type == "task.started"]
    assert started == [task, urgent, behind]
