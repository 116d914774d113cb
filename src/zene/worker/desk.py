"""What every task of a worker shares: the parts it is built from, handed on as one value."""

import secrets
import time
from collections.abc import Callable

from msgspec import Struct, field

from zene.bus.base import Bus
from zene.domain.ids import RANDOM_BYTES, make_id
from zene.llm.base import Provider
from zene.store.base import Store
from zene.worker.benches import Benches
from zene.worker.meters import Meters
from zene.worker.roll import Roll
from zene.worker.turns import Turns
from zene.workspaces.outputs import Outputs
from zene.workspaces.workspaces import Workspaces


class Terms(Struct, frozen=True, kw_only=True):
    """What a worker allows. Times are seconds."""

    slots: int = 32
    lease_seconds: float = 15.0
    drain_seconds: float = 25.0
    max_active_tasks: int = 4
    max_steps: int = 200
    max_work_seconds: float = 3600.0


class Desk(Struct, frozen=True, kw_only=True):
    """The parts of a worker. `home` names the place where its workspaces can be reached; `model` opens a model
    by the name that a session or task has.
    """

    name: str
    home: str
    roll: Roll
    store: Store
    bus: Bus
    benches: Benches
    workspaces: Workspaces
    outputs: Outputs
    model: Callable[[str], Provider]
    terms: Terms
    meters: Meters
    turns: Turns = field(default_factory=Turns)


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id(prefix: str) -> str:
    """A new id of that prefix."""
    return make_id(prefix, now_ms(), secrets.token_bytes(RANDOM_BYTES))
