"""Files that are read slowly, or not at all: they cost their reader, and nobody else."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.flows.test_http_stream import until_reset
from tests.gateway import PASSWORD, Gateway, email, running
from zene.client import AsyncClient
from zene.domain.errors import NotFound
from zene.gateway.files import OF_A_USER

BIG = bytes(16 << 20)


class Stalled:
    """A person with a large file that is read by sockets which read no more."""

    def __init__(self, gateway: Gateway, client: AsyncClient, token: str, url: str) -> None:
        self.client = client
        self.token = token
        self.url = url
        self._address = urlsplit(gateway.url)
        self._open = ExitStack()
        self.sockets: list[socket.socket] = []

    async def another(self) -> None:
        """One more that has begun to read."""
        stalled = self._open.enter_context(
            socket.create_connection((self._address.hostname or "", self._address.port or 0))
        )
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(
            f"GET {self.url} HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n".encode()
        )
        assert b" 200 " in await asyncio.to_thread(stalled.recv, 100)
        self.sockets.append(stalled)

    def close(self) -> None:
        self._open.close()


@asynccontextmanager
async def stalled(gateway: Gateway) -> AsyncIterator[Stalled]:
    ada = await gateway.client("ada")
    session = await ada.create_session()
    await ada.write_file(session.id, "big", BIG)
    token = (await ada.login(email("ada"), PASSWORD)).access_token
    readers = Stalled(gateway, ada, token, f"/v1/sessions/{session.id}/files/content?path=big")
    try:
        for _ in range(OF_A_USER):
            await readers.another()
        yield readers
    finally:
        readers.close()


async def test_who_does_not_read_a_file_is_cut_off(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(60),
        running(tmp_path, send_seconds=0.5) as gateway,
        stalled(gateway) as readers,
    ):
        for each in readers.sockets:
            await asyncio.to_thread(until_reset, each)
        session_id = readers.url.split("/")[3]
        assert await readers.client.read_file(session_id, "big") == BIG


async def test_many_that_are_slow_take_nobody_elses_place(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(60),
        running(tmp_path, send_seconds=60) as gateway,
        stalled(gateway) as readers,
    ):
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as http:
            response = await http.get(
                readers.url, headers={"authorization": f"Bearer {readers.token}"}
            )
        assert (response.status_code, response.json()["code"]) == (429, "too_many")
        assert response.headers["retry-after"] == "1"
        bob = await gateway.client("bob")
        session = await bob.create_session()
        await bob.write_file(session.id, "small", b"small")
        assert await bob.read_file(session.id, "small") == b"small"
        with pytest.raises(NotFound):
            await bob.read_file(readers.url.split("/")[3], "big")
