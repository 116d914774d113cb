"""Turns: one at a time for each user, in the order of asking, and nothing is kept of whoever has left."""

import asyncio

import pytest

from zene.worker.turns import Turns


async def test_a_users_turns_come_in_order_and_one_at_a_time() -> None:
    turns, seen, begun = Turns(), list[int](), asyncio.Event()

    async def go(number: int) -> None:
        async with turns.of("ada"):
            seen.append(number)
            await begun.wait()
            seen.append(-number)

    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        for number in (1, 2, 3):
            group.create_task(go(number))
        await asyncio.sleep(0)
        async with turns.of("bob"):  # waits for nobody else
            assert seen == [1]
        begun.set()
    assert seen == [1, -1, 2, -2, 3, -3]


async def test_whoever_leaves_or_fails_lets_the_next_go_on() -> None:
    turns = Turns()

    async def fail() -> None:
        async with turns.of("ada"):
            raise ValueError("broke")

    async with turns.of("ada"):
        failing, leaving = asyncio.create_task(fail()), asyncio.create_task(fail())
        await asyncio.sleep(0)
        leaving.cancel()
    with pytest.raises(ValueError, match="broke"):
        await failing
    with pytest.raises(asyncio.CancelledError):
        await leaving
    async with asyncio.timeout(10), turns.of("ada"):
        pass
    assert turns._users == {}
