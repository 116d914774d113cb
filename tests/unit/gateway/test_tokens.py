"""Access tokens: what is issued any JOSE library accepts, and nothing else than what is issued is accepted."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.jwk import OKPKey

from zene.domain.errors import Unauthorized
from zene.gateway.tokens import (
    AUDIENCE,
    ISSUER,
    LIFETIME_SECONDS,
    Claims,
    Keyring,
    SigningKey,
    encode_segment,
)

NOW = 1_800_000_000
KEY = SigningKey("one", bytes(range(32)))


def claims(**changes: object) -> Claims:
    good = Claims(
        iss=ISSUER,
        aud=AUDIENCE,
        sub="usr_" + "0" * 26,
        sid="sgn_" + "0" * 26,
        iat=NOW,
        exp=NOW + LIFETIME_SECONDS,
        jti="x",
    )
    return msgspec.structs.replace(good, **changes)


def test_what_is_issued_is_accepted() -> None:
    ring = Keyring([KEY])
    assert ring.verify(ring.issue(claims()), NOW) == claims()


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")
def test_another_library_verifies_it_with_the_published_key() -> None:
    token = Keyring([KEY]).issue(claims())
    read = jwt.decode(token, OKPKey.import_key({**KEY.public_jwk}), algorithms=["EdDSA"])
    assert read.header == {"alg": "EdDSA", "kid": "one", "typ": "at+jwt"}
    assert read.claims == msgspec.to_builtins(claims())


def test_tokens_of_an_older_key_are_accepted_and_new_ones_signed_with_the_newest() -> None:
    newer = SigningKey("two", bytes(32))
    old, new = Keyring([KEY]), Keyring([newer, KEY])
    assert new.verify(old.issue(claims()), NOW) == claims()
    assert not old.knows(new.issue(claims()))


def test_a_verified_token_is_still_refused_once_it_has_expired() -> None:
    ring = Keyring([KEY])
    token = ring.issue(claims())
    ring.verify(token, NOW + LIFETIME_SECONDS - 1)
    with pytest.raises(Unauthorized) as caught:
        ring.verify(token, NOW + LIFETIME_SECONDS)
    assert caught.value.code == "token_expired"


def test_every_changed_character_is_noticed() -> None:
    ring = Keyring([KEY])
    token = ring.issue(claims())
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(Unauthorized):
            ring.verify(token[:place] + other + token[place + 1 :], NOW)


def test_a_signature_written_another_way_is_refused() -> None:
    ring = Keyring([KEY])
    token = ring.issue(claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same_bits = alphabet[alphabet.index(token[-1]) ^ 1]  # the last character has four unused bits
    with pytest.raises(Unauthorized):
        ring.verify(token[:-1] + same_bits, NOW)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss":"zene","iss":"zene"}',
        b"[]",
        b'"text"',
        b"{}",
        b"",
        b"\xff",
        b"[" * 100_000,
        msgspec.json.encode(claims()).replace(b'"jti":"x"', b'"jti":"x","sub":"usr_other"'),
        msgspec.json.encode(claims()).replace(b"{", b"{ "),
        msgspec.json.encode(claims()).replace(b'"jti":"x"', b'"jti":"x","admin":true'),
        msgspec.json.encode(claims()).replace(str(NOW).encode(), f"{NOW}.0".encode()),
    ],
)
def test_a_payload_that_was_not_written_here_is_refused_although_it_is_signed(
    payload: bytes,
) -> None:
    ring = Keyring([KEY])
    with pytest.raises(Unauthorized):
        ring.verify(signed(payload), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW},
        {"exp": NOW + LIFETIME_SECONDS + 1},
        {"iat": NOW - 10**9},
        {"iat": NOW + 60, "exp": NOW + 120},
        {"aud": "zene"},
        {"aud": "zene.api.v2"},
        {"iss": "other"},
        {"sub": ""},
        {"sub": "wrk_1"},
        {"sid": ""},
    ],
)
def test_claims_that_are_not_those_of_a_users_access_token_are_refused(
    changes: dict[str, object],
) -> None:
    with pytest.raises(Unauthorized):
        Keyring([KEY]).verify(signed(msgspec.json.encode(claims(**changes))), NOW)


def signed(payload: bytes) -> str:
    """A token with this payload and a good signature."""

    head = f"{KEY.header}.{encode_segment(payload)}"
    signature = Ed25519PrivateKey.from_private_bytes(KEY.private).sign(head.encode())
    return f"{head}.{encode_segment(signature)}"
