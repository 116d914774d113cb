"""A store's rows can be taken up again by a store of any kind."""

from collections.abc import Callable
from pathlib import Path

from tests.contracts.store.world import World
from zene.store import copying, sessions
from zene.store.base import Rows, Store
from zene.store.sqlite import SqliteStore

Tables = dict[str, list[tuple[object, ...]]]


async def rows_of(store: Store) -> Tables:
    """Every row, by its table."""
    found: Tables = {}

    def begin() -> Callable[[str, Rows], None]:
        found.clear()
        return lambda name, rows: found.setdefault(name, []).extend(map(tuple, rows))

    await store.read(copying.export, begin)
    return found


async def test_every_row_is_taken_up_by_another_store(world: World, tmp_path: Path) -> None:
    claim = await world.started()
    await world.step(claim.lease)
    user = await world.user()
    for _ in range(copying.PAGE + 10):
        await world.session(user)
    exported = await rows_of(world.store)
    other = SqliteStore(f"sqlite:///{tmp_path}/other.db")
    await other.migrate()
    assert not await other.read(copying.is_used)
    for name, rows in exported.items():
        await other.write(copying.load, name, rows)
    assert await rows_of(other) == exported
    assert await other.read(copying.is_used)
    page, _ = await other.read(sessions.list_sessions, user.id, None, 5)
    assert [each.user_id for each in page] == [user.id] * 5
    await other.close()


async def test_rows_of_another_store_are_taken_up(world: World, tmp_path: Path) -> None:
    other = World(SqliteStore(f"sqlite:///{tmp_path}/other.db"))
    await other.store.migrate()
    claim = await other.started()
    await other.step(claim.lease)
    exported = await rows_of(other.store)
    await other.store.close()
    for name, rows in exported.items():
        await world.store.write(copying.load, name, rows)
    assert await rows_of(world.store) == exported
    await world.finish(claim.lease)
    assert (await world.task(claim.task)).outcome == "succeeded"
