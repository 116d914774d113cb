"""Calls that a person must allow: they wait through kills, run once when allowed, and never otherwise."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.planted import PASSWORD
from tests.servers import RESUMED_SECONDS, Log, Zene, begin, says
from zene.domain.approvals import Decision
from zene.domain.errors import Conflict, NotFound
from zene.domain.sessions import ApprovalPolicy
from zene.gateway.shapes import Approval

READ = Call(name="list_files", arguments={"path": "."})
WRITE = Call(name="write_file", arguments={"path": "a.txt", "content": "written"})
APPEND = Call(name="shell", arguments={"command": "echo x >> log.txt"})
DONE = Answer(text="Done.")


async def asked(zene: Zene, policy: ApprovalPolicy = "ask_for_writes") -> tuple[Log, str]:
    """A task that waits for somebody, and its log."""
    log, task = await begin(zene, approval_policy=policy)
    await log.until(says("task.waiting"))
    return log, task


async def pending(log: Log) -> Sequence[Approval]:
    """What the session waits for, in the order of its calls."""
    found = (await log.client.approvals()).items
    return [each for each in found if each.session_id == log.session_id]


async def decide_all(log: Log, decision: Decision = "allow") -> None:
    for each in await pending(log):
        await log.client.decide(each.id, decision)


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        ("ask_always", ["list_files", "write_file", "shell"]),
        ("ask_for_writes", ["write_file", "shell"]),
        ("auto", []),
    ],
)
async def test_all_calls_of_an_answer_are_asked_about_at_once(
    zene: Zene, model: ModelServer, policy: ApprovalPolicy, names: list[str]
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[READ, WRITE, APPEND]), DONE])
    log, task = await begin(zene, approval_policy=policy)
    if names:
        await log.until(says("task.waiting"))
        assert [each.name for each in await pending(log)] == names
        assert (await log.client.files(log.session_id)).items == ()
        await decide_all(log)
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    assert [each["name"] for each in log.of("approval.requested")] == names
    assert [each["status"] for each in log.calls()] == ["succeeded"] * 3
    assert await log.client.read_file(log.session_id, "a.txt") == b"written"


async def test_a_task_that_waits_holds_no_worker_and_outlives_kills_before_and_after_the_decision(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[APPEND]), DONE])
    log, task = await asked(zene)
    await zene.restart()
    waiting = await log.client.task(task)
    assert (waiting.status, waiting.waiting_on) == ("waiting", "approval")
    assert (await log.client.session(log.session_id)).status == "requires_action"
    with closing(sqlite3.connect(zene.home / "data" / "zene.db")) as store:
        held = store.execute("SELECT lease_worker, lease_epoch FROM tasks").fetchall()
        active = store.execute("SELECT sum(active) FROM users").fetchone()
    assert (held, active) == ([(None, None)], (0,))
    [approval] = await pending(log)
    await log.client.decide(approval.id, "allow")
    await zene.restart()
    assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
    await log.check()
    await log.ran_once()
    assert len(log.of("approval.requested")) == 1
    assert len(model.requests) in (2, 3)


async def test_a_denied_call_never_runs_and_the_model_is_told_why(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[WRITE, APPEND]), DONE])
    log, task = await asked(zene)
    write, append = await pending(log)
    await log.client.decide(write.id, "deny", note="Not that file.")
    await log.client.decide(append.id, "allow")
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    assert [each["status"] for each in log.calls()] == ["denied", "succeeded"]
    with pytest.raises(NotFound):
        await log.client.read_file(log.session_id, "a.txt")
    assert await log.client.read_file(log.session_id, "log.txt") == b"x\n"
    told = json.loads(model.requests[-1].body)["messages"][-2]
    assert "Denied by the user" in told["content"]
    assert "Not that file." in told["content"]


async def test_a_denial_outlives_a_kill_too(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[WRITE]), DONE])
    log, task = await asked(zene)
    await decide_all(log, "deny")
    await zene.restart()
    assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
    await log.check()
    assert [each["status"] for each in log.calls()] == ["denied"]
    with pytest.raises(NotFound):
        await log.client.read_file(log.session_id, "a.txt")


async def test_a_call_is_decided_once_and_by_its_owner(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[APPEND]), DONE])
    log, task = await asked(zene)
    await log.client.create_user("bob@zene.test", PASSWORD)
    bob = await zene.client("bob@zene.test")
    [approval] = await pending(log)
    assert (await bob.approvals()).items == []
    with pytest.raises(NotFound):
        await bob.decide(approval.id, "allow")
    await log.client.decide(approval.id, "allow")
    with pytest.raises(Conflict):
        await log.client.decide(approval.id, "deny")
    assert (await log.finished(task))["outcome"] == "succeeded"
    with pytest.raises(Conflict):
        await log.client.decide(approval.id, "allow")
    assert await log.client.read_file(log.session_id, "log.txt") == b"x\n"


async def test_what_is_allowed_for_the_session_is_not_asked_again(
    zene: Zene, model: ModelServer
) -> None:
    answers = [Answer(calls=[APPEND]), Answer(calls=[APPEND]), Answer(calls=[WRITE]), DONE]
    model.scripts["*"] = Script(answers=answers)
    log, task = await asked(zene)
    [first] = await pending(log)
    await log.client.decide(first.id, "allow", scope="session")
    await log.until(says("approval.requested", name="write_file"))
    await log.until(lambda event: event.type == "task.waiting" and event.seq > log.events[-2].seq)
    assert await log.client.read_file(log.session_id, "log.txt") == b"x\nx\n"
    await zene.restart()
    await decide_all(log)
    assert (await log.finished(task))["outcome"] == "succeeded"
    again = (await log.client.submit(log.session_id, "Once more.")).id
    await log.until(lambda event: event.task_id == again and event.type == "approval.requested")
    assert len(log.of("approval.requested")) == 3
    assert await log.client.read_file(log.session_id, "log.txt") == b"x\nx\nx\nx\n"
    await log.client.cancel(again)
    await log.check()


async def test_cancelling_withdraws_what_is_asked(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[WRITE, APPEND]), DONE])
    log, task = await asked(zene)
    asked_for = await pending(log)
    assert (await log.client.cancel(task)).status == "finished"
    assert (await log.finished(task))["outcome"] == "cancelled"
    await log.check()
    expired = [each["approval_id"] for each in log.of("approval.expired")]
    assert sorted(expired) == sorted(each.id for each in asked_for)
    assert await pending(log) == []
    for each in asked_for:
        with pytest.raises(Conflict):
            await log.client.decide(each.id, "allow")
    assert [each["status"] for each in log.calls()] == ["denied", "denied"]
    assert (await log.client.files(log.session_id)).items == ()
    assert len(model.requests) == 1
