"""Hostile requests and tokens over a plain socket: each is refused as the data says, and costs nothing."""

import asyncio
import base64
import hmac
import json
import sqlite3
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway import PASSWORD, SECRET_KEY, Gateway, email, running
from zene.client import AsyncClient
from zene.gateway.seals import Seal
from zene.gateway.tokens import SigningKey, decode_segment, encode_segment
from zene.store import credentials

HOSTILE = Path(__file__).parents[1] / "data" / "hostile"
LONGEST_STALL_SECONDS = 0.1


def cases(file: str) -> pytest.MarkDecorator:
    found = json.loads((HOSTILE / file).read_text())["cases"]
    return pytest.mark.parametrize("case", found, ids=lambda case: case["id"])


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Gateway, None]:
    async with running(tmp_path) as started:
        yield started


@asynccontextmanager
async def without_stalls() -> AsyncGenerator[None, None]:
    """Fail where the event loop worked for longer than 100 ms without a turn; time when it was not run is not its fault."""
    worst = 0.0

    async def beat() -> None:
        nonlocal worst
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            worst = max(worst, time.thread_time() - before)

    beating = asyncio.create_task(beat())
    yield
    beating.cancel()
    assert worst < LONGEST_STALL_SECONDS


async def sent(gateway: Gateway, raw: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to these bytes."""
    address = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(10):
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            length = [
                line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            ]
            body = (
                await reader.readexactly(int(length[0].split(b":")[1]))
                if length and not raw.startswith(b"HEAD")
                else b""
            )
    finally:
        writer.close()
    return int(head.split(b" ", 2)[1]), body


def request(
    method: str, path: str, headers: Mapping[str, Any], body: bytes, version: str = "1.1"
) -> bytes:
    """The bytes of a request. A number as a header's value is its length or, for x-a up to 200, its count."""
    lines = [f"{method} {path} HTTP/{version}"]
    for name, value in headers.items():
        match value:
            case None:
                continue
            case 200:
                lines += [f"{name}{n}: x" for n in range(value)]
            case int():
                lines.append(f"{name}: {'x' * value}")
            case list():
                lines += [f"{name}: {each}" for each in value]
            case _:
                lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def body_of(case: Mapping[str, Any]) -> bytes:
    if "body_hex" in case:
        return bytes.fromhex(case["body_hex"])
    text, times = case.get("body_repeat", ("", 0))
    middle: str = case.get("body", "") + text * times
    whole = f"{case.get('body_before', '')}{middle}{case.get('body_after', '')}"
    return whole.encode()


def rows(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "zene.db")) as database:
        return [
            database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("users", "sessions", "tasks", "projects", "idempotency")
        ]


@cases("http.json")
async def test_a_hostile_request_is_refused(
    gateway: Gateway, tmp_path: Path, case: dict[str, Any]
) -> None:
    ada = await gateway.client("ada")
    session = await ada.create_session()
    await ada.write_file(session.id, "a.txt", b"content")
    token = (await ada.login(email("ada"), PASSWORD)).access_token
    before, body = rows(tmp_path), body_of(case)
    headers = {
        "host": urlsplit(gateway.url).netloc,
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
    } | case.get("headers", {})
    path = Template(case.get("path", "/v1/sessions")).substitute(session_id=session.id)
    raw = request(case.get("method", "POST"), path, headers, body, case.get("version", "1.1"))
    async with without_stalls():
        status, answer = await sent(gateway, raw)
    assert status in case["expect"], answer
    assert case.get("lacks", "\0").encode() not in answer
    if status == 201:
        assert case["title"] in [each.title for each in (await ada.sessions()).items]
    else:
        assert rows(tmp_path) == before
    if status >= 400 and answer:
        assert {"code", "message"} <= set(json.loads(answer))


async def signing_key(gateway: Gateway) -> SigningKey:
    [row] = await gateway.store.read(credentials.list_keys)
    return SigningKey(row.kid, Seal(SECRET_KEY).open(row.private_sealed, "signing key"))


