"""A Redis that cannot be used is refused at the start, in words that say what to do and hide the password."""

import asyncio
import datetime
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.contracts.test_bus import WAIT, event
from tests.redis_server import RedisServer, redis_server
from tests.servers import a_free_port
from zene.bus.link import OPEN_SECONDS
from zene.bus.redis import START_SECONDS, open_bus
from zene.domain.errors import SetupError

PASSWORD = "p@ss:w/rd"
QUOTED = "p%40ss%3Aw%2Frd"
REFUSED = START_SECONDS + OPEN_SECONDS + 5  # seconds, on a busy machine


async def refusal(url: str) -> str:
    """Why a bus at that address does not start."""
    bus = open_bus(url, "one")
    try:
        async with asyncio.timeout(REFUSED):
            with pytest.raises(SetupError) as refused:
                await bus.start()
    finally:
        await bus.close()
    assert PASSWORD not in refused.value.message
    assert QUOTED not in refused.value.message
    return refused.value.message


async def works(url: str) -> bool:
    """Whether an event goes through."""
    bus = open_bus(url, "one")
    await bus.start()
    async with bus.subscribe("ses_1") as follower:
        await bus.publish("ses_1", [event(1)])
        arrived = await follower.next(WAIT)
    await bus.close()
    return arrived == event(1)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("redis://host:port", r"redis://\[\[USER\]:PASSWORD@\]HOST"),
        ("redis://host:99999", "no address"),
        ("redis://host/zero", "no address"),
        ("redis://host/0?timeout=5", "timeout, which nobody knows"),
        ("redis://[::1", "no address"),
        (
            "rediss://host?ssl_ca_certs=/nowhere.pem",
            "no certificates can be read from /nowhere.pem",
        ),
    ],
)
def test_an_address_that_is_none_is_refused_with_its_form(url: str, hint: str) -> None:
    with pytest.raises(SetupError, match=hint):
        open_bus(url, "one")


async def test_where_nothing_listens_it_says_where_and_what_to_do() -> None:
    said = await refusal(f"redis://someone:{QUOTED}@127.0.0.1:{a_free_port()}/2")
    assert "redis://127.0.0.1:" in said
    assert "/2 cannot be used" in said
    assert said.endswith("Start it, or correct ZENE_BUS.")


async def test_a_redis_that_comes_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    bus = open_bus(server.url, "one")
    starting = asyncio.create_task(bus.start())
    await asyncio.wait((starting,), timeout=0.3)
    assert not starting.done()
    await server.start()
    await starting
    await bus.close()
    await server.stop()


async def test_something_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = await refusal(f"redis://127.0.0.1:{silent.getsockname()[1]}")
    assert "No answer in 4 seconds" in said


async def test_something_else_that_listens_is_not_taken_for_a_redis() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    said = await refusal(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "does not speak Redis' protocol" in said
    server.close()


async def test_a_password_is_needed_and_has_to_be_right(tmp_path: Path) -> None:
    async with redis_server(tmp_path, password=PASSWORD) as server:
        at = f"127.0.0.1:{server.port}"
        assert "wants a password: redis://:PASSWORD@HOST" in await refusal(f"redis://{at}")
        assert "does not accept this user and password" in await refusal(f"redis://:no@{at}")
        assert await works(f"redis://:{QUOTED}@{at}")
        assert await works(f"redis://default:{QUOTED}@{at}/3")


async def test_a_user_who_may_not_use_our_channels_is_refused(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        await server.ask(
            "ACL", "SETUSER", "bob", "on", f">{PASSWORD}", "~*", "+@all", "resetchannels"
        )
        assert "refuses: NOPERM" in await refusal(f"redis://bob:{QUOTED}@127.0.0.1:{server.port}")
        await server.ask("ACL", "SETUSER", "bob", "resetkeys", "~zene:*", "&zene:*", "-@dangerous")
        assert await works(f"redis://bob:{QUOTED}@127.0.0.1:{server.port}")


async def test_a_cluster_is_refused(tmp_path: Path) -> None:
    async with redis_server(tmp_path, "--cluster-enabled", "yes") as server:
        assert "Redis Cluster" in await refusal(server.url)


async def test_a_replica_is_refused(tmp_path: Path) -> None:
    async with redis_server(tmp_path, "--replicaof", "127.0.0.1 1") as server:
        assert "read-only replica; name its primary" in await refusal(server.url)


async def test_a_policy_that_evicts_other_peoples_keys_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server(tmp_path) as server:
        assert await works(server.url)
        assert "bus.evicts" not in caplog.messages
        await server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert await works(server.url)
        assert "bus.evicts" in caplog.messages


async def test_tls_is_spoken_with_whom_the_given_authority_knows(tmp_path: Path) -> None:
    certificate = a_certificate(tmp_path)
    async with tls_server(tmp_path, certificate) as port:
        url = f"rediss://127.0.0.1:{port}"
        assert "is not to be trusted" in await refusal(url)
        assert await works(f"{url}?ssl_ca_certs={certificate}")


@asynccontextmanager
async def tls_server(folder: Path, certificate: Path) -> AsyncIterator[int]:
    """A Redis that speaks TLS on one of its ports."""
    port = a_free_port()
    options = (
        "--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file", str(certificate),
        "--tls-key-file", str(folder / "key.pem"), "--tls-ca-cert-file", str(certificate),
    )  # fmt: skip
    async with redis_server(folder, *options):
        yield port


def a_certificate(folder: Path) -> Path:
    """A certificate for this machine, signed by itself; its key lies beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's redis")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path
