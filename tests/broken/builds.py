"""Every broken build, with the promise that it breaks and the check that has to fail on it."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.broken.patching import Break, becomes, forgets, is_left_out, says, together
from zene.store import group_commit
from zene.store.base import Unit
from zene.store.idempotency import Answer

COMMITS_LATE_SECONDS = 0.1

CONTRACTS, FLOWS, AGENT = Path("tests/contracts"), Path("tests/flows"), Path("tests/unit/agent")
STORE, SANDBOX = CONTRACTS / "store", CONTRACTS / "sandbox"


class Build(Struct, frozen=True):
    """A broken build: the promise, what is broken, and the test that catches it, a parameter of it included."""

    promise: str
    breaks: Break
    file: Path
    test: str

    @property
    def caught_by(self) -> str:
        """The test, as pytest names it."""
        return f"{self.file}::{self.test}"


class _CommitsLate:
    """A connection whose units are answered a while before their commit."""

    def __init__(self, connection: Any, group: Any) -> None:
        self._connection = connection
        self._group = group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql == "COMMIT":
            group_commit._deliver(self._group)
            time.sleep(COMMITS_LATE_SECONDS)
        return self._connection.execute(sql, *parameters)


def _answers_early(commit: Callable[..., None]) -> Callable[..., None]:
    return lambda connection, group: commit(_CommitsLate(connection, group), group)


def _always_anew(_: object) -> Callable[..., Any]:
    def once(key: Any, now: int, make: Any, encode: Any) -> Unit[Any]:
        result = yield from make()
        return Answer(encode(result), is_new=True), result

    return once


def _nothing_begun(situation: Callable[..., Unit[Any]]) -> Callable[..., Any]:
    def forgetful(*claimed: Any) -> Unit[Any]:
        return replace((yield from situation(*claimed)), begun=frozenset())

    return forgetful


def _yields_nothing(answer: object = None) -> Callable[[object], Callable[..., Any]]:
    def unit(*_: object, **__: object) -> Unit[Any]:
        yield from ()
        return answer

    return lambda _: unit


def _shows_baseline(opened: Callable[..., None]) -> Callable[..., None]:
    def init(workspace: Any, attached: Any, *others: Any) -> None:
        opened(workspace, attached, *others)
        workspace.folders = (*workspace.folders, attached.folder("baseline", "/baseline"))

    return init


def _shares_network(arguments: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def shared(*given: Any, **named: Any) -> list[str]:
        program, *options = arguments(*given, **named)
        at = options.index("--unshare-all") + 1
        return [program, *options[:at], "--share-net", *options[at:]]

    return shared


def _tells_the_key(open_model: Callable[..., Any]) -> Callable[..., Any]:
    def opened(settings: Any, name: str) -> Any:
        sys.stderr.write(settings.named(name).api_key.reveal())  # the log would hide it
        return open_model(settings, name)

    return opened


BUILDS = {
    "a commit is answered before it is made": Build(
        "G1",
        becomes("zene.store.group_commit:_commit", _answers_early),
        FLOWS / "test_kills.py",
        "test_a_task_that_was_accepted_outlives_a_kill_right_after",
    ),
    "events are published before their commit": Build(
        "G7",
        becomes("zene.store.group_commit:_commit", _answers_early),
        FLOWS / "test_kills.py",
        "test_what_a_follower_saw_before_a_kill_is_in_the_log_after_it",
    ),
    "what is open is not closed with its task": Build(
        "G2",
        becomes("zene.store.ending:close_items", _yields_nothing()),
        FLOWS / "test_cancel.py",
        "test_no_process_is_left_of_a_command_that[sleeps]",
    ),
    "an owner that let go may write on": Build(
        "G2",
        says("zene.store.log:_KEEP_BATCH", "(sessions.lease_epoch + :lets_go)", "lease_epoch"),
        STORE / "test_log.py",
        "test_an_owner_that_let_go_writes_nothing_more",
    ),
    "a worker outvotes a cancel": Build(
        "G2",
        together(
            says("zene.store.ending:_FINISH", "WHEN (tasks.status = 'cancelling')", "WHEN 0"),
            says(
                "zene.store.ending:_FINISH_AS_IT_IS", "WHEN (tasks.status = 'cancelling')", "WHEN 0"
            ),
        ),
        STORE / "test_endings.py",
        "test_a_cancelled_task_ends_as_cancelled_whatever_its_worker_says",
    ),
    "a task that ends its servers is tried for ever": Build(
        "G2",
        says("zene.store.claims:_REQUEUE", "losses=(tasks.losses + :lost)", "losses=0"),
        STORE / "test_taking_back.py",
        "test_a_task_that_ends_its_workers_is_poison",
    ),
    "an old epoch may write": Build(
        "G3",
        together(
            forgets("zene.store.log:_FENCE", "epoch"),
            forgets("zene.store.recording:_FENCE", "epoch"),
            forgets("zene.store.recording:_FENCE_WITH_USER", "epoch"),
        ),
        STORE / "test_log.py",
        "test_an_old_epoch_is_refused_and_leaves_nothing",
    ),
    "a lease is extended by whoever had it": Build(
        "G3",
        says("zene.store.claims:_EXTEND", " AND tasks.lease_epoch = :epoch"),
        STORE / "test_claims.py",
        "test_a_lease_is_extended_only_while_it_is_held",
    ),
    "who stood still past a lease goes on": Build(
        "G3",
        becomes("zene.worker.tenure:Tenure.check", lambda _: lambda _tenure: None),
        CONTRACTS / "test_taking_over.py",
        "test_nothing_is_done_for_a_task_whose_lease_has_run_out",
    ),
    "the leases of the dead run out by themselves": Build(
        "G4",
        becomes("zene.worker.roll:Roll.dead", lambda _: lambda _roll: []),
        FLOWS / "test_kills.py",
        "test_a_task_goes_on_after_a_kill_when[a call has begun]",
    ),
    "no intent is written down": Build(
        "G5",
        says("zene.store.recording:_INTEND", "intent_epoch=:epoch", "intent_epoch=NULL"),
        FLOWS / "test_kills.py",
        "test_a_task_goes_on_after_a_kill_when[a call is running]",
    ),
    "what may have run is run again": Build(
        "G5",
        becomes("zene.store.history:situation", _nothing_begun),
        FLOWS / "test_kills.py",
        "test_a_task_goes_on_after_a_kill_when[a call is running]",
    ),
    "a limit on tokens is not held": Build(
        "G6",
        together(
            says("zene.store.spending:_RESERVE", "(tasks.max_tokens_total IS NULL OR", "(1 OR"),
            says("zene.store.spending:_LEFT", "tasks.max_tokens_total - ", "NULL - "),
            says("zene.store.recording:_FENCE", "tasks.max_tokens_total - ", "NULL - "),
            says("zene.store.recording:_FENCE_WITH_USER", "tasks.max_tokens_total - ", "NULL - "),
        ),
        STORE / "test_recording.py",
        "test_used_and_reserved_never_exceed_the_limit",
    ),
    "a model call that nobody saw end is free": Build(
        "G6",
        says("zene.store.spending:_CHARGE", "model_calls.status = 'open'", "0"),
        FLOWS / "test_kills.py",
        "test_half_an_answer_is_discarded_charged_and_asked_for_again",
    ),
    "a cursor is off by one": Build(
        "G7",
        says("zene.store.log:_TAIL", "events.seq > :after", "events.seq >= :after"),
        FLOWS / "test_http_stream.py",
        "test_a_reader_that_is_cut_off_again_and_again_gets_every_event_once_and_in_order",
    ),
    "nobody looks for what was not published": Build(
        "G7",
        is_left_out("zene.gateway.following:Followers._look"),
        FLOWS / "test_http_stream.py",
        "test_an_event_that_was_committed_and_never_published_comes_within_two_seconds",
    ),
    "a key for one answer is not looked at": Build(
        "G8",
        becomes("zene.store.idempotency:once", _always_anew),
        FLOWS / "test_http_work.py",
        "test_the_same_key_gets_the_same_answer_and_makes_one_thing",
    ),
    "a task ends before it has heard what was said": Build(
        "G8",
        says("zene.store.steers:GOES_ON", "tasks.status = 'running'", "0"),
        STORE / "test_steers.py",
        "test_a_success_that_has_not_heard_everything_is_none",
    ),
    "what is behind a head that ends is forgotten": Build(
        "G11",
        says("zene.store.queue:PROMOTE", "is_head=1", "is_head=0"),
        STORE / "test_claims.py",
        "test_only_the_oldest_task_of_a_session_is_handed_out",
    ),
    "a cancel leaves the sandbox": Build(
        "G9",
        is_left_out("zene.worker.benches:Bench.kill"),
        FLOWS / "test_cancel.py",
        "test_no_process_is_left_of_a_call_that_had_ended",
    ),
    "a cap is looked at and not held": Build(
        "G11",
        says(
            "zene.store.queue:FREE_USERS_IN_TURN",
            "coalesce(users.max_active_tasks, :cap) - users.active",
            "9",
        ),
        STORE / "test_claims.py",
        "test_a_users_cap_holds_however_many_claim_at_once",
    ),
    "what others have reserved is free": Build(
        "G10",
        says("zene.store.quotas:_RESERVE", " + users.quota_reserved + :tokens <=", " + :tokens <="),
        STORE / "test_quota.py",
        "test_many_calls_at_once_reserve_no_more_than_there_is",
    ),
    "a day begins whenever a clock says so": Build(
        "G10",
        together(
            says("zene.store.quotas:_RESERVE", "< CASE", "<> CASE"),
            says("zene.store.quotas:_SETTLE", "< CASE", "<> CASE"),
        ),
        STORE / "test_quota.py",
        "test_a_clock_that_is_behind_begins_no_window_again",
    ),
    "who came first has every turn": Build(
        "G11",
        says("zene.store.queue:FREE_USERS_IN_TURN", "users.turn, users.id", "users.id"),
        STORE / "test_claims.py",
        "test_whoever_was_served_last_waits_longest",
    ),
    "a session is anybody's": Build(
        "G12",
        says("zene.store.sessions:_GET", " AND sessions.user_id = :user"),
        FLOWS / "test_http_authorisation.py",
        "test_somebody_elses_things_are_as_if_they_were_not_there",
    ),
    "a sandbox has the host's network": Build(
        "G13",
        becomes("zene.sandbox.confine:arguments", _shares_network),
        SANDBOX / "test_confinement.py",
        "test_there_is_no_network_but_its_own_loopback",
    ),
    "the baseline is shown to the agent": Build(
        "G13",
        becomes("zene.workspaces.workspaces:Workspace.__init__", _shows_baseline),
        CONTRACTS / "test_workspaces.py",
        "test_an_agent_never_sees_the_baseline",
    ),
    "a sandbox has no caps": Build(
        "G14",
        becomes("zene.sandbox.cgroups:Group.cap", lambda _: lambda *_: None),
        SANDBOX / "test_caps.py",
        "test_memory_is_capped_and_the_exit_says_so",
    ),
    "control groups of the dead are kept": Build(
        "G15",
        is_left_out("zene.sandbox.bwrap:BubblewrapProvider.reap"),
        SANDBOX / "test_endings.py",
        "test_a_server_that_dies_leaves_no_process_and_no_mount",
    ),
    "who was let in stays in": Build(
        "G16",
        is_left_out("zene.gateway.signin:SignIns.still_good", answer=True),
        FLOWS / "test_http_stream.py",
        "test_a_stream_ends_within_five_seconds_when_its_user_is_disabled",
    ),
    "who was signed out stays at other gateways": Build(
        "G16",
        is_left_out("zene.bus.redis:RedisBus.tell"),
        FLOWS / "test_gateways.py",
        "test_signing_out_ends_the_streams_of_that_sign_in_everywhere_and_no_other",
    ),
    "a sandbox has the environment of the server": Build(
        "G17",
        becomes("zene.sandbox.confine:ENVIRONMENT", lambda kept: kept | os.environ),
        FLOWS / "test_secrets.py",
        "test_an_agent_that_looks_everywhere_finds_none",
    ),
    "the key of the model is written to the log": Build(
        "G17",
        becomes("zene.wiring.parts:open_model", _tells_the_key),
        FLOWS / "test_secrets.py",
        "test_an_agent_that_looks_everywhere_finds_none",
    ),
    "a reader that stops is waited for": Build(
        "G19",
        becomes("zene.gateway.connections:Connection.is_full", lambda _: False),
        FLOWS / "test_http_stream.py",
        "test_a_reader_that_stops_reading_is_cut_off_and_others_are_not",
    ),
    "a call is decided twice": Build(
        "G24",
        says("zene.store.approvals:_DECIDE", " AND approvals.status = 'pending'"),
        FLOWS / "test_http_work.py",
        "test_of_many_people_who_decide_at_once_one_decides",
    ),
    "a call is decided by anybody": Build(
        "G24",
        says("zene.store.approvals:_GET", " AND approvals.user_id = :user"),
        FLOWS / "test_approvals.py",
        "test_a_call_is_decided_once_and_by_its_owner",
    ),
    "a permission is for any arguments": Build(
        "G24",
        says("zene.store.recording:_USE_APPROVAL", " AND approvals.arguments_hash = :hash"),
        STORE / "test_approvals.py",
        "test_a_permission_binds_the_exact_arguments",
    ),
    "a permission is used twice": Build(
        "G24",
        says("zene.store.recording:_USE_APPROVAL", " AND approvals.used = 0"),
        STORE / "test_approvals.py",
        "test_a_permission_is_used_once_whatever_becomes_of_the_call",
    ),
    "nobody is asked": Build(
        "G24",
        becomes("zene.agent.permissions:needs_approval", lambda _: lambda *_: False),
        AGENT / "test_loop.py",
        "test_approvals_show_what_would_be_executed",
    ),
}


async def _never(_: object) -> None:
    await asyncio.Event().wait()


def _all_extended(_: object) -> Callable[..., Any]:
    def extend(_: object, **__: object) -> Unit[bool]:
        yield from ()
        return True

    return extend


# Where several things keep a promise, all of them are broken: a play of chaos has to see it.
FOR_CHAOS: dict[str, Break] = {
    "whoever stood still goes on": together(
        forgets("zene.store.log:_FENCE", "epoch"),
        forgets("zene.store.recording:_FENCE", "epoch"),
        forgets("zene.store.recording:_FENCE_WITH_USER", "epoch"),
        becomes("zene.store.claims:extend", _all_extended),
        becomes("zene.worker.tenure:Tenure.check", lambda _: lambda _tenure: None),
        becomes("zene.worker.tenure:Tenure.ended", lambda _: _never),
    ),
    "a key for one answer is not looked at": becomes("zene.store.idempotency:once", _always_anew),
}
