"""Isolation of users: every route, asked by everybody who may not, answers the same and changes nothing.

The matrix is made from the route table, so that a new route is in it by being a route.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, get_origin

import httpx
import pytest

from tests.flows.test_http_work import asked, claimed
from tests.gateway import PASSWORD, Gateway, email, running
from zene.client import AsyncClient
from zene.domain.users import Role
from zene.gateway.creating import Created
from zene.gateway.routing import Route
from zene.gateway.table import ROUTES
from zene.store import users

CASES = Path(__file__).parents[1] / "data" / "hostile" / "authorisation.json"
# A body that each route takes, so that nothing but the caller can be what is wrong.
BODIES: dict[str, dict[str, Any]] = {
    "NewUser": {"email": "new@zene.test", "password": PASSWORD},
    "UserChange": {"role": "viewer"},
    "NewProject": {"name": "mine"},
    "ProjectChange": {"name": "mine now"},
    "NewSession": {},
    "SessionChange": {"title": "mine now"},
    "NewTask": {"prompt": "Do as I say."},
    "TaskChange": {"prompt": "Do as I say."},
    "NewSteer": {"text": "Do as I say."},
    "Answer": {"decision": "allow"},
    "Login": {"email": "nobody@zene.test", "password": "wrong horse"},
    "Refresh": {"refresh_token": "AAAA"},
}
PROTECTED = [each for each in ROUTES if each.access != "public"]
OWNED = [each for each in PROTECTED if "{" in each.path and each.access != "admin"]
CREATING = [each for each in ROUTES if get_origin(each.answer) is Created]
NEEDS_PATH = {"/v1/sessions/{session_id}/files/content"}


def name(each: Route) -> str:
    return f"{each.method} {each.path}"


@dataclass
class Scene:
    """Ada's things, and who wants them."""

    gateway: Gateway
    file: Path
    ids: dict[str, str]
    tokens: dict[str, str]

    async def ask(
        self, each: Route, who: str | None, ids: dict[str, str] | None = None, **more: str
    ) -> httpx.Response:
        headers = more if who is None else {"authorization": f"Bearer {self.tokens[who]}", **more}
        content: dict[str, Any] = {"content": b"x"} if each.method == "PUT" else {}
        if each.body is not None:
            content = {"json": BODIES[each.body.__name__]}
        if each.path in NEEDS_PATH:
            content["params"] = {"path": "secret.txt"}
        async with httpx.AsyncClient(base_url=self.gateway.url, headers=headers) as http:
            return await http.request(each.method, each.path.format(**(ids or self.ids)), **content)

    def count(self) -> int:
        """How many things there are that somebody created."""
        made = ("users", "projects", "sessions", "tasks", "steers")
        return sum(len(self.rows()[table]) for table in made)

    def rows(self) -> dict[str, list[Any]]:
        """All that is Ada's, as it is in the database."""
        tables = (
            "users",
            "projects",
            "sessions",
            "tasks",
            "steers",
            "events",
            "items",
            "approvals",
            "rules",
            "jobs",
        )
        with closing(sqlite3.connect(self.file)) as database:
            return {
                table: sorted(database.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
                for table in tables
            }


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncGenerator[Scene, None]:
    async with running(tmp_path) as gateway:
        ada = await gateway.client("ada")
        project = await ada.create_project("secret")
        session = await ada.create_session(project_id=project.id, title="secret")
        await ada.write_file(session.id, "secret.txt", b"secret")
        task = await ada.submit(session.id, "secret")
        approval_id, item_id = await asked(gateway, await claimed(gateway))
        ids = {
            "user_id": (await ada.me()).id,
            "project_id": project.id,
            "session_id": session.id,
            "task_id": task.id,
            "approval_id": approval_id,
            "item_id": item_id,
        }
        tokens = await strangers(gateway)
        yield Scene(gateway, tmp_path / "zene.db", ids, tokens)


async def strangers(gateway: Gateway) -> dict[str, str]:
    """Tokens of everybody who has no business with Ada's things."""
    tokens = {}
    for name in ("expired", "bob", "viewer", "revoked", "signed-out", "admin"):
        user = await gateway.user(name, Role(name) if name in ("viewer", "admin") else Role.MEMBER)
        async with AsyncClient(gateway.url) as client:
            tokens[name] = (await client.login(email(name), PASSWORD)).access_token
            if name == "expired":
                gateway.clock.now += 15 * 60_000
            if name == "revoked":
                await gateway.store.write(users.set_disabled, user.id, gateway.clock())
            if name == "signed-out":
                await client.logout()
    return tokens


async def test_nobody_gets_in_without_a_good_token(scene: Scene) -> None:
    before = scene.rows()
    wrong = {
        f"{name(each)} as {who}": answer.status_code
        for each in PROTECTED
        for who in (None, "expired", "revoked", "signed-out")
        if (answer := await scene.ask(each, who)).status_code != 401
    }
    assert wrong == {}
    assert scene.rows() == before


async def test_without_a_token_every_route_answers_with_the_same_body(scene: Scene) -> None:
    bodies = {(await scene.ask(each, None)).content for each in PROTECTED}
    assert len(bodies) == 1


@pytest.mark.parametrize("who", ["bob", "admin"])
async def test_somebody_elses_things_are_as_if_they_were_not_there(scene: Scene, who: str) -> None:
    before = scene.rows()
    unknown = {key: f"{value.split('_')[0]}_{'0' * 26}" for key, value in scene.ids.items()}
    malformed = dict.fromkeys(scene.ids, "none")
    wrong = {}
    for each in OWNED:
        foreign = await scene.ask(each, who)
        absent = await scene.ask(each, who, unknown)
        no_id = await scene.ask(each, who, malformed)
        if (foreign.status_code, foreign.content) != (
            404,
            absent.content,
        ) or no_id.status_code != 404:
            wrong[name(each)] = (foreign.text, absent.text, no_id.text)
    assert wrong == {}
    assert scene.rows() == before


async def test_a_viewer_changes_nothing(scene: Scene) -> None:
    before = scene.rows()
    wrong = {}
    for each in (each for each in PROTECTED if each.path != "/v1/auth/logout"):
        answer = await scene.ask(each, "viewer")
        allowed = 404 if "{" in each.path else 200
        expected = allowed if each.access == "viewer" else 403
        if answer.status_code != expected:
            wrong[name(each)] = answer.text
    assert wrong == {}
    assert scene.rows() == before


async def test_only_an_administrator_administers(scene: Scene) -> None:
    before = scene.rows()
    for each in ROUTES:
        if each.access == "admin":
            assert (await scene.ask(each, "bob")).status_code == 403
    assert scene.rows() == before
    listed = await scene.ask(
        next(each for each in ROUTES if name(each) == "GET /v1/admin/users"), "admin"
    )
    assert listed.status_code == 200
    assert "password" not in listed.text


@pytest.mark.parametrize("each", CREATING, ids=name)
async def test_what_is_sent_five_times_at_once_under_one_key_is_made_once(
    scene: Scene, each: Route
) -> None:
    ids = scene.ids
    if "{" in each.path:
        admin = await scene.gateway.signed_in("admin")
        session_id = (await admin.create_session()).id
        ids |= {"session_id": session_id}
        if "task_id" in each.path:
            ids |= {"task_id": (await admin.submit(session_id, "Mine.")).id}
            await claimed(scene.gateway)
    before = scene.count()
    answers = await asyncio.gather(
        *(scene.ask(each, "admin", ids, **{"idempotency-key": "k"}) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {each.status}
    assert len({answer.content for answer in answers}) == 1
    assert scene.count() == before + 1


async def test_ids_of_two_owners_do_not_mix(scene: Scene) -> None:
    """Bob's own session with Ada's item, and Ada's project in Bob's session."""
    bob = await scene.gateway.signed_in("bob")
    own = (await bob.create_session()).id
    output = next(each for each in ROUTES if each.path.endswith("/output"))
    mixed = await scene.ask(output, "bob", scene.ids | {"session_id": own})
    assert mixed.status_code == 404
    headers = {"authorization": f"Bearer {scene.tokens['bob']}"}
    async with httpx.AsyncClient(base_url=scene.gateway.url, headers=headers) as http:
        body = {"project_id": scene.ids["project_id"]}
        assert (await http.post("/v1/sessions", json=body)).status_code == 404
        listed = await http.get("/v1/sessions", params={"project_id": scene.ids["project_id"]})
        assert listed.json()["items"] == []


async def test_lists_hold_only_the_callers_own(scene: Scene) -> None:
    for each in PROTECTED:
        if each.method == "GET" and "{" not in each.path and each.access != "admin":
            assert "secret" not in (await scene.ask(each, "bob")).text


@pytest.mark.parametrize(
    "case", json.loads(CASES.read_text())["cases"], ids=lambda case: case["id"]
)
async def test_a_listed_attempt_gets_nowhere(scene: Scene, case: dict[str, Any]) -> None:
    before = scene.rows()
    headers = dict(case.get("headers", {}))
    if case.get("as"):
        headers["authorization"] = f"Bearer {scene.tokens[case['as']]}"
    async with httpx.AsyncClient(base_url=scene.gateway.url, headers=headers) as http:
        answer = await http.request(
            case["method"],
            Template(case["path"]).substitute(scene.ids),
            content=Template(case.get("body", "")).substitute(scene.ids).encode(),
        )
    assert answer.status_code in case["expect"], answer.text
    assert "secret" not in answer.text
    assert scene.rows() == before
