"""Tool calls that wait for a person: shown whole, and answered."""

from typing import Literal

import msgspec

from zene.cli import show, terminal
from zene.cli.server import connected


async def approve(
    *,
    approval: str | None,
    deny: bool,
    scope: Literal["once", "session"],
    note: str,
    server: str | None,
) -> int:
    """Answer one, or list all that wait. Raises NotFound, and Conflict where it was answered before."""
    async with connected(server) as client:
        if approval is not None:
            decision: Literal["allow", "deny"] = "deny" if deny else "allow"
            decided = await client.decide(approval, decision, scope=scope, note=note)
            terminal.say(f"{decided.id} {decided.status}")
            return 0
        pending = (await client.approvals(limit=200)).items
    for each in pending:
        terminal.say(f"{each.session_id} {each.task_id}, until {each.expires_at}")
        terminal.say(
            show.approval(each.id, each.name, each.risk, msgspec.json.decode(each.arguments))
        )
    if not pending:
        terminal.note("Nothing waits for an answer.")
    return 0
