"""Users and their sign-ins: one e-mail address, one successor, and an end that is an end."""

import asyncio

import pytest

from tests.contracts.store.world import World
from zene.domain.errors import Conflict, NotFound, Unauthorized
from zene.domain.users import Role, User
from zene.store import credentials, schema, users
from zene.store.credentials import Rotated

MONTH_MS = 30 * 24 * 3600 * 1000


async def signed_in(world: World, token: str = "first") -> tuple[User, str]:
    """A user with a sign-in."""
    user, family = await world.user(), world.id("sgn")
    until = world.now + MONTH_MS
    await world.store.write(credentials.start_family, family, user.id, token, world.now, until)
    return user, family


async def rotate(world: World, token: str, successor: str) -> Rotated | None:
    return await world.store.write(
        credentials.rotate,
        token,
        successor,
        f"sealed {successor}",
        world.now,
        world.now + MONTH_MS,
    )


async def test_an_email_address_is_one_users(world: World) -> None:
    user = await world.user()
    made = await asyncio.gather(
        *(
            world.store.write(
                users.create_user, world.id("usr"), "a@example.org", "hash", Role.MEMBER, world.now
            )
            for _ in range(5)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(each, User) for each in made) == 1
    assert {each.code for each in made if isinstance(each, Conflict)} == {"email_taken"}
    assert await world.store.read(users.count_users) == 2
    assert (await world.store.read(users.list_users, user.id, 9))[0][0].email == "a@example.org"


async def test_the_first_administrator_is_made_once(world: World) -> None:
    args = ("root@example.org", "hash", world.now)
    first = await world.store.write(users.create_first, world.id("usr"), *args)
    second = await world.store.write(users.create_first, world.id("usr"), *args)
    assert first is not None
    assert (first.role, second) == (Role.ADMIN, None)


async def test_users_are_listed_in_pages(world: World) -> None:
    made = [await world.user() for _ in range(5)]
    first, cursor = await world.store.read(users.list_users, None, 3)
    rest, end = await world.store.read(users.list_users, cursor, 3)
    assert (first + rest, end) == (made, None)


async def test_who_signs_in_is_found_with_the_passwords_hash(world: World) -> None:
    user = await world.user()
    await world.store.write(users.set_password, user.id, "new hash", world.now)
    assert await world.store.read(users.find_login, user.email) == (user, "new hash")
    assert await world.store.read(users.find_login, "nobody@example.org") is None
    await world.fails(NotFound, users.set_password, "usr_none", "hash", world.now)


async def test_a_refresh_token_is_exchanged_for_its_successor(world: World) -> None:
    user, family = await signed_in(world)
    rotated = await rotate(world, "first", "second")
    assert rotated == Rotated(user, family, "sealed second")
    again = await rotate(world, "second", "third")
    assert again is not None
    assert again.successor_sealed == "sealed third"


async def test_two_who_refresh_at_once_get_the_same_successor(world: World) -> None:
    await signed_in(world)
    found = await asyncio.gather(*(rotate(world, "first", f"{n}") for n in range(5)))
    assert len({each.successor_sealed for each in found if each}) == 1
    world.now += 30_000
    late = await rotate(world, "first", "late")
    assert late is not None
    assert late.successor_sealed == found[0].successor_sealed if found[0] else False


async def test_a_token_that_comes_back_later_ends_the_sign_in(world: World) -> None:
    user, family = await signed_in(world)
    await rotate(world, "first", "second")
    world.now += 30_001
    assert await rotate(world, "first", "stolen") is None
    assert await world.store.read(users.standing, user.id, family) is None
    for token in ("first", "second", "stolen", "unknown"):
        with pytest.raises(Unauthorized):
            await rotate(world, token, "next")


async def test_an_expired_token_is_none(world: World) -> None:
    await signed_in(world)
    world.now += MONTH_MS
    with pytest.raises(Unauthorized):
        await rotate(world, "first", "second")


@pytest.mark.parametrize("end", ["disable", "password", "logout"])
async def test_what_ends_a_sign_in_ends_its_tokens(world: World, end: str) -> None:
    user, family = await signed_in(world)
    assert await world.store.read(users.standing, user.id, family) == user
    match end:
        case "disable":
            await world.store.write(users.set_disabled, user.id, world.now)
            await world.store.write(users.set_disabled, user.id, None)
        case "password":
            await world.store.write(users.set_password, user.id, "hash", world.now)
        case _:
            await world.store.write(credentials.revoke_family, family, world.now)
    assert await world.store.read(users.standing, user.id, family) is None
    assert await world.store.read(users.standing, user.id, None) == user
    with pytest.raises(Unauthorized):
        await rotate(world, "first", "second")


async def test_somebody_elses_sign_in_is_nobodys(world: World) -> None:
    _, family = await signed_in(world)
    other = await world.user()
    assert await world.store.read(users.standing, other.id, family) is None


async def test_a_disabled_user_has_no_standing(world: World) -> None:
    user = await world.user()
    await world.store.write(users.set_disabled, user.id, world.now)
    assert await world.store.read(users.standing, user.id, None) is None


async def test_wrong_passwords_are_counted_until_a_right_one(world: World) -> None:
    for _ in range(3):
        await world.store.write(credentials.note_failure, "a@example.org", world.now)
        world.now += 5
    assert await world.store.read(credentials.failures, "a@example.org") == (3, world.now - 5)
    await world.store.write(credentials.clear_failures, "a@example.org")
    assert await world.store.read(credentials.failures, "a@example.org") == (0, 0)


async def test_signing_keys_are_kept(world: World) -> None:
    await world.store.write(credentials.add_key, "old", "sealed", "{}", world.now)
    await world.store.write(credentials.add_key, "new", "other", "{}", world.now + 1)
    keys = await world.store.read(credentials.list_keys)
    assert [(key.kid, key.private_sealed) for key in keys] == [
        ("new", "other"),
        ("old", "sealed"),
    ]


async def test_what_nothing_rests_on_is_forgotten(world: World) -> None:
    user, family = await signed_in(world)
    await world.store.write(credentials.note_failure, "a@example.org", world.now)
    world.now += MONTH_MS - 1
    await rotate(world, "first", "second")
    await world.store.write(credentials.forget, now=world.now + 1, limit=10)
    assert (await world.count(schema.refresh_tokens), await world.count(schema.families)) == (1, 1)
    assert await world.count(schema.login_failures) == 0
    assert await world.store.read(users.standing, user.id, family) == user
    await world.store.write(credentials.forget, now=world.now + MONTH_MS, limit=10)
    assert (await world.count(schema.refresh_tokens), await world.count(schema.families)) == (0, 0)
