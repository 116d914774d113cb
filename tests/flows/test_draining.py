"""Servers that are told to end: they say so, hand over what they have, and are gone in good time."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from tests.many import Many, Process
from tests.model_server import Answer, Call, ModelServer, Script
from tests.redis_server import redis_server
from tests.servers import SECONDS, Log, Zene, a_free_port, begin, says, served_by
from zene.domain.closing import INTERRUPTED
from zene.domain.events import FLEETING

SHORT = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 1"})
FOR_EVER = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 600"})
PATIENCE_SECONDS = 1  # ZENE_DRAIN_SECONDS, where a test waits for its end
AT_ONCE_SECONDS = 20.0  # less than the 25 s that a call may take


@pytest.fixture
async def many(tmp_path: Path, model: ModelServer) -> AsyncIterator[Many]:
    """An installation, not made yet."""
    async with (
        redis_server(tmp_path) as redis,
        Many(tmp_path, served_by(model, ZENE_BUS=redis.url)) as installation,
    ):
        yield installation


async def not_ready(url: str) -> str:
    """What `/readyz` says once it is not ready any more."""
    async with asyncio.timeout(SECONDS), httpx.AsyncClient(trust_env=False) as client:
        while (answer := await client.get(f"{url}/readyz")).status_code == 200:
            pass
    assert answer.status_code == 503
    code: str = answer.json()["code"]
    return code


async def followed_to_the_end(going: Process, log: Log, token: str) -> int:
    """Follow a session at a gateway that is told to end once something happens; the cursor in the end."""
    cursor, told = 0, False
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(
            base_url=going.name, headers=headers, timeout=SECONDS, trust_env=False
        ) as client,
        client.stream("GET", f"/v1/sessions/{log.session_id}/stream") as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                cursor = int(line[4:])
            if "begun" in line and not told:
                told = True
                going.send(signal.SIGTERM)
                assert await not_ready(going.name) == "draining"
    return cursor


async def test_a_gateway_that_goes_away_says_so_and_its_followers_go_on_elsewhere(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER])])
    await many.make(gateways=2, workers=1)
    log, task = await many.begin(gateway=1)
    going, _ = many.gateways
    token = many.person.tokens[0].access_token
    async with asyncio.timeout(AT_ONCE_SECONDS):
        cursor = await followed_to_the_end(going, log, token)
        assert (await going.program.end())[0] == 0
    await log.client.cancel(task)
    async with (
        asyncio.timeout(SECONDS),
        aclosing(log.client.follow(log.session_id, after=cursor)) as events,
    ):
        seqs = [cursor]
        async for event in events:
            if event.type not in FLEETING:
                seqs.append(event.seq)
            if event.type == "task.finished":
                break
    assert seqs == list(range(cursor, seqs[-1] + 1))
    assert (await log.finished(task))["outcome"] == "cancelled"
    await log.check()


async def test_a_worker_that_goes_away_hands_over_between_calls_and_no_attempt_is_lost(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SHORT]), Answer(text="Done.")])
    await many.make(gateways=1, workers=2)
    log, task = await many.begin()
    await log.live(says("item.delta", kind="command", text="begun"))
    going = await many.holder(log)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        assert await going.stop() == 0
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    await log.ran_once()
    assert log.of("task.resumed") == [{"reason": "hand_over"}]
    assert [one["attempt"] for one in log.of("task.started")] == [1, 1]
    assert await many.holder(log, attempt=2) is not going


async def test_a_call_that_takes_too_long_is_interrupted_and_marked(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER]), Answer(text="I see.")])
    await many.make(gateways=1, workers=1)
    going = await many.worker(ZENE_DRAIN_SECONDS=str(PATIENCE_SECONDS))
    assert await many.workers[0].stop() == 0
    log, task = await many.begin()
    await log.live(says("item.delta", kind="command", text="begun"))
    await many.worker()
    async with asyncio.timeout(AT_ONCE_SECONDS):
        assert await going.stop() == 0
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    [call] = log.calls()
    assert (call["status"], call["output"]) == ("interrupted", INTERRUPTED)
    assert await log.client.read_file(log.session_id, "log.txt") == b"x\n"


async def test_a_second_signal_ends_a_worker_at_once(many: Many, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER]), Answer(text="I see.")])
    await many.make(gateways=1, workers=1)
    log, task = await many.begin()
    await log.live(says("item.delta", kind="command", text="begun"))
    [going] = many.workers
    await stopping(going)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        code, _, _ = await going.program.end(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    await many.worker()
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()


async def stopping(process: Process) -> None:
    """Tell it to end, and wait until it has heard that."""
    process.send(signal.SIGTERM)
    assert process.program.log is not None
    async with asyncio.timeout(SECONDS):
        while "Stopping" not in await asyncio.to_thread(process.program.log.read_text):
            pass


async def test_one_process_is_not_ready_while_its_tasks_reach_a_safe_point(
    tmp_path: Path, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER]), Answer(text="I see.")])
    settings = served_by(model, ZENE_DRAIN_SECONDS=str(PATIENCE_SECONDS))
    async with Zene(tmp_path, settings, a_free_port()) as zene:
        server = await zene.up()
        log, task = await begin(zene)
        await log.live(says("item.delta", kind="command", text="begun"))
        server.process.send_signal(signal.SIGTERM)
        assert await not_ready(zene.url) == "draining"
        async with asyncio.timeout(AT_ONCE_SECONDS):
            assert (await server.end())[0] == 0
        await zene.up()
        assert (await log.finished(task))["outcome"] == "succeeded"
        await log.check()
        assert log.of("task.resumed") == [{"reason": "hand_over"}]


async def test_workers_are_rolled_under_load_and_nothing_is_lost(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(
        answers=[Answer(calls=[SHORT]), Answer(text="one two three", delay_ms=20)]
    )
    await many.make(gateways=1, workers=2)
    begun: list[tuple[Log, str]] = []
    for old in list(many.workers):
        begun += [await many.begin() for _ in range(2)]
        await many.worker()
        assert await old.stop() == 0
    for log, task in begun:
        assert (await log.finished(task))["outcome"] == "succeeded"
        await log.check()
        await log.ran_once()
        assert {one["attempt"] for one in log.of("task.started")} == {1}