def forged(case: Mapping[str, Any], token: str, key: SigningKey, values: Mapping[str, str]) -> str:
    """The case's token, made from a good one."""
    header, payload, _ = token.split(".")
    head = changed(decode_segment(header), case.get("header", {}), {}, values)
    good = json.loads(decode_segment(payload))
    times = {"exp": good["iat"], "iat": good["iat"]}
    body = (
        case["payload"].encode()
        if "payload" in case
        else changed(decode_segment(payload), case.get("claims", {}), times, values)
    )
    text = f"{encode_segment(head)}.{encode_segment(body)}"
    return f"{text}.{signature(case['signed_with'], text.encode(), key)}"


def changed(
    raw: bytes, changes: Mapping[str, Any], times: Mapping[str, int], values: Mapping[str, str]
) -> bytes:
    """The JSON object with changes; whole numbers of times count from the good token's."""
    fields = json.loads(raw)
    for name, value in changes.items():
        if isinstance(value, str):
            fields[name] = filled(value, values)
        elif name in times and type(value) is int:
            fields[name] = times[name] + value
        else:
            fields[name] = value
    return json.dumps(
        {k: v for k, v in fields.items() if v is not None}, separators=(",", ":")
    ).encode()


def signature(kind: str, text: bytes, key: SigningKey) -> str:
    match kind:
        case "key":
            return encode_segment(Ed25519PrivateKey.from_private_bytes(key.private).sign(text))
        case "other":
            return encode_segment(Ed25519PrivateKey.generate().sign(text))
        case "public":
            secret = base64.urlsafe_b64decode(key.public_jwk["x"] + "=")
            return encode_segment(hmac.digest(secret, text, "sha256"))
        case _:
            return ""


def filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


@cases("auth.json")
async def test_a_hostile_token_is_refused(gateway: Gateway, case: dict[str, Any]) -> None:
    called = asyncio.Event()

    async def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        writer.close()

    await gateway.user("ada")
    async with AsyncClient(gateway.url) as client:
        token = (await client.login(email("ada"), PASSWORD)).access_token
    header, payload, signed = token.split(".")
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as listener:
        values = {
            "listening": str(listener.sockets[0].getsockname()[1]),
            "token": token,
            "header": header,
            "payload": payload,
            "signature": signed,
            "long": "A" * (1 << 20),
            "some": "A" * 20_000,
        }
        if "signed_with" in case:
            text = forged(case, token, await signing_key(gateway), values)
        else:
            text = filled(case.get("text", "{token}"), values)
        stated = case.get("headers", [["authorization", f"Bearer {text}"]])
        path = f"/v1/me?access_token={token}" if case.get("query") else "/v1/me"
        lines = [
            f"{name}: {filled(value, values)}" for name, value in stated if "query" not in case
        ]
        host = f"Host: {urlsplit(gateway.url).netloc}"
        raw = "\r\n".join([f"GET {path} HTTP/1.1", host, *lines, "", ""]).encode()
        begun = time.thread_time()
        status, answer = await sent(gateway, raw)
        assert time.thread_time() - begun < LONGEST_STALL_SECONDS
    assert status == case.get("expect", 401), answer
    assert token not in answer.decode()
    assert not called.is_set()


async def test_the_token_that_the_hostile_ones_are_made_from_is_good(gateway: Gateway) -> None:
    """Else the cases above would be refused for being forged badly."""
    await gateway.user("ada")
    async with AsyncClient(gateway.url) as client:
        token = (await client.login(email("ada"), PASSWORD)).access_token
    again = forged({"signed_with": "key"}, token, await signing_key(gateway), {})
    assert again == token
    host = urlsplit(gateway.url).netloc
    raw = request("GET", "/v1/me", {"host": host, "authorization": f"Bearer {again}"}, b"")
    assert (await sent(gateway, raw))[0] == 200
