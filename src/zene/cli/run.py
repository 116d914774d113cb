"""`zene run`: a task from its submission to its diff; and `zene attach`: watching without one.

The task lives on the server. A lost connection or a restart only interrupts the watching, which goes
on from its cursor; submitting again after a lost answer submits once, by its idempotency key.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from zene.cli import patch, terminal, upload
from zene.cli.server import connected
from zene.cli.show import Show
from zene.client import AsyncClient
from zene.domain.errors import InvalidInput, Unavailable
from zene.domain.events import Event
from zene.domain.tasks import Outcome

CODES: Mapping[Outcome, int] = {
    "succeeded": 0,
    "failed": 1,
    "budget_exhausted": 3,
    "timed_out": 4,
    "cancelled": 130,
}
CANCEL_SECONDS = 10.0  # how long the end of a cancelled task is waited for
_LONGEST_TITLE = 80


async def run(
    *,
    prompt: str,
    project: str | None,
    session: str | None,
    apply: bool,
    server: str | None,
    options: Mapping[str, str | None],
) -> int:
    """Submit a task, follow it to its end, and show or apply what it changed. Returns its exit code."""
    folder = _folder_to_change(project) if apply else None
    if project and session:
        raise InvalidInput("A session has its project already. Leave out --project or --session.")
    text = sys.stdin.read() if prompt == "-" else prompt
    async with connected(server) as client:
        if session is None:
            session = await _begin(client, project, text, options)
        seen = (await client.session(session)).last_seq
        task = await client.submit(session, text, model=options["model"], effort=options["effort"])
        terminal.note(f"Session {session}, task {task.id}")
        outcome = await _to_its_end(client, session, task.id, seen)
        await _show_changes(client, session, folder if outcome == "succeeded" else None)
    return CODES[outcome]


async def attach(*, session: str, server: str | None) -> int:
    """Show a session from its beginning, until it is deleted."""
    show = Show()
    async with connected(server) as client, aclosing(client.follow(session)) as events:
        async for event in events:
            show.event(event.type, _data(event))
            if event.type == "session.deleted":
                break
    return 0


def _folder_to_change(project: str | None) -> Path:
    if project is None or upload.is_git_url(project):
        raise InvalidInput(
            "--apply needs --project FOLDER: the folder that the diff is applied to."
        )
    return Path(project)


async def _begin(
    client: AsyncClient, project: str | None, prompt: str, options: Mapping[str, str | None]
) -> str:
    """A new session, on the project where one is named; its id."""
    project_id = None
    if project is not None:
        async with upload.packed(project) as archive:
            project_id = (await client.create_project(_name_of(project))).id
            await client.upload(project_id, archive)
    session = await client.create_session(
        project_id=project_id,
        title=prompt.strip().partition("\n")[0][:_LONGEST_TITLE],
        model=options["model"],
        effort=options["effort"],
        approval_policy=options["policy"] or "auto",
    )
    return session.id


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
    async with aclosing(client.follow(session, after=seen)) as events:
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
            await client.cancel(task)
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
    difference = await client.diff(session)
    if not difference.patch:
        terminal.note("No file was changed.")
    elif folder is None:
        patch.show(difference.patch)
    else:
        await patch.apply(difference.patch, folder, session)
        terminal.note(f"Changed {len(difference.files)} files in {folder}.")


def _data(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(event.data)
    return data


def _name_of(project: str) -> str:
    last = project if upload.is_git_url(project) else str(Path(project).resolve())
    return last.rstrip("/").rpartition("/")[2].removesuffix(".git") or "project"
