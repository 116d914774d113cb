"""What sessions changed, told after their tasks as `diff.updated`.

A comparison takes a sandbox and some 85 ms, so no task waits for it: it is made once the task has ended or
waits, one at a time, and only where the files' own times say that something may have changed. What a session
changed is told whole each time, so what is lost with a process matters no longer than until the next.
"""

import asyncio
from collections.abc import Iterable

from zene import telemetry
from zene.bus.base import live
from zene.domain.errors import NotFound, ZeneError
from zene.domain.events import ChangedFile, DiffUpdated, Draft, ItemStarted
from zene.store import changes
from zene.tools import TOOLS
from zene.worker.desk import Desk, now_ms
from zene.workspaces.diffs import Changes as Found

MOST_FILES = 100  # that are named in an event
MOST_SESSIONS = 1000  # that wait to be looked at; beyond it the oldest is left to its next task

_ONLY_READ = frozenset(tool.name for tool in TOOLS if tool.read_only)

log = telemetry.logger(__name__)


def may_change(drafts: Iterable[Draft]) -> bool:
    """Whether a call of a tool begins that does not only read."""
    return any(
        isinstance(draft.body, ItemStarted) and draft.body.name not in (None, *_ONLY_READ)
        for draft in drafts
    )


class Changes:
    """The sessions that are to be looked at, oldest first. `run` must run for anything to be told."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._since: dict[str, int] = {}
        self._noted = asyncio.Event()

    def note(self, session_id: str, since_ms: int) -> None:
        """Look at the session soon: something may have changed since then. Returns at once."""
        self._since[session_id] = min(since_ms, self._since.pop(session_id, since_ms))
        if len(self._since) > MOST_SESSIONS:
            del self._since[next(iter(self._since))]
        self._noted.set()

    async def run(self) -> None:
        """Look at one session after the other; ended by cancelling."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            while self._since:
                session_id = next(iter(self._since))
                await self._look(session_id, self._since.pop(session_id))

    async def _look(self, session_id: str, since_ms: int) -> None:
        workspaces = self._desk.workspaces
        try:
            if await workspaces.was_touched(session_id, since_ms):
                await self._tell(session_id, told(await workspaces.changed(session_id)))
        except NotFound:  # the session was deleted meanwhile
            return
        except ZeneError as err:
            log.warning("changes.not_told", session=session_id, error=err.message)
        except Exception:  # it costs this session a message, and no task its worker
            log.exception("changes.broke", session=session_id)

    async def _tell(self, session_id: str, body: DiffUpdated) -> None:
        events = await self._desk.store.write(changes.tell, session_id, body, now_ms())
        if events:
            await self._desk.bus.publish(session_id, [live(event) for event in events])


def told(found: Found) -> DiffUpdated:
    """The comparison as an event."""
    named = found.files[:MOST_FILES]
    return DiffUpdated(
        files=[ChangedFile(path=f.path, added=f.added, removed=f.removed) for f in named],
        more_files=len(found.files) - len(named) + found.more_files,
        added=found.added,
        removed=found.removed,
    )
