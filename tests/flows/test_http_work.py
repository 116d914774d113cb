"""Projects, sessions, tasks, approvals and files over HTTP, as a user sees them; a worker's part is done by hand."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.gateway import Gateway, running
from tests.unit.workspaces.archives import archive
from zene.bus.base import Signal
from zene.client import AsyncClient
from zene.domain.approvals import arguments_hash
from zene.domain.errors import Conflict, InvalidInput, NotFound, TooLarge, Unavailable
from zene.domain.events import (
    ApprovalRequested,
    Body,
    Draft,
    ItemCompleted,
    ItemStarted,
    TaskWaiting,
    as_json,
)
from zene.domain.ids import is_id
from zene.domain.messages import Content, ToolCall, ToolResult
from zene.domain.tasks import Lease
from zene.domain.times import milliseconds
from zene.store import claims
from zene.store.recording import record

ARGUMENTS = '{"command": "rm -rf build"}'


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Gateway, None]:
    async with running(tmp_path) as started:
        yield started


@pytest.fixture
async def ada(gateway: Gateway) -> AsyncClient:
    return await gateway.client("ada")


async def claimed(gateway: Gateway) -> Lease:
    """The next task, taken as a worker takes it."""
    found = await gateway.store.write(
        claims.claim,
        worker="w",
        home="here",
        now=gateway.clock(),
        lease_seconds=15,
        limit=1,
        user_cap=4,
    )
    return found.claims[0].lease


async def done(gateway: Gateway, lease: Lease, *drafts: Draft) -> None:
    name = gateway.id("bat")
    await gateway.store.write(
        record, lease, list(drafts), batch_id=name, now=gateway.clock(), worked_ms=1
    )


def of_item(lease: Lease, item_id: str, body: Body, content: Content | None = None) -> Draft:
    return Draft(body=body, task_id=lease.task_id, step=1, item_id=item_id, content=content)


async def asked(gateway: Gateway, lease: Lease) -> tuple[str, str]:
    """An approval of that task, which waits for it now; and the item of its call."""
    approval_id, item_id = gateway.id("apr"), gateway.id("itm")
    call = ToolCall("call_1", "shell", ARGUMENTS)
    started = ItemStarted(
        item_id=item_id,
        kind="command",
        call_id="call_1",
        name="shell",
        arguments=as_json(ARGUMENTS),
    )
    request = ApprovalRequested(
        approval_id=approval_id,
        item_id=item_id,
        name="shell",
        arguments=as_json(ARGUMENTS),
        summary="rm -rf build",
        risk="high",
        expires_at="2030-01-01T00:00:00.000Z",
    )
    await done(
        gateway,
        lease,
        of_item(lease, item_id, started, call),
        of_item(lease, item_id, request),
        Draft(body=TaskWaiting(on="approval"), task_id=lease.task_id),
    )
    return approval_id, item_id


async def test_a_task_is_accepted_queued_and_shown_in_the_log(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session(title="Bugs", approval_policy="ask_always")
    assert is_id(session.id, "ses")
    assert (session.status, session.model, session.last_seq) == ("idle", "demo:", 1)
    first = await ada.submit(session.id, "Fix it.")
    second = await ada.submit(session.id, "And that.", model="openai:other", effort="high")
    assert (first.status, first.position, first.usage.input_tokens) == ("queued", 0, 0)
    assert (second.position, second.model, second.effort) == (1, "openai:other", "high")
    assert await gateway.bus.wakened(0)
    page = await ada.events(session.id)
    assert [event.type for event in page.events] == [
        "session.created",
        "task.queued",
        "task.queued",
    ]
    assert [event.seq for event in page.events] == [1, 2, 3]
    assert page.last_seq == 3
    assert {task.id for task in (await ada.tasks(session.id)).items} == {first.id, second.id}
    assert (await ada.session(session.id)).status == "queued"


async def test_times_are_in_utc_with_milliseconds(ada: AsyncClient) -> None:
    session = await ada.create_session()
    assert session.created_at == "2027-01-15T08:00:00.000Z"


async def test_what_was_made_in_one_millisecond_is_read_page_by_page_newest_first(
    ada: AsyncClient,
) -> None:
    made = [(await ada.create_session(title=str(n))).id for n in range(9)]
    found: list[str] = []
    cursor = None
    while True:
        page = await ada.sessions(limit=2, cursor=cursor)
        found += [each.id for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        await ada.create_session(title="while they are read")
    assert found == made[::-1]


async def test_a_session_is_renamed_and_what_is_not_named_stays(ada: AsyncClient) -> None:
    session = await ada.create_session(effort="low")
    changed = await ada.change_session(session.id, title="Renamed", model="openai:other")
    assert (changed.title, changed.model, changed.effort) == ("Renamed", "openai:other", "low")
    with pytest.raises(InvalidInput) as caught:
        await ada.change_session(session.id, model="openai:unknown")
    assert caught.value.code == "unknown_model"


async def test_a_deleted_session_is_gone_and_its_tasks_are_over(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    task = await ada.submit(session.id, "Fix it.")
    async with gateway.bus.signals() as signals:
        await ada.delete_session(session.id)
        assert await anext(aiter(signals)) == Signal(kind="delete", session_id=session.id)
    for ask in (ada.session(session.id), ada.task(task.id), ada.events(session.id)):
        with pytest.raises(NotFound):
            await ask
    assert (await ada.sessions()).items == []


async def test_a_queued_task_is_cancelled_at_once_and_again_without_harm(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    task = await ada.submit(session.id, "Fix it.")
    for _ in range(2):
        cancelled = await ada.cancel(task.id)
        assert (cancelled.status, cancelled.outcome) == ("finished", "cancelled")
    page = await ada.events(session.id, after=2)
    assert [event.type for event in page.events] == ["task.finished"]


async def test_a_running_task_is_cancelled_by_its_worker(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    task = await ada.submit(session.id, "Fix it.")
    await claimed(gateway)
    async with gateway.bus.signals() as signals:
        assert (await ada.cancel(task.id)).status == "cancelling"
        expected = Signal(kind="cancel", session_id=session.id, task_id=task.id)
        assert await anext(aiter(signals)) == expected


async def test_the_same_key_gets_the_same_answer_and_makes_one_thing(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    made = await asyncio.gather(
        *(ada.submit(session.id, "Fix it.", idempotency_key="k") for _ in range(5))
    )
    assert len({msgspec.json.encode(task) for task in made}) == 1
    assert len((await ada.tasks(session.id)).items) == 1
    with pytest.raises(Conflict) as caught:
        await ada.submit(session.id, "Something else.", idempotency_key="k")
    assert caught.value.code == "idempotency_key_reused"
    bob = await gateway.client("bob")
    other = await bob.create_session()
    assert (await bob.submit(other.id, "Fix it.", idempotency_key="k")).session_id == other.id


async def test_an_approval_is_listed_decided_once_and_queues_its_task_again(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session(approval_policy="ask_always")
    task = await ada.submit(session.id, "Clean up.")
    approval_id, item_id = await asked(gateway, await claimed(gateway))
    assert (await ada.session(session.id)).status == "requires_action"
    [approval] = (await ada.approvals()).items
    assert (approval.id, approval.item_id, approval.task_id) == (approval_id, item_id, task.id)
    assert msgspec.json.decode(approval.arguments) == msgspec.json.decode(ARGUMENTS)
    assert approval.arguments_hash == arguments_hash("shell", ARGUMENTS)
    decided = await ada.decide(approval_id, "allow", note="go on")
    assert (decided.status, decided.scope, decided.note) == ("allowed", "once", "go on")
    with pytest.raises(Conflict):
        await ada.decide(approval_id, "deny")
    assert (await ada.approvals()).items == []
    assert (await ada.task(task.id)).status == "queued"
    types = [event.type for event in (await ada.events(session.id)).events]
    assert types[-3:] == ["task.waiting", "approval.decided", "task.resumed"]


async def test_of_many_people_who_decide_at_once_one_decides(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    await ada.submit(session.id, "Clean up.")
    approval_id, _ = await asked(gateway, await claimed(gateway))
    answers = await asyncio.gather(
        *(ada.decide(approval_id, "allow" if n % 2 else "deny") for n in range(6)),
        return_exceptions=True,
    )
    assert sum(not isinstance(each, Exception) for each in answers) == 1


async def test_files_are_written_listed_and_read_as_attachments(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    await ada.write_file(session.id, "src/näh.html", b"<script>alert(1)</script>" * 40_000)
    listing = await ada.files(session.id, "src")
    assert [(entry.name, entry.kind) for entry in listing.items] == [("näh.html", "file")]
    assert abs(milliseconds(listing.items[0].modified_at) - time.time() * 1000) < 600_000
    assert (await ada.files(session.id, ".")).items[0].kind == "folder"
    with pytest.raises(InvalidInput):
        await ada.files(session.id, limit=201)
    async with ada.opened_file(session.id, "src/näh.html") as chunks:
        assert sum([len(chunk) async for chunk in chunks]) == 1_000_000
    await ada.write_file(session.id, "empty", b"")
    assert await ada.read_file(session.id, "empty") == b""
    with pytest.raises(NotFound):
        await ada.read_file(session.id, "missing")
    with pytest.raises(InvalidInput):
        await ada.read_file(session.id, "../../etc/passwd")


async def test_a_file_is_never_shown_as_a_page(gateway: Gateway, ada: AsyncClient) -> None:
    session = await ada.create_session()
    await ada.write_file(session.id, 'a";x.html', b"<script>alert(1)</script>")
    tokens = await ada.login("ada@zene.test", "correct horse")
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        answer = await http.get(
            f"/v1/sessions/{session.id}/files/content",
            params={"path": 'a";x.html'},
            headers={"authorization": f"Bearer {tokens.access_token}"},
        )
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%22%3Bx.html"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_a_file_that_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, max_file_bytes=1000) as gateway:
        ada = await gateway.client("ada")
        session = await ada.create_session()
        with pytest.raises(TooLarge):
            await ada.write_file(session.id, "large", bytes(1001))
        assert (await ada.files(session.id)).items == ()


async def test_a_calls_output_is_read_in_pieces_also_where_it_is_only_in_the_item(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    await ada.submit(session.id, "Clean up.")
    lease = await claimed(gateway)
    item_id = gateway.id("itm")
    call = ToolCall("call_1", "shell", ARGUMENTS)
    result = ToolResult(status="succeeded", output="short", exit_code=0)
    started = ItemStarted(item_id=item_id, kind="command", call_id="call_1", name="shell")
    ended = ItemCompleted(item_id=item_id, kind="command", status="succeeded", output="short")
    await done(
        gateway,
        lease,
        of_item(lease, item_id, started, call),
        of_item(lease, item_id, ended, msgspec.structs.replace(call, result=result)),
    )
    assert await ada.output(session.id, item_id) == b"short"
    await gateway.outputs.append(session.id, item_id, b"0123456789")
    assert await ada.output(session.id, item_id, offset=3, limit=4) == b"3456"
    with pytest.raises(NotFound):
        await ada.output(session.id, gateway.id("itm"))


async def test_an_uploaded_project_is_what_a_session_starts_from(tmp_path: Path) -> None:
    async with running(tmp_path, with_sandbox=True) as gateway:
        ada = await gateway.client("ada")
        project = await ada.create_project("marsh")
        assert project.state == "empty"
        packed = tmp_path / "project.tar.gz"
        packed.write_bytes(archive({"a.txt": b"one\n", "b/c.txt": b"two\n"}))
        unpacked = await ada.upload(project.id, packed)
        assert (unpacked.project.state, unpacked.project.files) == ("ready", 2)
        session = await ada.create_session(project_id=project.id)
        assert await ada.read_file(session.id, "b/c.txt") == b"two\n"
        await ada.write_file(session.id, "a.txt", b"one\nmore\n")
        diff = await ada.diff(session.id)
        assert [(file.path, file.added) for file in diff.files] == [("a.txt", 1)]
        assert "+more" in diff.patch
        packed.write_bytes(b"not an archive")
        with pytest.raises(InvalidInput):
            await ada.upload(project.id, packed)
        assert (await ada.project(project.id)).files == 2
        assert [each.id for each in (await ada.sessions(project_id=project.id)).items] == [
            session.id
        ]
        await ada.delete_project(project.id)
        with pytest.raises(NotFound):
            await ada.project(project.id)
        assert (await ada.session(session.id)).id == session.id


async def test_models_and_usage_are_told(ada: AsyncClient) -> None:
    models = await ada.models()
    assert (models.default, [model.id for model in models.items]) == (
        "demo:",
        ["demo:", "openai:other"],
    )
    usage = await ada.usage()
    assert (usage.used, usage.reserved, usage.limit, usage.by_day) == (0, 0, None, [])


async def test_what_a_later_release_brings_is_refused_until_then(
    gateway: Gateway, ada: AsyncClient
) -> None:
    tokens = await ada.login("ada@zene.test", "correct horse")
    headers = {"authorization": f"Bearer {tokens.access_token}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
        body = {"name": "x", "git_url": "https://example.org/x.git"}
        assert (await http.post("/v1/projects", json=body)).status_code == 422


async def test_a_server_that_is_not_there_is_said_to_be_unreachable() -> None:
    async with AsyncClient("http://127.0.0.1:9") as client:
        with pytest.raises(Unavailable) as caught:
            await client.me()
    assert caught.value.code == "unreachable"


async def test_whoever_sends_far_too_much_is_told_so_and_not_cut_off(ada: AsyncClient) -> None:
    for _ in range(5):
        with pytest.raises(TooLarge):
            await ada.create_session(title="x" * (20 << 20))
    assert (await ada.sessions()).items == []
