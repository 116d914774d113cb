"""A tenure ends by this worker's own clock, and nothing is done for the task after it."""

import asyncio
import time

import pytest

from zene.domain.errors import LeaseLost
from zene.worker.tenure import Tenure


async def test_it_ends_as_long_after_the_lease_was_asked_for_as_that_lasts() -> None:
    tenure = Tenure(time.monotonic() - 9.9, 10.0)
    tenure.check()
    async with asyncio.timeout(5):
        await tenure.ended()
    assert tenure.is_over
    with pytest.raises(LeaseLost):
        tenure.check()


async def test_an_extension_is_waited_for() -> None:
    tenure = Tenure(time.monotonic() - 9.95, 10.0)
    ended = asyncio.create_task(tenure.ended())
    await asyncio.sleep(0)
    tenure.extend(time.monotonic() - 9.8)
    async with asyncio.timeout(5):
        await ended
    assert tenure.is_over
