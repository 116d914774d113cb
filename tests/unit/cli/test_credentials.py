import stat
from pathlib import Path

import pytest

from zene.cli import credentials
from zene.cli.credentials import SignIn
from zene.domain.errors import SetupError


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "zene" / "credentials.json"


def sign_in(name: str) -> SignIn:
    return SignIn(email=name, access_token=f"access of {name}", refresh_token=f"refresh of {name}")


def test_without_a_file_nobody_is_signed_in() -> None:
    assert credentials.read().servers == {}


def test_several_servers_stand_beside_each_other(config: Path) -> None:
    credentials.keep("http://a", sign_in("ann"), as_current=True)
    credentials.keep("http://b", sign_in("bob"), as_current=True)
    credentials.keep("http://a", sign_in("anna"))
    found = credentials.read()
    assert found.current == "http://b"
    assert found.servers == {"http://a": sign_in("anna"), "http://b": sign_in("bob")}


def test_nobody_else_can_read_the_file(config: Path) -> None:
    credentials.keep("http://a", sign_in("ann"))
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700


def test_a_broken_file_is_named(config: Path) -> None:
    config.parent.mkdir()
    config.write_text("{")
    with pytest.raises(SetupError, match="Remove it and sign in again"):
        credentials.read()
