"""One time limit for many waits: each has its own time, and nothing else that ends a wait is taken for it."""

import asyncio
from contextlib import closing

import pytest

from zene.gateway.limits import TimeLimit

SECONDS = 20.0  # far more than is waited for anything here


async def test_a_wait_that_takes_too_long_is_ended_and_the_next_one_has_its_whole_time() -> None:
    async with asyncio.timeout(SECONDS):
        with closing(TimeLimit(0.02)) as limit:
            for _ in range(2):
                with pytest.raises(TimeoutError), limit:
                    await asyncio.Event().wait()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            with limit:
                await asyncio.sleep(0)


async def test_many_short_waits_may_take_longer_together() -> None:
    loop = asyncio.get_running_loop()
    with closing(TimeLimit(0.2)) as limit:
        until = loop.time() + 0.5
        while loop.time() < until:
            answered = loop.create_future()
            loop.call_later(0.01, answered.set_result, None)
            with limit:
                await answered


async def test_whoever_cancels_the_task_is_heard() -> None:
    waits = asyncio.Event()

    async def wait() -> None:
        with closing(TimeLimit(SECONDS)) as limit, limit:
            waits.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_wait_is_its_own() -> None:
    with closing(TimeLimit(SECONDS)) as limit, pytest.raises(OSError, match="gone"), limit:
        raise OSError("gone")
