"""What a task tells its user, on whichever session they look."""

import msgspec
import pytest
from msgspec import Raw

from zene.bus.memory import MemoryBus
from zene.domain.events import ApprovalRequested, ApprovalWanted, Draft, QuotaUpdated, envelope
from zene.domain.quotas import Account
from zene.store.recording import Recorded
from zene.worker.words import tell_user

ASKED = ApprovalRequested(
    approval_id="apr_1",
    item_id="itm_1",
    name="shell",
    arguments=Raw(b'{"command": "true"}'),
    summary="true",
    risk="high",
    expires_at="later",
)
WANTED = ApprovalWanted(
    approval_id="apr_1", session_id="ses_1", name="shell", summary="true", expires_at="later"
)


async def told(recorded: Recorded) -> list[object]:
    bus = MemoryBus()
    async with bus.subscribe("ses_2", "usr_1") as follower:
        await tell_user(bus, "usr_1", recorded)
        found: list[object] = []
        while (live := await follower.next(0)) is not None:
            assert not live.durable
            kind = {each.type: each for each in (ApprovalWanted, QuotaUpdated)}[live.type]
            found.append(msgspec.json.decode(live.body, type=kind))
        return found


async def test_a_call_that_waits_is_told_with_its_session() -> None:
    event = envelope(Draft(body=ASKED, task_id="tsk_1"), session_id="ses_1", seq=7, ts="now")
    assert await told(Recorded([event], None)) == [WANTED]


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (None, []),
        (Account(used=15, reserved=0, limit=None), []),
        (Account(used=15, reserved=5, limit=99), [QuotaUpdated(used=15, reserved=5, limit=99)]),
    ],
)
async def test_an_account_is_told_where_it_has_a_limit(
    account: Account | None, words: list[object]
) -> None:
    assert await told(Recorded([], None, account)) == words
