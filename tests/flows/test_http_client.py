"""What the client mends by itself, against a server that fails as it is told to."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from zene.client import AsyncClient
from zene.client.connection import decoded
from zene.domain.errors import Conflict, TooMany, Unavailable, ZeneError
from zene.domain.events import Event

CUT = b""
ME = {
    "id": "usr_1",
    "email": "a@b",
    "role": "member",
    "disabled": False,
    "created_at": "",
    "quota": None,
    "max_active_tasks": None,
    "new": 1,
}


def answer(status: int, body: object, **headers: str) -> bytes:
    raw = msgspec.json.encode(body)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"HTTP/1.1 {status} x", f"content-length: {len(raw)}", "connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode() + raw


@dataclass
class Failing:
    """Gives one answer a connection, the last one for ever; `asked` is what it was sent."""

    answers: list[bytes]
    url: str = ""
    asked: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        writer.write(said)
        writer.close()


@asynccontextmanager
async def failing(*answers: bytes) -> AsyncGenerator[tuple[Failing, AsyncClient], None]:
    server = Failing(list(answers))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            yield server, client


def problem(status: int, code: str, **headers: str) -> bytes:
    return answer(status, {"code": code, "message": "Why."}, **headers)


@pytest.mark.parametrize(
    "first", [problem(503, "down", retry_after="0"), problem(429, "many", retry_after="0"), CUT]
)
async def test_a_server_that_is_busy_or_restarts_is_asked_again(first: bytes) -> None:
    async with failing(first, answer(200, ME)) as (server, client):
        assert (await client.me()).email == "a@b"
        assert len(server.asked) == 2


async def test_a_server_that_stays_busy_is_given_up_with_what_it_says() -> None:
    async with failing(problem(429, "many", retry_after="0")) as (server, client):
        with pytest.raises(TooMany) as caught:
            await client.me()
        assert caught.value.code == "many"
        assert 1 < len(server.asked) < 10


async def test_what_creates_something_is_repeated_under_one_key() -> None:
    project = {"id": "prj_1", "name": "x", "state": "empty", "files": 0, "bytes": 0}
    made = answer(201, project | {"created_at": "", "updated_at": ""})
    async with failing(CUT, made) as (server, client):
        await client.create_project("x")
        keys = {
            line for head in server.asked for line in head.split(b"\r\n") if b"idempotency" in line
        }
        assert (len(server.asked), len(keys)) == (2, 1)


async def test_what_may_have_happened_once_is_not_repeated() -> None:
    async with failing(CUT, answer(200, {})) as (server, client):
        with pytest.raises(Unavailable):
            await client.decide("apr_1", "allow")
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        (problem(409, "taken"), Conflict, "taken"),
        (answer(502, "a proxy's page"), ZeneError, "unexpected_answer"),
        (answer(200, {"id": 1}), ZeneError, "bad_answer"),
    ],
)
async def test_an_error_comes_out_as_the_server_names_it(
    said: bytes, kind: type[ZeneError], code: str
) -> None:
    async with failing(said) as (_, client):
        with pytest.raises(kind) as caught:
            await client.me()
        assert caught.value.code == code


def test_an_event_that_is_none_is_an_error_with_a_code() -> None:
    with pytest.raises(ZeneError) as caught:
        decoded(b'{"x": broken', Event)
    assert caught.value.code == "bad_answer"


async def test_following_gives_up_when_the_server_is_gone_for_too_long() -> None:
    async with failing(CUT) as (_, client):
        with pytest.raises(Unavailable):
            await anext(client.follow("ses_1", patience_seconds=0))
