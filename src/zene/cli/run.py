"""`zene run`: a task from its submission to its diff; and `zene attach`: watching without one.

The task lives on the server. A lost connection or a restart only interrupts the watching, which goes
on from its cursor; submitting again after a lost answer submits once, by its idempotency key.
"""

import asyncio
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from zene.cli import patch, terminal, upload
from zene.cli.server import connected
from zene.cli.show import Show
from zene.client import AsyncClient
from zene.domain.errors import InvalidInput, Unavailable
from zene.domain.events import Event
from zene.domain.sessions import ApprovalPolicy
from zene.domain.tasks import OnBusy, Outcome
from zene.llm.base import Effort

T = TypeVar("T")

CODES: Mapping[Outcome, int] = {
    "succeeded": 0,
    "failed": 1,
    "budget_exhausted": 3,
    "timed_out": 4,
    "cancelled": 130,
}
CANCEL_SECONDS = 10.0  # how long the end of a cancelled task is waited for
RESTART_SECONDS = 60.0  # how long a server that had answered may be gone
PAUSE_SECONDS = 0.5
_LONGEST_TITLE = 80


class Options(NamedTuple):
    """What a new session or task is asked for with; None is the server's or the session's own."""

    model: str | None
    effort: Effort | None
    policy: ApprovalPolicy | None
    on_busy: OnBusy
    priority: int


async def run(
    *,
    prompt: str,
    project: str | None,
    session: str | None,
    apply: bool,
    server: str | None,
    options: Mapping[str, Any],
) -> int:
    """Submit a task, follow it to its end, and show or apply what it changed. Returns its exit code.

    `options` are those of `Options`.
    """
    folder = _folder_to_change(project) if apply else None
    if project and session:
        raise InvalidInput("A session has its project already. Leave out --project or --session.")
    text = _typed() if prompt == "-" else prompt
    if not text.strip():  # said here, before anything is uploaded for it
        raise InvalidInput("The prompt is empty. Say what the agent is to do.")
    async with connected(server) as client:
        session = session or await _begin(client, project, text, Options(**options))
        outcome = await _work(client, session, text, Options(**options))
        await _show_changes(client, session, folder if outcome == "succeeded" else None)
    return CODES[outcome]


async def attach(*, session: str, server: str | None) -> int:
    """Show a session from its beginning, until it is deleted."""
    show = Show()
    async with connected(server) as client, aclosing(client.follow(session, away=_away)) as events:
        async for event in events:
            show.event(event.type, _data(event))
            if event.type == "session.deleted":
                break
    return 0


def _typed() -> str:
    with terminal.interruptible():
        return sys.stdin.read()


def _folder_to_change(project: str | None) -> Path:
    if project is None or upload.is_git_url(project):
        raise InvalidInput(
            "--apply needs --project FOLDER: the folder that the diff is applied to."
        )
    return Path(project).resolve()


async def _begin(client: AsyncClient, project: str | None, prompt: str, options: Options) -> str:
    """A new session, on the project where one is named; its id."""
    if options.model is not None:
        await _check_model(client, options.model)  # before anything is uploaded for it
    project_id = None
    if project is not None:
        async with upload.packed(project) as archive:
            project_id = (await client.create_project(_name_of(project))).id
            await client.upload(project_id, archive)
    session = await client.create_session(
        project_id=project_id,
        title=prompt.strip().partition("\n")[0][:_LONGEST_TITLE],
        model=options.model,
        effort=options.effort,
        approval_policy=options.policy,
    )
    return session.id


async def _check_model(client: AsyncClient, name: str) -> None:
    names = [model.id for model in (await client.models()).items]
    if name not in names:
        raise InvalidInput(f"This server has no model {name!r}. It has: {', '.join(names)}.")


async def _work(client: AsyncClient, session: str, prompt: str, options: Options) -> Outcome:
    """Submit the task and follow it to its end."""
    seen = (await client.session(session)).last_seq
    submit = partial(
        client.submit,
        session,
        prompt,
        model=options.model,
        effort=options.effort,
        on_busy=options.on_busy,
        priority=options.priority,
        idempotency_key=uuid.uuid4().hex,
    )
    task = await _patiently(submit)
    terminal.note(f"Session {session}, task {task.id}")
    return await _to_its_end(client, session, task.id, seen)


async def _to_its_end(client: AsyncClient, session: str, task: str, seen: int) -> Outcome:
    """Show the task's events until it ends. Ctrl-C cancels it; a second one leaves at once."""
    watching = asyncio.create_task(_watch(client, session, task, seen))
    interrupted = asyncio.Event()
    cancelling = asyncio.create_task(_cancel_when(interrupted, client, task, watching))
    try:
        with _on_interrupt(interrupted, watching):
            return await watching
    except asyncio.CancelledError:
        if not interrupted.is_set():
            raise
        terminal.note(f"Left while {task} was being cancelled.")
        return "cancelled"
    finally:
        watching.cancel()
        cancelling.cancel()
        await asyncio.gather(watching, cancelling, return_exceptions=True)


async def _watch(client: AsyncClient, session: str, task: str, seen: int) -> Outcome:
    show = Show(prompts=False)
    async with aclosing(client.follow(session, after=seen, away=_away)) as events:
        async for event in events:
            if event.task_id != task:
                continue
            data = _data(event)
            show.event(event.type, data)
            if event.type == "task.finished":
                outcome: Outcome = data["outcome"]
                return outcome
    raise Unavailable(
        f"The stream of {session} ended before {task} did. Watch on: zene attach {session}"
    )


async def _cancel_when(
    interrupted: asyncio.Event, client: AsyncClient, task: str, watching: asyncio.Task[Outcome]
) -> None:
    await interrupted.wait()
    terminal.note("Cancelling. Ctrl-C once more leaves at once.")
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await _patiently(lambda: client.cancel(task))
            await asyncio.wait((watching,))
    finally:
        watching.cancel()


@contextmanager
def _on_interrupt(interrupted: asyncio.Event, watching: asyncio.Task[Any]) -> Iterator[None]:
    """Within it the first Ctrl-C sets the event and the second stops watching."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if interrupted.is_set():
            watching.cancel()
        interrupted.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _show_changes(client: AsyncClient, session: str, folder: Path | None) -> None:
    """The session's diff so far: applied to the folder, or shown. Raises Conflict where it does not fit."""
    difference = await _patiently(lambda: client.diff(session))
    if not difference.patch:
        terminal.note("No file was changed.")
    elif folder is None:
        patch.show(difference.patch)
    else:
        await patch.apply(difference.patch, folder, session)
        files = terminal.counted(len(difference.files), "file")
        terminal.note(f"Changed {files} in {terminal.safe(str(folder))}.")


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the server cannot be reached, as long as a restart takes. Raises Unavailable."""
    give_up = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            return await ask()
        except Unavailable:
            if time.monotonic() > give_up:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


def _away() -> None:
    terminal.note("The server is away; trying again. The task goes on once it is back.")


def _data(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(event.data)
    return data


def _name_of(project: str) -> str:
    last = project if upload.is_git_url(project) else str(Path(project).resolve())
    return last.rstrip("/").rpartition("/")[2].removesuffix(".git") or "project"
