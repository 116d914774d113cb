"""What an installation consists of while it runs: its workers and gateways, as an administrator is shown them."""

from collections.abc import Sequence

from msgspec import Struct


class Worker(Struct, frozen=True, kw_only=True):
    """A worker: how many tasks it can work on at once and works on, and the leases that the store has of it.
    One that holds leases and has not been heard of for seconds is not `present`: it is dead, or cut off.
    """

    name: str
    present: bool
    leases: int
    host: str | None = None
    version: str | None = None
    slots: int | None = None
    running: int | None = None
    draining: bool | None = None
    started_at: str | None = None


class Gateway(Struct, frozen=True, kw_only=True):
    """A gateway, with its open streams and long polls, and the users that they are of."""

    name: str
    host: str
    version: str
    streams: int
    users: int
    draining: bool
    started_at: str


class Processes(Struct, frozen=True, kw_only=True):
    """All that are there, by name."""

    workers: Sequence[Worker]
    gateways: Sequence[Gateway]
