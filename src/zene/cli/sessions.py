"""Sessions and their tasks: listed, steered and cancelled."""

from zene.cli import terminal
from zene.cli.server import connected
from zene.domain.errors import InvalidInput


async def sessions(*, limit: int, server: str | None) -> int:
    """List the caller's sessions, the latest first."""
    async with connected(server) as client:
        page = await client.sessions(limit=limit)
    rows = [(each.id, each.status, each.updated_at[:16], each.title) for each in page.items]
    terminal.say(terminal.table(("ID", "STATUS", "UPDATED (UTC)", "TITLE"), rows))
    return 0


async def cancel(*, target: str, server: str | None) -> int:
    """Cancel a task, or all unfinished tasks of a session. Raises InvalidInput, NotFound."""
    if not target.startswith(("ses_", "tsk_")):
        raise InvalidInput(
            f"{target!r} is the id of neither a task (tsk_…) nor a session (ses_…). Run: zene sessions"
        )
    async with connected(server) as client:
        if target.startswith("ses_"):
            page = await client.tasks(target, limit=200)
            tasks = [each for each in page.items if each.status != "finished"]
        else:
            tasks = [await client.task(target)]
        for task in reversed(tasks):  # the last first, so that none begins only to be cancelled
            ended = await client.cancel(task.id)
            terminal.say(f"{task.id} {ended.outcome or ended.status}")
    if not tasks:
        terminal.note("Nothing to cancel.")
    return 0


async def steer(*, task: str, text: str, server: str | None) -> int:
    """Say something to a task that is worked on. Raises Conflict where it is not."""
    async with connected(server) as client:
        await client.steer(task, text)
    terminal.note("It will hear this before its next step.")
    return 0
