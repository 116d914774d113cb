"""What goes out of a task while it runs, and what of it is held."""

from zene.bus.memory import MemoryBus
from zene.domain.events import Draft, ItemDelta
from zene.worker.live import Publisher


def delta(offset: int, text: str, stream: str) -> Draft:
    body = ItemDelta(item_id="itm_1", kind="command", offset=offset, text=text, stream=stream)
    return Draft(body=body, task_id="tsk_1", item_id="itm_1")


async def texts(bus: MemoryBus) -> list[tuple[int, str]]:
    bodies = [draft.body for draft in await bus.drafts("ses_1")]
    return [(body.offset, body.text) for body in bodies if isinstance(body, ItemDelta)]


async def test_output_that_changes_its_stream_in_a_moment_is_published_whole() -> None:
    bus = MemoryBus()
    publisher = Publisher(bus, "ses_1")
    async with bus.subscribe("ses_1") as follower:
        publisher.delta(delta(0, "out\n", "stdout"))
        publisher.delta(delta(4, "err\n", "stderr"))
        publisher.delta(delta(8, "again\n", "stdout"))
        await publisher.flush()
        seen = [live.body for _ in range(3) if (live := await follower.next(1))]
    assert len(seen) == 3
    assert await texts(bus) == [(0, "out\nerr\nagain\n")]


async def test_all_that_is_open_goes_out_whole_once_the_bus_has_lost_something() -> None:
    bus = MemoryBus()
    publisher = Publisher(bus, "ses_1")
    publisher.delta(delta(0, "one ", "stdout"))
    await publisher.flush()
    bus.losses += 1
    async with bus.subscribe("ses_1") as follower:
        publisher.delta(delta(4, "two", "stdout"))
        await publisher.flush()
        await publisher.flush()
        whole = await follower.next(1)
        assert whole is not None
        assert b'"offset":0,"text":"one two"' in whole.body
        assert await follower.next(0) is None, "it goes out once"
