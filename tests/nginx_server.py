"""A real nginx of a test's own, with the configuration that `deploy/` ships: only places are put in."""

import asyncio
import re
import shutil
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from tests.servers import a_free_port

SHIPPED = Path(__file__).parents[1] / "deploy" / "nginx.conf"
SECONDS = 10.0


class Nginx(Struct, frozen=True):
    """Where it answers, and what to trust it by."""

    url: str
    plain_url: str
    trusts: ssl.SSLContext


@asynccontextmanager
async def nginx(folder: Path, gateways: Sequence[int]) -> AsyncGenerator[Nginx, None]:
    """Run it before gateways on these ports of this machine."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    secure, plain = a_free_port(), a_free_port()
    make_certificate(folder)
    path = folder / "nginx.conf"
    path.write_text(placed(folder, gateways, secure, plain))
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(path), "-e", "stderr", "-g", "daemon off; user root;"
    )
    try:
        await _listening(secure, process)
        trusts = ssl.create_default_context(cafile=str(folder / "zene.crt"))
        yield Nginx(f"https://127.0.0.1:{secure}", f"http://127.0.0.1:{plain}", trusts)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(SECONDS):
            await process.wait()


def placed(folder: Path, gateways: Sequence[int], secure: int, plain: int) -> str:
    """The shipped configuration with this machine's ports and this test's folder."""
    text = SHIPPED.read_text()
    shipped = re.findall(r"^ +server gateway-\d+:8420(.*;)\n", text, re.MULTILINE)
    servers = "".join(f"        server 127.0.0.1:{port}{shipped[0]}\n" for port in gateways)
    text = re.sub(r"(^ +server gateway-\d+:8420.*;\n)+", servers, text, flags=re.MULTILINE)
    for was, now in {
        "listen 8080;": f"listen 127.0.0.1:{plain};",
        "listen 8443 ": f"listen 127.0.0.1:{secure} ",
        "/etc/nginx/tls/": f"{folder}/",
        "/tmp/nginx-": f"{folder}/nginx-",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/dev/stdout": f"{folder}/access.log",
        "/dev/stderr": f"{folder}/error.log",
    }.items():
        assert was in text, was
        text = text.replace(was, now)
    return text


def make_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that is its own authority: `zene.crt` and `zene.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "zene.crt").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "zene.key").write_bytes(private)


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(SECONDS):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)  # nothing tells when it listens
                continue
            writer.close()
            return
    raise AssertionError("nginx ended")
