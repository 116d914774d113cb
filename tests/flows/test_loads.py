"""Promises held under load: many streams revoked at once, many readers that stop, many kills in a row."""

import asyncio
import socket
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from urllib.parse import urlsplit

from tests.gateway import PASSWORD, email, running
from tests.servers import data
from zene.client import AsyncClient
from zene.domain.events import Draft, SessionUpdated
from zene.gateway.shapes import Session
from zene.store import users

CLOSED_SECONDS = 5
STREAMS, PEOPLE = 200, 20
LAST = "the last"
STALLED, HEALTHY = 500, 50
STALLED_SECONDS = 15


class Reader:
    """A stream over a socket of its own, which reads when it is told to."""

    def __init__(self, url: str, session: Session, token: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(0)
        self._address = urlsplit(url)
        self._head = (
            f"GET /v1/sessions/{session.id}/stream HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        )

    async def begin(self) -> None:
        """Connect, and read the beginning of the answer."""
        loop = asyncio.get_running_loop()
        place = (self._address.hostname or "", self._address.port or 0)
        await loop.sock_connect(self.socket, place)
        await loop.sock_sendall(self.socket, self._head.encode())
        assert (await loop.sock_recv(self.socket, 15)).startswith(b"HTTP/1.1 200")

    async def until_ended(self) -> None:
        """Read up to the end of the answer; the connection may be kept."""
        end = b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            piece = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
            assert piece, "closed in the middle"
            end = end[-8:] + piece

    def is_broken_off(self) -> bool:
        """Whether the server has given up; nothing is read, so only what is sent finds out."""
        try:
            self.socket.send(b"\r\n")
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False


async def test_two_hundred_streams_end_when_their_users_are_disabled(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path, streams_per_user=STREAMS))
        readers, ids = [], []
        for number in range(PEOPLE):
            person = await gateway.client(f"person{number}")
            session, me = await person.create_session(), await person.me()
            tokens = await person.login(email(f"person{number}"), PASSWORD)
            ids.append(me.id)
            for _ in range(STREAMS // PEOPLE):
                readers.append(Reader(gateway.url, session, tokens.access_token))
                stack.callback(readers[-1].socket.close)
        await asyncio.gather(*(reader.begin() for reader in readers))
        for one in ids:
            await gateway.store.write(users.set_disabled, one, gateway.clock())
        gateway.clock.now += 2_000  # which is how long a sign-in is believed
        async with asyncio.timeout(CLOSED_SECONDS):
            await asyncio.gather(*(reader.until_ended() for reader in readers))


async def test_five_hundred_readers_that_stop_are_cut_off_and_cost_the_others_nothing(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running(tmp_path, streams_per_user=STALLED, send_seconds=STALLED_SECONDS)
        )
        ada, bob = await gateway.client("ada"), await gateway.client("bob")
        stalled, healthy = await ada.create_session(), await bob.create_session()
        token = (await ada.login(email("ada"), PASSWORD)).access_token
        readers = [Reader(gateway.url, stalled, token) for _ in range(STALLED)]
        for reader in readers:
            stack.callback(reader.socket.close)
        await asyncio.gather(*(reader.begin() for reader in readers))
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            followers = [group.create_task(followed(bob, healthy)) for _ in range(HEALTHY)]
            for _ in range(8):
                await gateway.append(stalled.id, titles(*["x" * 20_000] * 20))
            async with asyncio.timeout(STALLED_SECONDS + CLOSED_SECONDS):
                while readers:
                    await asyncio.sleep(0.1)  # the kernel tells nobody
                    await gateway.append(healthy.id, titles("on"))
                    readers = [reader for reader in readers if not reader.is_broken_off()]
            (last,) = await gateway.append(healthy.id, titles(LAST))
        assert all(each.result() == list(range(1, last.seq + 1)) for each in followers)


async def followed(client: AsyncClient, session: Session) -> list[int]:
    """Follow the session up to its last title; every seq that came."""
    seen = []
    async with aclosing(client.follow(session.id)) as events:
        async for event in events:
            seen.append(event.seq)
            if data(event)["title"] == LAST:
                break
    return seen


def titles(*names: str) -> list[Draft]:
    return [Draft(body=SessionUpdated(title=name)) for name in names]
