"""Signing in over HTTP: who is let in, for how long, and what ends it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway import PASSWORD, Gateway, email, running
from zene.client import AsyncClient
from zene.domain.errors import Conflict, Forbidden, InvalidInput, Unauthorized
from zene.domain.quotas import Quota
from zene.domain.users import Role
from zene.gateway.shapes import Tokens
from zene.store import users

MINUTE = 60_000


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Gateway, None]:
    async with running(tmp_path) as started:
        yield started


async def refused(client: AsyncClient) -> str:
    with pytest.raises(Unauthorized) as caught:
        await client.me()
    return caught.value.code


def continued(gateway: Gateway, tokens: Tokens, *, refresh_token: str = "") -> AsyncClient:
    """A client that has these tokens, and cannot get others."""
    return AsyncClient(
        gateway.url,
        tokens=Tokens(
            access_token=tokens.access_token, refresh_token=refresh_token, expires_in=900
        ),
    )


async def test_who_signs_in_is_told_who_they_are(gateway: Gateway) -> None:
    client = await gateway.client("ada", Role.VIEWER)
    me = await client.me()
    assert (me.email, me.role, me.disabled) == (email("ada"), Role.VIEWER, False)


async def test_an_unknown_address_and_a_wrong_password_get_the_same_answer(
    gateway: Gateway,
) -> None:
    await gateway.user("ada")
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        answers = [
            await http.post("/v1/auth/login", json={"email": who, "password": "wrong horse"})
            for who in (email("ada"), email("nobody"))
        ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["content-type"] == "application/problem+json"


async def test_after_ten_wrong_passwords_one_has_to_wait_longer_each_time(
    gateway: Gateway,
) -> None:
    await gateway.user("ada")
    async with AsyncClient(gateway.url) as client:
        for _ in range(10):
            with pytest.raises(Unauthorized):
                await client.login(email("ada"), "wrong horse")
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            body = {"email": email("ada"), "password": PASSWORD}
            answer = await http.post("/v1/auth/login", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        gateway.clock.now += 1000
        assert (await client.login(email("ada"), PASSWORD)).token_type == "Bearer"


async def test_an_expired_token_is_refused_and_the_client_refreshes_it(gateway: Gateway) -> None:
    client = await gateway.client("ada")
    gateway.clock.now += 15 * MINUTE
    assert (await client.me()).email == email("ada")


async def test_an_expired_token_that_cannot_be_refreshed_ends_the_sign_in(
    gateway: Gateway,
) -> None:
    await gateway.user("ada")
    async with AsyncClient(gateway.url) as client:
        tokens = await client.login(email("ada"), PASSWORD)
    gateway.clock.now += 15 * MINUTE
    async with continued(gateway, tokens, refresh_token="AAAA") as stale:
        await refused(stale)


async def test_two_programs_that_refresh_at_once_both_go_on(gateway: Gateway) -> None:
    await gateway.user("ada")
    async with AsyncClient(gateway.url) as client:
        tokens = await client.login(email("ada"), PASSWORD)
    gateway.clock.now += 16 * MINUTE
    kept: list[Tokens] = []
    async with (
        AsyncClient(gateway.url, tokens=tokens, refreshed=kept.append) as one,
        AsyncClient(gateway.url, tokens=tokens, refreshed=kept.append) as other,
    ):
        await asyncio.gather(one.me(), other.me(), one.me(), other.me())
    assert len(kept) == 2
    assert kept[0].refresh_token == kept[1].refresh_token != tokens.refresh_token


async def test_a_refresh_token_used_again_later_ends_the_whole_sign_in(gateway: Gateway) -> None:
    await gateway.user("ada")
    async with AsyncClient(gateway.url) as client:
        stolen = await client.login(email("ada"), PASSWORD)
        gateway.clock.now += 16 * MINUTE
        await client.me()  # refreshes
        gateway.clock.now += 31_000
        async with AsyncClient(gateway.url, tokens=stolen) as thief:
            assert await refused(thief) == "reused"
        gateway.clock.now += 2_000
        assert await refused(client) == "signed_out"


async def test_signing_out_ends_the_token_at_once_and_no_other_sign_in(gateway: Gateway) -> None:
    await gateway.user("ada")
    other = await gateway.signed_in("ada")
    async with AsyncClient(gateway.url) as client:
        tokens = await client.login(email("ada"), PASSWORD)
        await client.logout()
    async with continued(gateway, tokens, refresh_token=tokens.refresh_token) as again:
        assert await refused(again) == "signed_out"
    assert (await other.me()).email == email("ada")


async def test_a_user_disabled_beside_the_server_is_out_within_two_seconds(
    gateway: Gateway,
) -> None:
    client = await gateway.client("ada")
    user = await client.me()
    await gateway.store.write(users.set_disabled, user.id, gateway.clock())
    gateway.clock.now += 2_000
    await refused(client)
    async with AsyncClient(gateway.url) as again:
        with pytest.raises(Unauthorized):
            await again.login(email("ada"), PASSWORD)


async def test_a_role_taken_away_is_gone_within_two_seconds(gateway: Gateway) -> None:
    admin = await gateway.client("ada", Role.ADMIN)
    user = await admin.me()
    await gateway.store.write(users.set_role, user.id, Role.MEMBER)
    gateway.clock.now += 2_000
    with pytest.raises(Forbidden):
        await admin.users()


async def test_an_administrator_adds_changes_and_disables_users(gateway: Gateway) -> None:
    admin = await gateway.client("ada", Role.ADMIN)
    added = await admin.create_user("Bob@Zene.test", PASSWORD)
    assert (added.email, added.role) == (email("bob"), Role.MEMBER)
    bob = await gateway.signed_in("bob")
    await admin.change_user(added.id, role="viewer", password="another horse")
    gateway.clock.now += 2_000
    await refused(bob)  # a new password ends every sign-in
    assert (await bob.login(email("bob"), "another horse")).expires_in == 900
    assert (await bob.me()).role == Role.VIEWER
    assert (await admin.change_user(added.id, disabled=True)).disabled
    assert {each.email for each in (await admin.users()).items} == {email("ada"), email("bob")}


async def test_an_administrator_gives_and_takes_quotas_and_caps(gateway: Gateway) -> None:
    admin = await gateway.client("ada", Role.ADMIN)
    added = await admin.create_user("bob@zene.test", PASSWORD, quota={"tokens": 5000})
    assert (added.quota, added.max_active_tasks) == (Quota(tokens=5000), None)
    monthly = {"tokens": 0, "period": "month"}
    changed = await admin.change_user(added.id, quota=monthly, max_active_tasks=7)
    assert (changed.quota, changed.max_active_tasks) == (Quota(tokens=0, period="month"), 7)
    usage = await (await gateway.signed_in("bob")).usage()
    assert (usage.used, usage.reserved, usage.limit, usage.period) == (0, 0, 0, "month")
    kept = await admin.change_user(added.id, role="viewer")
    assert (kept.quota, kept.max_active_tasks) == (changed.quota, 7)
    lifted = await admin.change_user(added.id, quota=None, max_active_tasks=None)
    assert (lifted.quota, lifted.max_active_tasks) == (None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"quota": {"tokens": -1}},
        {"quota": {"tokens": 1.5}},
        {"quota": {"tokens": 1 << 54}},
        {"quota": {"tokens": 1, "period": "week"}},
        {"quota": {"tokens": 1, "used": 0}},
        {"quota": {}},
        {"quota": 1},
        {"max_active_tasks": 0},
        {"max_active_tasks": True},
    ],
)
async def test_a_quota_that_means_nothing_is_refused(
    gateway: Gateway, change: dict[str, Any]
) -> None:
    admin = await gateway.client("ada", Role.ADMIN)
    user = await admin.me()
    with pytest.raises(InvalidInput):
        await admin.change_user(user.id, **change)
    with pytest.raises(InvalidInput):
        await admin.create_user("bob@zene.test", PASSWORD, **change)
    assert (await admin.me()).quota is None


async def test_an_administrator_cannot_lock_themselves_out(gateway: Gateway) -> None:
    admin = await gateway.client("ada", Role.ADMIN)
    user = await admin.me()
    for change in ({"disabled": True}, {"role": "member"}):
        with pytest.raises(Conflict):
            await admin.change_user(user.id, **change)


async def test_an_address_is_taken_once(gateway: Gateway) -> None:
    admin = await gateway.client("ada", Role.ADMIN)
    made = await asyncio.gather(
        *(admin.create_user(email("bob"), PASSWORD) for _ in range(4)), return_exceptions=True
    )
    assert sorted(getattr(each, "code", "made") for each in made) == ["email_taken"] * 3 + ["made"]


async def test_nobody_is_added_where_sandboxes_are_weak(gateway: Gateway) -> None:
    admin = await gateway.client("ada", Role.ADMIN)
    gateway.told.refusal = "No cap on memory here."
    with pytest.raises(Conflict, match="No cap on memory"):
        await admin.create_user(email("bob"), PASSWORD)


async def test_requests_beyond_the_rate_are_told_when_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path, requests_per_second=0.1, request_burst=4) as gateway:
        await gateway.user("ada")
        async with AsyncClient(gateway.url) as client:
            tokens = await client.login(email("ada"), PASSWORD)
        headers = {"authorization": f"Bearer {tokens.access_token}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
            answers = [await http.get("/v1/me") for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 200, 200, 429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 10
    assert answers[-1].json()["code"] == "rate_limited"


@pytest.mark.parametrize(("proxies", "last"), [((), 429), (("127.0.0.0/8",), 401)])
async def test_who_a_proxy_speaks_for_counts_only_where_it_is_trusted(
    tmp_path: Path, proxies: tuple[str, ...], last: int
) -> None:
    async with (
        running(
            tmp_path, trusted_proxies=proxies, requests_per_second=0.1, request_burst=2
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.url) as http,
    ):
        answers = [
            await http.get("/v1/me", headers={"x-forwarded-for": f"192.0.2.{n}"}) for n in range(3)
        ]
    assert [each.status_code for each in answers] == [401, 401, last]


async def test_the_server_says_whether_it_is_well_and_ready(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        page = await http.get("/")
        assert "<h1>Zene" in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.1")
