"""Seals and passwords."""

import pytest

from zene.domain.errors import InvalidInput, SetupError
from zene.gateway.passwords import Passwords
from zene.gateway.seals import Seal


def test_what_was_sealed_can_be_opened_for_the_same_purpose() -> None:
    sealed = Seal(b"key").close(b"secret", "signing key")
    assert Seal(b"key").open(sealed, "signing key") == b"secret"
    assert "secret" not in sealed


@pytest.mark.parametrize(("key", "purpose"), [(b"other", "signing key"), (b"key", "refresh token")])
def test_another_key_or_purpose_opens_nothing(key: bytes, purpose: str) -> None:
    sealed = Seal(b"key").close(b"secret", "signing key")
    with pytest.raises(SetupError) as caught:
        Seal(key).open(sealed, purpose)
    assert caught.value.code == "wrong_secret_key"


def test_the_same_secret_never_looks_the_same_and_a_fingerprint_always_does() -> None:
    seal = Seal(b"key")
    assert seal.close(b"secret", "x") != seal.close(b"secret", "x")
    assert seal.fingerprint(b"body") == Seal(b"key").fingerprint(b"body")
    assert seal.fingerprint(b"body") != Seal(b"other").fingerprint(b"body")


async def test_only_the_password_matches_its_hash() -> None:
    passwords = Passwords(memory_kib=64)
    stored = await passwords.hash("correct horse")
    assert await passwords.matches(stored, "correct horse")
    assert not await passwords.matches(stored, "wrong horse")
    assert not await passwords.matches(None, "correct horse")
    assert not await passwords.matches("not a hash", "correct horse")


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
async def test_a_password_of_bad_length_is_not_hashed(password: str) -> None:
    with pytest.raises(InvalidInput):
        await Passwords().hash(password)
