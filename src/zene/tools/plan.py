"""A todo list that the user sees. It replaces the one before and changes nothing else."""

from typing import Literal

from msgspec import Struct

from zene.domain.errors import InvalidInput
from zene.domain.events import PlanEntry
from zene.domain.messages import ToolResult
from zene.tools.base import Context, Done, Tool

ENTRIES_LIMIT, TEXT_LIMIT = 50, 500


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the plan."""

    text: str
    status: Literal["pending", "in_progress", "completed"] = "pending"


class Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole plan."""

    entries: list[Entry]


async def run(arguments: Arguments, context: Context) -> Done:  # noqa: ARG001  a Tool's run
    """Show the plan."""
    entries = arguments.entries
    if len(entries) > ENTRIES_LIMIT or any(len(entry.text) > TEXT_LIMIT for entry in entries):
        raise InvalidInput(
            f"Not shown: at most {ENTRIES_LIMIT} entries of {TEXT_LIMIT} characters each."
        )
    return Done(
        result=ToolResult(status="succeeded", output="Shown."),
        plan=tuple(PlanEntry(text=entry.text, status=entry.status) for entry in entries),
    )


PLAN = Tool(
    name="plan",
    description="Show the user your todo list; replaces the last one.",
    arguments=Arguments,
    run=run,
    kind="plan",
)
