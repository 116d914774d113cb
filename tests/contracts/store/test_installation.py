"""An installation has one name, whoever asks for it first."""

import asyncio

from tests.contracts.store.world import World
from zene.store import installation


async def test_the_first_name_that_is_offered_stays(world: World) -> None:
    assert await world.store.read(installation.name) is None
    offers = [world.store.write(installation.named, f"name-{n}", world.now) for n in range(8)]
    [name] = set(await asyncio.gather(*offers))
    assert await world.store.read(installation.name) == name
    assert await world.store.write(installation.named, "late", world.now) == name
