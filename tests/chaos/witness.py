"""What always holds, read from witnesses that Zene does not write its books with: the rows and what people saw."""

import asyncio
from collections import Counter

import asyncpg

from tests.chaos.people import Diary, patiently
from tests.chaos.scene import CAP, POOR, QUOTA, STEPS, Scene
from tests.servers import Log
from zene.client import AsyncClient
from zene.domain.errors import NotFound

LOOK_SECONDS = 0.05
_AWAY = (  # how a database that is restarted ends a connection of the driver's
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
ENDED_SECONDS = 120.0  # for what people have queued faster than it is done

_OVER_THE_CAP = (
    "SELECT user_id, count(*) FROM tasks WHERE lease_epoch IS NOT NULL"
    f" GROUP BY user_id HAVING count(*) > {CAP}"
)
_TWO_OF_A_SESSION = (
    "SELECT session_id, count(*) FROM tasks WHERE lease_epoch IS NOT NULL"
    " GROUP BY session_id HAVING count(*) > 1"
)
_OVER_THE_QUOTA = (
    "SELECT id, quota_used, quota_reserved FROM users"
    " WHERE quota_used + quota_reserved > quota_tokens"
)
_AFTER_THE_END = (
    "SELECT later.session_id, later.seq, later.type FROM events ending JOIN events later"
    " ON later.session_id = ending.session_id AND later.task_id = ending.task_id"
    " AND later.seq > ending.seq WHERE ending.type = 'task.finished'"
)


class Violated(AssertionError):
    """A promise is broken; the message says which, and how."""


async def watch(scene: Scene) -> None:
    """Look again and again at what must hold at every moment; ends by being cancelled."""
    while True:
        try:
            connection = await asyncpg.connect(scene.postgres.url(scene.database), timeout=5)
        except _AWAY:
            await asyncio.sleep(LOOK_SECONDS)
            continue
        try:
            await _look(connection)
        except _AWAY:
            continue
        finally:
            connection.terminate()


async def _look(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    while True:
        for promise, sql in (
            ("G11: more active tasks than the cap", _OVER_THE_CAP),
            ("two tasks of one session at once", _TWO_OF_A_SESSION),
            ("G10: more tokens than the quota", _OVER_THE_QUOTA),
            ("G3: written after the end of a task", _AFTER_THE_END),
        ):
            rows = await connection.fetch(sql, timeout=5)
            if rows:
                raise Violated(f"{promise}: {[tuple(row) for row in rows]}")
        await asyncio.sleep(LOOK_SECONDS)


async def all_ended(scene: Scene, diary: Diary) -> None:
    """Wait until every task that was accepted has ended (G1, G2)."""
    try:
        async with asyncio.timeout(ENDED_SECONDS):
            for task in diary.accepted:
                await _ended(diary.sessions[task.session_id], task.task_id)
    except TimeoutError:
        rows = await scene.postgres.ask(
            "SELECT id, status, waiting_on, attempt, lease_worker FROM tasks WHERE status <> 'finished'",
            scene.database,
        )
        raise Violated(f"G2: not ended: {[tuple(row) for row in rows]}") from None


async def _ended(client: AsyncClient, task_id: str) -> None:
    while True:
        if (await patiently(lambda: client.task(task_id))).status == "finished":
            return
        await asyncio.sleep(0.1)


async def check(scene: Scene, diary: Diary) -> Counter[str]:
    """Hold everything that is left to the promises; how the tasks ended."""
    await _check_rows(scene, diary)
    outcomes: Counter[str] = Counter()
    for session_id, client in diary.sessions.items():
        log = Log(client, session_id)
        await log.check()
        outcomes += Counter(end["outcome"] for end in log.of("task.finished"))
        await _followed(log, diary.seen[session_id])
        await _check_effects(log, diary)
    served = sum(
        int(request.usage["total_tokens"])
        for request in scene.model.requests
        if request.usage is not None and request.model == POOR
    )
    if served > QUOTA:
        raise Violated(f"G10: the model server served {served} tokens of {QUOTA}")
    return outcomes


async def _check_rows(scene: Scene, diary: Diary) -> None:
    tasks = await scene.postgres.ask("SELECT id, prompt FROM tasks", scene.database)
    prompts = Counter(row["prompt"] for row in tasks)
    twice = [prompt for prompt, times in prompts.items() if times > 1]
    if twice:
        raise Violated(f"G8: made twice: {twice}")
    lost = {task.task_id for task in diary.accepted} - {row["id"] for row in tasks}
    if lost:
        raise Violated(f"G1: accepted and lost: {lost}")
    left = await scene.postgres.ask(
        "SELECT id, active, quota_reserved FROM users WHERE active <> 0 OR quota_reserved <> 0",
        scene.database,
    )
    if left:
        raise Violated(
            f"counted as active or reserved with nothing left: {[tuple(r) for r in left]}"
        )


async def _followed(log: Log, seen: list[int]) -> None:
    """A follower got every event once and in order (G7); the last of them may still be under way."""
    wanted = [event.seq for event in log.events]
    for _ in range(200):  # the follower appends, and tells nobody
        if len(seen) >= len(wanted):
            break
        await asyncio.sleep(0.05)
    if seen != wanted:
        raise Violated(f"G7: {log.session_id} has {len(wanted)} events, and a follower saw {seen}")


async def _check_effects(log: Log, diary: Diary) -> None:
    """No line twice (G5), and each one there where its task succeeded and no call was refused or interrupted."""
    try:
        text = await patiently(lambda: log.client.read_file(log.session_id, "log.txt"))
    except NotFound:
        text = b""
    lines = Counter(text.decode().split())
    twice = [line for line, times in lines.items() if times > 1]
    if twice:
        raise Violated(f"G5: done twice in {log.session_id}: {twice}")
    ended = {
        event.task_id: end["outcome"]
        for event, end in zip(
            (event for event in log.events if event.type == "task.finished"),
            log.of("task.finished"),
            strict=True,
        )
    }
    spoiled = {
        event.task_id
        for event, call in zip(
            (event for event in log.events if event.type == "item.completed"),
            log.of("item.completed"),
            strict=True,
        )
        if call.get("status") in ("interrupted", "denied", "failed")
    }
    for task in diary.accepted:
        if task.session_id != log.session_id or task.task_id in spoiled:
            continue
        if ended[task.task_id] == "succeeded":
            missing = {f"{task.number}-{step}" for step in range(STEPS)} - lines.keys()
            if missing:
                raise Violated(f"G1: {task.task_id} succeeded without {missing}")
