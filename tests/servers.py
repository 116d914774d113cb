"""`zene` as programs of their own: a server that is killed and started again on its folder, and people beside it."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.model_server import ModelServer
from tests.planted import KEY, PASSWORD, check_none, check_none_below
from zene.client import AsyncClient
from zene.domain.errors import NotFound
from zene.domain.events import Event
from zene.gateway.shapes import Tokens

ADMIN = "admin@localhost"
SECONDS = 40.0
RESUMED_SECONDS = (
    5.0  # what was promised; less than a lease lasts, so that waiting for one is found out
)

PROGRAM: tuple[str, ...] = ("-m", "zene")  # a broken build's is another
ROOT = Path(__file__).parents[1]

Ended = tuple[int, str, str]


@dataclass
class Program:
    """A running `zene`, whose output is read as it comes; a server writes its log to a file."""

    process: asyncio.subprocess.Process
    log: Path | None = None
    seen: str = ""
    errors: str = ""

    async def until(self, pattern: str) -> re.Match[str]:
        """Read stdout up to a match."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while not (found := re.search(pattern, self.seen)):
                chunk = await self.process.stdout.read(4096)
                assert chunk, f"ended without {pattern!r}: {await self.end()}"
                self.seen += chunk.decode()
        return found

    async def end(self, sent: signal.Signals | None = None) -> Ended:
        """Wait for its end; everything that it wrote."""
        if sent is not None:
            self.process.send_signal(sent)
        async with asyncio.timeout(SECONDS):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        self.seen += out.decode()
        self.errors = self.log.read_text() if self.log else err.decode()
        return self.process.returncode, self.seen, self.errors


