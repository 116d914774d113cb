"""Workers and gateways of the installation, listed for an administrator."""

from zene.cli import terminal
from zene.cli.server import connected
from zene.domain.processes import Gateway, Worker

_WORKER = ("WORKER", "STATE", "TASKS", "SLOTS", "LEASES", "VERSION", "SINCE (UTC)")
_GATEWAY = ("GATEWAY", "STATE", "STREAMS", "USERS", "VERSION", "SINCE (UTC)")


async def workers(*, server: str | None) -> int:
    """List what is there, workers first."""
    async with connected(server) as client:
        found = await client.workers()
    terminal.say(terminal.table(_WORKER, map(_worker, found.workers)))
    terminal.say()
    terminal.say(terminal.table(_GATEWAY, map(_gateway, found.gateways)))
    return 0


def _worker(each: Worker) -> tuple[str, ...]:
    if not each.present:
        return each.name, "not heard of", "", "", str(each.leases), "", ""
    return (
        each.name,
        "draining" if each.draining else "working",
        str(each.running),
        str(each.slots),
        str(each.leases),
        each.version or "",
        (each.started_at or "")[:16],
    )


def _gateway(each: Gateway) -> tuple[str, ...]:
    return (
        each.name,
        "draining" if each.draining else "serving",
        str(each.streams),
        str(each.users),
        each.version,
        each.started_at[:16],
    )
