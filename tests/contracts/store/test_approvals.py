"""Approvals: decided once, used once, bound to what was asked."""

import asyncio

import pytest

from tests.contracts.store.world import DAY_MS, World, call, question, waiting
from zene.domain.approvals import Approval, Decision, Scope, arguments_hash
from zene.domain.errors import Conflict, NotFound
from zene.domain.events import Event
from zene.domain.messages import ToolCall
from zene.store import approvals, schema
from zene.store.claims import Claim
from zene.store.ending import encoded


async def decide(
    world: World,
    claim: Claim,
    approval: Approval,
    decision: Decision = "allow",
    scope: Scope = "once",
) -> tuple[Approval, list[Event], bool]:
    """The owner's answer."""
    return await world.store.write(
        approvals.decide,
        claim.lease.user_id,
        approval.id,
        decision=decision,
        scope=scope,
        note="Go on.",
        now=world.now,
    )


async def asked(world: World) -> tuple[Approval, Claim]:
    """A waiting task's only question, and how the task was claimed."""
    claim = await world.started()
    return await world.asked(claim), claim


async def test_a_question_holds_what_the_answer_will_bind(world: World) -> None:
    approval, _ = await asked(world)
    assert approval.arguments == '{"command":"ls"}'
    assert approval.arguments_hash == arguments_hash("shell", '{"command":"ls"}')
    assert (approval.status, approval.expires_at) == ("pending", world.now + 7 * DAY_MS)


async def test_an_answer_queues_the_task_again(world: World) -> None:
    approval, claim = await asked(world)
    decided, events, resumed = await decide(world, claim, approval)
    assert (decided.status, decided.note, resumed) == ("allowed", "Go on.", True)
    assert [event.type for event in events] == ["approval.decided", "task.resumed"]
    (again,) = await world.claim()
    assert again.task.id == approval.task_id
    situation = await world.situation(again.lease)
    assert situation.approvals == {approval.item_id: decided}
    assert (await world.log(claim.session.id))[-1].type == "task.started"


async def test_a_task_goes_on_when_its_last_question_is_answered(world: World) -> None:
    claim = await world.started()
    lease, items = claim.lease, [world.id("itm") for _ in range(2)]
    ids = [world.id("apr") for _ in items]
    await world.record(
        lease,
        *(call(lease, item) for item in items),
        *(question(lease, i, a, world.now + DAY_MS) for i, a in zip(items, ids, strict=True)),
        waiting(lease),
    )
    found = [await world.approval(claim, approval_id) for approval_id in ids]
    assert (await decide(world, claim, found[1], "deny"))[2] is False
    assert await world.claim() == []
    assert (await decide(world, claim, found[0]))[2] is True
    assert len(await world.claim()) == 1


async def test_of_many_answers_at_once_one_counts(world: World) -> None:
    approval, claim = await asked(world)
    answers = await asyncio.gather(
        *(decide(world, claim, approval, "allow" if n % 2 else "deny") for n in range(10)),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(refused) == 9
    assert {error.code for error in refused} == {"already_decided"}
    assert (await world.types(claim.session.id)).count("approval.decided") == 1


async def test_an_answer_before_the_task_waits_is_not_lost(world: World) -> None:
    claim = await world.started()
    lease, item, approval_id = claim.lease, world.id("itm"), world.id("apr")
    await world.record(
        lease, call(lease, item), question(lease, item, approval_id, world.now + DAY_MS)
    )
    await decide(world, claim, await world.approval(claim, approval_id))
    await world.record(lease, waiting(lease))
    assert [again.task.id for again in await world.claim()] == [claim.task.id]


async def test_an_allowed_call_begins_once(world: World) -> None:
    approval, claim = await asked(world)
    await decide(world, claim, approval)
    (again,) = await world.claim()
    await world.record(again.lease, intents=[approval.item_id])
    with pytest.raises(Conflict):
        await world.record(again.lease, intents=[approval.item_id])


async def test_a_permission_is_used_once_whatever_becomes_of_the_call(world: World) -> None:
    approval, claim = await asked(world)
    await decide(world, claim, approval)
    (again,) = await world.claim()
    await world.record(again.lease, intents=[approval.item_id])
    await world.do(schema.items.update().values(intent_epoch=None))
    with pytest.raises(Conflict):
        await world.record(again.lease, intents=[approval.item_id])


async def test_a_permission_binds_the_exact_arguments(world: World) -> None:
    approval, claim = await asked(world)
    await decide(world, claim, approval)
    (again,) = await world.claim()
    swapped = ToolCall(call_id="c", name="shell", arguments='{"command":"rm"}')
    await world.do(schema.items.update().values(content=encoded(swapped)))
    with pytest.raises(Conflict):
        await world.record(again.lease, intents=[approval.item_id])


async def test_a_call_that_nobody_allowed_does_not_begin(world: World) -> None:
    approval, claim = await asked(world)
    await decide(world, claim, approval, "deny")
    (again,) = await world.claim()
    with pytest.raises(Conflict):
        await world.record(again.lease, intents=[approval.item_id])


async def test_only_the_owner_answers(world: World) -> None:
    approval, _ = await asked(world)
    other = await world.started()
    with pytest.raises(NotFound):
        await decide(world, other, approval)


async def test_nothing_is_decided_once_the_task_was_cancelled(world: World) -> None:
    approval, claim = await asked(world)
    await world.cancel(claim.task)
    with pytest.raises(Conflict):
        await decide(world, claim, approval)


async def test_for_the_session_means_a_rule_for_the_tool(world: World) -> None:
    approval, claim = await asked(world)
    await decide(world, claim, approval, "allow", "session")
    (again,) = await world.claim()
    assert (await world.situation(again.lease)).rules == {"shell"}


async def test_a_denial_for_the_session_is_no_rule(world: World) -> None:
    approval, claim = await asked(world)
    await decide(world, claim, approval, "deny", "session")
    (again,) = await world.claim()
    assert (await world.situation(again.lease)).rules == frozenset()


async def test_what_nobody_answers_in_time_counts_as_denied(world: World) -> None:
    approval, claim = await asked(world)
    world.now += 7 * DAY_MS
    with pytest.raises(Conflict):
        await decide(world, claim, approval)
    swept = await world.store.write(approvals.expire, now=world.now, limit=10)
    assert [event.type for event in swept[0][1]] == ["approval.expired", "task.resumed"]
    assert swept[0][0] == claim.session.id
    (again,) = await world.claim()
    assert (await world.situation(again.lease)).approvals[approval.item_id].status == "expired"
    assert await world.store.write(approvals.expire, now=world.now, limit=10) == []
