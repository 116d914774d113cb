"""An installation without its server: the units called as gateways and workers call them."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from sqlalchemy import Table, bindparam, func, select

from zene.domain.approvals import Approval
from zene.domain.errors import ZeneError
from zene.domain.events import (
    ApprovalRequested,
    Body,
    Draft,
    ErrorBody,
    Event,
    ItemCompleted,
    ItemStarted,
    StepFinished,
    StepStarted,
    TaskFinished,
    TaskWaiting,
)
from zene.domain.ids import make_id
from zene.domain.messages import Content, Message, ToolCall, ToolResult, Usage
from zene.domain.projects import Project
from zene.domain.quotas import Account, Period, Quota
from zene.domain.sessions import ApprovalPolicy, Session
from zene.domain.situation import Situation
from zene.domain.tasks import Lease, OnBusy, Outcome, Task, WaitingOn
from zene.domain.times import rfc3339
from zene.domain.users import Role, User
from zene.store import (
    approvals,
    claims,
    history,
    log,
    quotas,
    recording,
    rows,
    schema,
    sessions,
    shortage,
    tasks,
    users,
)
from zene.store.base import Rows, Statement, Store, Unit
from zene.store.claims import Claim
from zene.store.recording import Recorded

DAY_MS = 24 * 3600 * 1000


class World:
    """`now` moves only when a test moves it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 1_800_000_000_000
        self._numbers = count(1)

    def id(self, prefix: str) -> str:
        """A new id; ids sort in the order they were made."""
        return make_id(prefix, self.now, next(self._numbers).to_bytes(10, "big"))

    async def user(self) -> User:
        """A member."""
        email = f"{next(self._numbers)}@example.org"
        return await self.store.write(
            users.create_user, self.id("usr"), email, "hash", Role.MEMBER, self.now
        )

    async def session(
        self, user: User, policy: ApprovalPolicy = "auto", project: Project | None = None
    ) -> Session:
        """A session, without a project if none is named."""
        session, _ = await self.store.write(
            sessions.create_session,
            id=self.id("ses"),
            user_id=user.id,
            project_id=project.id if project else None,
            title="",
            model="demo:",
            effort=None,
            approval_policy=policy,
            now=self.now,
        )
        return session

    async def submit(
        self,
        session: Session,
        max_tokens_total: int | None = None,
        priority: int = 0,
        on_busy: OnBusy = "enqueue",
    ) -> Task:
        """A task in the session."""
        made = await self.store.write(
            tasks.submit,
            id=self.id("tsk"),
            user_id=session.user_id,
            session_id=session.id,
            prompt="Mend it.",
            model=None,
            effort=None,
            max_tokens_total=max_tokens_total,
            priority=priority,
            on_busy=on_busy,
            now=self.now,
        )
        return made.task

    async def task(self, task: Task) -> Task:
        """The task as it is now."""
        found, _ = await self.store.read(tasks.get_task, task.user_id, task.id)
        return found

    async def claim(
        self, limit: int = 1, *, user_cap: int = 4, worker: str = "one", home: str = "here"
    ) -> list[Claim]:
        """Claim for fifteen seconds, until `limit` are had or there is no more."""
        got: list[Claim] = []
        while len(got) < limit:
            handed_out = await self.store.write(
                claims.claim,
                worker=worker,
                home=home,
                now=self.now,
                lease_seconds=15,
                limit=limit - len(got),
                user_cap=user_cap,
            )
            got += handed_out.claims
            if not handed_out.may_be_more:
                break
        return got

    async def started(self, max_tokens_total: int | None = None) -> Claim:
        """A task of a new user's, claimed."""
        await self.submit(await self.session(await self.user()), max_tokens_total)
        (claim,) = await self.claim()
        return claim

    async def record(self, lease: Lease, *drafts: Draft, **options: Any) -> Recorded:
        """What the lease's worker commits."""
        options.setdefault("batch_id", self.id("bat"))
        apart = recording.apart(lease, drafts, options.get("reserve"))
        return await self.store.write_together(
            apart, recording.record, lease, drafts, now=self.now, **options
        )

    async def step(
        self, lease: Lease, number: int = 1, *, bound: int = 100, cap: int = 50
    ) -> Recorded:
        """Begin a model call."""
        draft = say(lease, StepStarted(model="demo:"), step=number)
        return await self.record(lease, draft, reserve=bound, output_cap=cap)

    async def finish(self, lease: Lease, outcome: Outcome = "succeeded") -> Recorded:
        """End the lease's task."""
        return await self.record(lease, finished(lease, outcome))

    async def cancel(self, task: Task) -> tuple[Task, Sequence[Event], bool]:
        """What the user does."""
        return await self.store.write(tasks.request_cancel, task.user_id, task.id, self.now)

    async def sweep(self) -> list[tuple[str, list[Event]]]:
        """Take back what has expired."""
        return await self.store.write(claims.sweep_leases, now=self.now, limit=100)

    async def asked(self, claim: Claim, name: str = "shell") -> Approval:
        """A call of the claimed task that a person must allow; the task waits for it."""
        item_id, approval_id = self.id("itm"), self.id("apr")
        await self.record(
            claim.lease,
            call(claim.lease, item_id, name),
            question(claim.lease, item_id, approval_id, self.now + 7 * DAY_MS, name),
            waiting(claim.lease),
        )
        return await self.approval(claim, approval_id)

    async def approval(self, claim: Claim, approval_id: str) -> Approval:
        """The approval as it is now."""
        for status in ("pending", "allowed", "denied", "expired", "withdrawn"):
            found, _ = await self.store.read(
                approvals.list_approvals, claim.lease.user_id, status, None, 100
            )
            for approval in found:
                if approval.id == approval_id:
                    return approval
        raise AssertionError(approval_id)

    async def log(self, session_id: str) -> list[Event]:
        """The whole log, which is gapless."""
        events = await self.store.read(log.tail, session_id, 0, 100_000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return events

    async def types(self, session_id: str) -> list[str]:
        """What the log says, without the session's own events."""
        events = await self.log(session_id)
        return [event.type for event in events if not event.type.startswith("session.")]

    async def situation(self, lease: Lease) -> Situation:
        """What the lease's task would start from, were it claimed now."""
        return await self.store.read(situation_of, lease)

    async def allow(
        self, user_id: str, tokens: int | None, period: Period = "total"
    ) -> list[tuple[str, list[Event]]]:
        """Give the user a quota or lift it, as an administrator does; what tasks that waited do now."""
        return await self.store.write(_allow, user_id, tokens, period, self.now)

    async def account(self, user_id: str) -> Account:
        """What the user has used and reserved; the reservations are those of the calls that are open."""
        account, opened = await self.store.read(_account, user_id, self.now)
        assert account.reserved == opened
        return account

    async def resume(self, user_id: str) -> list[str]:
        """Look after the user's tasks that wait for tokens; how each of them ended or that it was resumed."""
        swept = await self.store.write(shortage.resume, user_id, now=self.now, limit=100)
        return [event.type for _, events in swept for event in events]

    async def count(self, table: Table) -> int:
        """How many rows a table has."""
        found = await self.store.read(look, Statement(select(func.count()).select_from(table)))
        return int(found[0][0])

    async def value(self, column: Any, table: Table, key: str) -> Any:
        """A column of the row with that id."""
        statement = Statement(select(column).where(table.c.id == key))
        return (await self.store.read(look, statement))[0][0]

    async def do(self, statement: Any) -> None:
        """A change that no unit of the store makes."""
        await self.store.write(look, Statement(statement))

    async def fails(
        self, error: type[ZeneError], unit: Any, *args: Any, **options: Any
    ) -> ZeneError:
        """Write the unit, which is refused; the error."""
        try:
            await self.store.write(unit, *args, **options)
        except error as err:
            return err
        raise AssertionError(f"{unit} was not refused")


_CLAIMED = Statement(
    select(schema.sessions.c.approval_policy, schema.sessions.c.history_from, *rows.TASK)
    .join(schema.tasks, schema.tasks.c.session_id == schema.sessions.c.id)
    .where(schema.tasks.c.id == bindparam("task"))
)
_OPEN = Statement(
    select(
        func.coalesce(
            func.sum(schema.model_calls.c.input_bound + schema.model_calls.c.output_cap), 0
        )
    ).where(
        schema.model_calls.c.user_id == bindparam("user"), schema.model_calls.c.status == "open"
    )
)


def situation_of(lease: Lease) -> Unit[Situation]:
    """What the lease's task would start from, were it claimed now."""
    [[policy, history_from, *task]] = yield _CLAIMED(task=lease.task_id)
    found = yield from history.situation(rows.task(task), policy, history_from)
    return replace(found, approvals=(yield from history.asked(lease.task_id)))


def _account(user_id: str, now: int) -> Unit[tuple[Account, int]]:
    """The account, and what the open calls have reserved, at one moment."""
    account, _ = yield from quotas.look(user_id, now)
    return account, (yield _OPEN(user=user_id))[0][0]


def _allow(
    user_id: str, tokens: int | None, period: Period, now: int
) -> Unit[list[tuple[str, list[Event]]]]:
    quota = None if tokens is None else Quota(tokens=tokens, period=period)
    yield from quotas.set_quota(user_id, quota, now)
    return (yield from shortage.resume(user_id, now=now, limit=100))


def look(statement: Statement) -> Unit[Rows]:
    """A look at rows that no unit of the store gives out."""
    return (yield statement())


def say(
    lease: Lease,
    body: Body,
    *,
    step: int = 1,
    item_id: str | None = None,
    content: Content | None = None,
) -> Draft:
    """A draft of the lease's task."""
    return Draft(body=body, task_id=lease.task_id, step=step, item_id=item_id, content=content)


def message(lease: Lease, item_id: str) -> Draft:
    """A message that begins."""
    return say(lease, ItemStarted(item_id=item_id, kind="message"), item_id=item_id)


def written(lease: Lease, item_id: str, text: str = "Done.", step: int = 1) -> Draft:
    """Its end."""
    body = ItemCompleted(item_id=item_id, kind="message", status="completed", text=text)
    return say(lease, body, item_id=item_id, content=Message(text=text), step=step)


def call(
    lease: Lease, item_id: str, name: str = "shell", arguments: str = '{"command":"ls"}'
) -> Draft:
    """A call that is open."""
    body = ItemStarted(
        item_id=item_id,
        kind="command",
        call_id=f"call-{item_id}",
        name=name,
        arguments=Raw(arguments.encode()),
    )
    content = ToolCall(call_id=f"call-{item_id}", name=name, arguments=arguments)
    return say(lease, body, item_id=item_id, content=content)


def called(lease: Lease, item_id: str, output: str = "a b") -> Draft:
    """Its result."""
    body = ItemCompleted(item_id=item_id, kind="command", status="succeeded", output=output)
    content = ToolCall(
        call_id=f"call-{item_id}",
        name="shell",
        arguments='{"command":"ls"}',
        result=ToolResult(status="succeeded", output=output),
    )
    return say(lease, body, item_id=item_id, content=content)


def question(
    lease: Lease, item_id: str, approval_id: str, until: int, name: str = "shell"
) -> Draft:
    """A person is asked about a call."""
    body = ApprovalRequested(
        approval_id=approval_id,
        item_id=item_id,
        name=name,
        arguments=Raw(b'{"command":"ls"}'),
        summary="ls",
        risk="medium",
        expires_at=rfc3339(until),
    )
    return say(lease, body, item_id=item_id)


def waiting(lease: Lease, on: WaitingOn = "approval") -> Draft:
    """The task waits."""
    return say(lease, TaskWaiting(on=on))


def stepped(
    lease: Lease, number: int = 1, *, tokens: tuple[int, int] = (80, 20), cost: float | None = None
) -> Draft:
    """A model call that ended."""
    usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1])
    return say(lease, StepFinished(stop_reason="end", usage=usage, cost=cost), step=number)


def finished(lease: Lease, outcome: Outcome = "succeeded") -> Draft:
    """The end of the task."""
    error = ErrorBody(code="broke", message="It broke.") if outcome == "failed" else None
    return say(lease, TaskFinished(outcome=outcome, error=error, usage=Usage()))
