"""What a run of the agent starts from, and what it may spend: read from the store, handed to the loop."""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from zene.domain.approvals import Approval
from zene.domain.messages import Item, Usage
from zene.domain.sessions import ApprovalPolicy
from zene.domain.tasks import Task


class Situation(Struct, frozen=True, kw_only=True):
    """What the store holds when the loop starts. `items` is the session's whole history since its last
    compaction, oldest first, calls without result included.

    `begun` are open calls (item ids) whose intent was committed by an earlier run: they may have happened.
    `approvals` are this task's, by item id; `rules` the tools allowed for the session.
    `step` is the last step begun, `usage` the task's so far, `counted` the provider's last input count and
    the number of items it covered, None before the first call of this model.
    """

    task: Task
    policy: ApprovalPolicy
    items: Sequence[Item]
    begun: frozenset[str] = frozenset()
    approvals: Mapping[str, Approval] = {}
    rules: frozenset[str] = frozenset()
    step: int = 0
    usage: Usage = Usage()
    counted: tuple[int, int] | None = None


class Steer(Struct, frozen=True, kw_only=True):
    """What the user said while the task was worked on; `id` is that of the message that it becomes."""

    id: str
    text: str


class Granted(Struct, frozen=True, tag=True):
    """The call may be made, with this output cap."""

    max_output_tokens: int


class Refused(Struct, frozen=True, tag=True):
    """It may not: wait until other reservations are settled; or it never may, and the task has ended with that
    as budget_exhausted.
    """

    why: Literal["wait", "exhausted"]


class Unheard(Struct, frozen=True, tag=True):
    """The answer to a task's success: its user said something that it has not heard, so it goes on."""


Grant = Granted | Refused | Unheard