@dataclass
class Zene:
    """A person at a terminal, with a home, a data folder and a server."""

    home: Path
    variables: Mapping[str, str]
    port: int
    programs: list[Program] = field(default_factory=list)
    clients: list[AsyncClient] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the server is, after every start."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, *arguments: str, log: Path | None = None, **variables: str) -> Program:
        """A command, left running; `variables` are only its own."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("ZENE_", "OPENAI_"))}
        environ |= {
            "HOME": str(self.home),
            "ZENE_DATA_DIR": str(self.home / "data"),
            "ZENE_ADMIN_PASSWORD": PASSWORD,
            "ZENE_METRICS_PORT": "0",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            **self.variables,
            **variables,
        }
        errors = log.open("ab") if log else None
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *PROGRAM, *arguments,
                cwd=self.home,
                env=environ,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors or asyncio.subprocess.PIPE,
            )  # fmt: skip
        finally:
            if errors:
                errors.close()
        program = Program(process, log)
        self.programs.append(program)
        return program

    async def __call__(self, *arguments: str, stdin: str = "", **variables: str) -> Ended:
        """Run a command to its end."""
        program = await self.start(*arguments, log=None, **variables)
        assert program.process.stdin is not None
        program.process.stdin.write(stdin.encode())
        program.process.stdin.close()
        return await program.end()

    async def up(self) -> Program:
        """The server, ready."""
        arguments = ("up", "--port", str(self.port))
        server = await self.start(*arguments, log=self.home / "server.log")
        await server.until(r"ready at http\S+\n")
        return server

    async def kill(self) -> None:
        """End the server as a power cut would."""
        [server] = [each for each in self.programs if each.log and each.process.returncode is None]
        await server.end(signal.SIGKILL)

    async def restart(self) -> None:
        """Kill the server and start it again on what it left."""
        await self.kill()
        await self.up()

    async def login(self, email: str = ADMIN) -> None:
        """Sign in for the commands that follow."""
        code, _, err = await self("login", self.url, "--email", email, stdin=PASSWORD)
        assert code == 0, err

    async def another(self, email: str) -> "Zene":
        """Somebody else with a home of their own, signed in to the same server."""
        code, _, err = await self("user", "add", email, stdin=f"{PASSWORD}\n")
        assert code == 0, err
        home = self.home / email
        home.mkdir()
        person = replace(self, home=home, variables={"XDG_CONFIG_HOME": str(home)})
        await person.login(email)
        return person

    async def client(self, email: str = ADMIN) -> AsyncClient:
        """A client that is signed in."""
        client = AsyncClient(self.url)
        self.clients.append(client)
        self.tokens.append(await client.login(email, PASSWORD))
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            await client.close()
        for program in reversed(self.programs):
            if program.process.returncode is None:
                await program.end(signal.SIGKILL)
        await asyncio.to_thread(self.check_secrets)

    def check_secrets(self) -> None:
        """No planted secret is in what was stored, logged or said, nor a token of anybody who was signed in."""
        keeps = self.home / "data" / "secret.key"
        secrets = [KEY, PASSWORD, *([keeps.read_text().strip()] if keeps.exists() else [])]
        secrets += [
            each for kept in self.tokens for each in (kept.access_token, kept.refresh_token)
        ]
        for program in self.programs:
            check_none((program.seen + program.errors).encode(), "what a program said", secrets)
        check_none_below(self.home, secrets, but_in=[keeps])


def served_by(model: ModelServer, name: str = "openai:gpt-4.1", **variables: str) -> dict[str, str]:
    """The settings of a server whose default model is played by the model server."""
    return {
        "ZENE_MODEL": name,
        "OPENAI_BASE_URL": f"{model.url}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": KEY,
        "ZENE_ALLOW_WEAK_SANDBOX": "true",
        **variables,
    }


def a_free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@dataclass
class Log:
    """A session's durable events, read as they come, across any number of kills."""

    client: AsyncClient
    session_id: str
    events: list[Event] = field(default_factory=list)

    async def until(self, is_it: Callable[[Event], object], seconds: float = SECONDS) -> Event:
        """Read on to the first event that is it, among those read before too."""
        at = 0
        async with asyncio.timeout(seconds):
            while True:
                for event in self.events[at:]:
                    if is_it(event):
                        return event
                at = len(self.events)
                await self.more()

    async def more(self) -> None:
        """Wait for more events, and read them."""
        after = self.events[-1].seq if self.events else 0
        page = await self.client.events(self.session_id, after=after, wait=10)
        self.events += page.events

    async def live(self, is_it: Callable[[Event], object]) -> Event:
        """Follow the session from its beginning to the first event that is it, fleeting ones too."""
        async with asyncio.timeout(SECONDS), aclosing(self.client.follow(self.session_id)) as all_:
            async for event in all_:
                if is_it(event):
                    return event
        raise AssertionError("the session was deleted")

    async def finished(self, task_id: str, seconds: float = SECONDS) -> dict[str, Any]:
        """How the task ended."""
        end = await self.until(
            lambda event: event.type == "task.finished" and event.task_id == task_id, seconds
        )
        return data(end)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What the events of that type say."""
        return [data(event) for event in self.events if event.type == kind]

    def calls(self) -> list[dict[str, Any]]:
        """How the calls of tools ended, in order."""
        return [one for one in self.of("item.completed") if "call_id" in one]

    async def ran_once(self) -> None:
        """The only call appended a line to log.txt: one where it succeeded, one at most where it was interrupted."""
        [call] = self.calls()
        try:
            lines = await self.client.read_file(self.session_id, "log.txt")
        except NotFound:
            lines = b""
        if call["status"] == "interrupted":
            assert lines in (b"", b"x\n"), lines
        else:
            assert (call["status"], lines) == ("succeeded", b"x\n")

    async def check(self) -> None:
        """Hold the whole log to what always holds: no gap, and every item, step and task has one end."""
        self.events, head = [], 1
        while len(self.events) < head:
            page = await self.client.events(self.session_id, after=len(self.events))
            assert page.events, f"the log ends before {page.last_seq}"
            self.events, head = [*self.events, *page.events], page.last_seq
        assert [event.seq for event in self.events] == list(range(1, head + 1))
        begun = [one["item_id"] for one in self.of("item.started")]
        ended = [one["item_id"] for one in self.of("item.completed")]
        assert len(set(begun)) == len(begun)
        assert len(set(ended)) == len(ended)
        assert set(begun) <= set(ended), "an item was started and never completed"
        steps, tasks = self.places("step.started"), self.places("task.queued")
        assert sorted(steps) == sorted(self.places("step.finished"))
        assert sorted(tasks) == sorted(self.places("task.finished"))
        for task_id, _ in tasks:
            last = [event.type for event in self.events if event.task_id == task_id][-1]
            assert last == "task.finished"

    def places(self, kind: str) -> list[tuple[str, int]]:
        """The task and step of every event of that type; step 0 for a task's own."""
        is_step = kind.startswith("step.")
        found = [event for event in self.events if event.type == kind]
        return [(event.task_id or "", event.step or 0 if is_step else 0) for event in found]


async def begin(zene: Zene, prompt: str = "Go.", **session: Any) -> tuple[Log, str]:
    """A task in a new session: the session's log, and the task's id."""
    client = zene.clients[0] if zene.clients else await zene.client()
    made = await client.create_session(**session)
    return Log(client, made.id), (await client.submit(made.id, prompt)).id


def says(kind: str, /, **values: object) -> Callable[[Event], bool]:
    """Whether an event is of that type and says this; `text` is looked for in what it says."""
    text = str(values.pop("text", ""))

    def is_it(event: Event) -> bool:
        if event.type != kind:
            return False
        said = data(event)
        return text in said.get("text", "") and values.items() <= said.items()

    return is_it


def data(event: Event) -> dict[str, Any]:
    """What an event says."""
    said: dict[str, Any] = msgspec.json.decode(event.data)
    return said
