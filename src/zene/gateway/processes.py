"""Which processes the installation has, for administrators: what they say of themselves on the bus, and their leases."""

from collections.abc import Mapping

from zene.bus.base import GatewayProcess, WorkerProcess
from zene.domain.processes import Gateway, Processes, Worker
from zene.domain.times import rfc3339
from zene.gateway.calls import Call
from zene.gateway.routing import route
from zene.store import census


@route("GET", "/v1/admin/workers", access="admin")
async def processes(call: Call) -> Processes:
    """The installation's workers, with slots and leases, and gateways, with connections. 503 while the bus is away."""
    present = await call.parts.bus.present()
    leases = await call.parts.store.read(census.leases)
    workers = {each.name: each for each in present if isinstance(each, WorkerProcess)}
    gateways = [each for each in present if isinstance(each, GatewayProcess)]
    return Processes(
        workers=[_worker(name, workers.get(name), leases) for name in sorted({*workers, *leases})],
        gateways=[_gateway(each) for each in sorted(gateways, key=lambda each: each.name)],
    )


def _worker(name: str, found: WorkerProcess | None, leases: Mapping[str, int]) -> Worker:
    held = leases.get(name, 0)
    if found is None:
        return Worker(name=name, present=False, leases=held)
    return Worker(
        name=name,
        present=True,
        leases=held,
        host=found.host,
        version=found.version,
        slots=found.slots,
        running=found.running,
        draining=found.draining,
        started_at=rfc3339(found.started_at),
    )


def _gateway(found: GatewayProcess) -> Gateway:
    return Gateway(
        name=found.name,
        host=found.host,
        version=found.version,
        streams=found.streams,
        users=found.users,
        draining=found.draining,
        started_at=rfc3339(found.started_at),
    )


ROUTES = (processes,)
