"""What the routes work with: built once by `create_app`, handed to each of them."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from zene.bus.base import Bus
from zene.domain.ids import Ids
from zene.gateway.files import Files
from zene.gateway.following import Followers
from zene.gateway.meters import Meters
from zene.gateway.passwords import Passwords
from zene.gateway.rates import Rate
from zene.gateway.seals import Seal
from zene.gateway.shapes import Model
from zene.gateway.signin import SignIns
from zene.gateway.ticks import Ticks
from zene.store.base import Store
from zene.telemetry.metrics import Registry


class Terms(Struct, frozen=True, kw_only=True):
    """What this gateway allows, and what it says of itself. Sizes are bytes; `address` is how people reach
    it, `hosts` the names (without port) that requests may be for. A stream that is silent for
    `keep_alive_seconds` says so, and one whose reader does not take a piece in `send_seconds` is cut off.
    """

    version: str
    address: str
    hosts: frozenset[str]
    models: Sequence[Model]  # the first is the default
    max_prompt_bytes: int = 256 << 10
    max_file_bytes: int = 64 << 20
    max_archive_bytes: int = 1 << 30
    requests_per_second: float = 50
    request_burst: int = 200
    streams_per_user: int = 100
    keep_alive_seconds: float = 15
    send_seconds: float = 15


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _nothing() -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the gateway asks of the world. `clock` is in ms since 1970. `users_refused` says why nobody may
    be added, None when somebody may. Its metrics go to `registry`, which no other gateway shares.
    """

    clock: Callable[[], int] = _now_ms
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    users_refused: Callable[[], str | None] = _nothing
    registry: Registry = field(default_factory=Registry)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything, in one value."""

    store: Store
    bus: Bus
    files: Files
    sign_ins: SignIns
    passwords: Passwords
    seal: Seal
    followers: Followers
    ticks: Ticks
    meters: Meters
    rate: Rate
    terms: Terms
    outside: Outside
    ids: Ids
