"""Many gateways and workers as processes of their own, over one store, one Redis and one data folder.

    async with Many(tmp_path, served_by(model, ZENE_BUS=redis.url)) as many:
        await many.make(gateways=2, workers=3)
        log, task = await many.begin(gateway=0)
        await (await many.holder(log)).kill()

Names and ports are chosen by the processes themselves; what a worker is called is what `task.started` says.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.planted import PASSWORD
from tests.servers import ADMIN, Log, Program, Zene
from zene.client import AsyncClient
from zene.domain.events import Event

LEASE_SECONDS = 2.0


@dataclass
class Process:
    """A gateway or a worker that runs. `name` is a gateway's address, or what a worker's leases say."""

    program: Program
    name: str

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.program.process.returncode is None

    async def kill(self) -> None:
        """End it as a power cut would."""
        await self.program.end(signal.SIGKILL)

    async def stop(self) -> int:
        """Let it end as it should; its exit code."""
        return (await self.program.end(signal.SIGTERM))[0]

    def send(self, number: signal.Signals) -> None:
        """Send a signal, and wait for nothing."""
        self.program.process.send_signal(number)

    def freeze(self) -> None:
        """Let it stand still, but keep all that it holds."""
        os.kill(self.program.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, not knowing that time has passed."""
        os.kill(self.program.process.pid, signal.SIGCONT)


@dataclass
class Many:
    """An installation of many processes."""

    home: Path
    variables: Mapping[str, str]
    gateways: list[Process] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    clients: dict[tuple[str, str], AsyncClient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lease = {"ZENE_LEASE_SECONDS": str(LEASE_SECONDS)}
        self.person = Zene(self.home, {**lease, **self.variables}, port=0)

    async def make(self, *, gateways: int, workers: int) -> None:
        """Migrate, and start so many of each."""
        code, out, err = await self.person("migrate")
        assert code == 0, out + err
        made = (
            *(self.gateway() for _ in range(gateways)),
            *(self.worker() for _ in range(workers)),
        )
        await asyncio.gather(*made)

    async def gateway(self, port: int = 0, /, **variables: str) -> Process:
        """One more gateway, ready, on a free port unless one is named; `variables` are only its own."""
        program = await self._start("gateway", "--port", str(port), **variables)
        found = await program.until(r"ready at (http\S+)\n")
        self.gateways.append(Process(program, found.group(1)))
        return self.gateways[-1]

    async def worker(self, *arguments: str, **variables: str) -> Process:
        """One more worker, ready; `variables` are only its own."""
        program = await self._start("worker", *arguments, **variables)
        found = await program.until(r"Worker (\S+) is ready\n")
        self.workers.append(Process(program, found.group(1)))
        return self.workers[-1]

    async def client(self, gateway: int = 0, email: str = ADMIN) -> AsyncClient:
        """A client that is signed in at that gateway: the same one each time."""
        url = self.gateways[gateway].name
        if (url, email) not in self.clients:
            client = self.clients[url, email] = AsyncClient(url)
            self.person.tokens.append(await client.login(email, PASSWORD))
        return self.clients[url, email]

    async def begin(
        self, prompt: str = "Go.", *, gateway: int = 0, **session: Any
    ) -> tuple[Log, str]:
        """A task in a new session, over that gateway: the session's log, and the task's id."""
        client = await self.client(gateway)
        made = await client.create_session(**session)
        return Log(client, made.id), (await client.submit(made.id, prompt)).id

    async def seen_at(self, log: Log, gateway: int) -> Log:
        """The same session's log, read over another gateway."""
        return Log(await self.client(gateway), log.session_id)

    async def holder(self, log: Log, attempt: int = 1) -> Process:
        """The worker that began the session's task that often."""

        def has_begun(event: Event) -> bool:
            return event.type == "task.started"

        await log.until(lambda event: has_begun(event) and len(log.of("task.started")) >= attempt)
        name = log.of("task.started")[attempt - 1]["worker"]
        [found] = [worker for worker in self.workers if worker.name == name]
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients.values():
            await client.close()
        for each in (*self.workers, *self.gateways):
            if each.is_running:
                each.thaw()
        await self.person.__aexit__()

    async def _start(self, *arguments: str, **variables: str) -> Program:
        log = self.home / f"{arguments[0]}-{len(self.person.programs)}.log"
        return await self.person.start(*arguments, log=log, **variables)
