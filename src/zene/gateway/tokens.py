"""Access tokens: JWTs with an EdDSA signature that only ever look one way.

A gateway accepts nothing but what a gateway wrote: the header must be, byte for byte, the one that goes
with a known key, and the claims must be written exactly as they are encoded here. So there is no
algorithm to confuse, no header field to obey, no second claim of a name, and no parser to disagree with.
RFC 7519, RFC 8037; `typ` as in RFC 9068.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from zene.domain.errors import Unauthorized

ISSUER = "zene"
AUDIENCE = "zene.api"
LIFETIME_SECONDS = 15 * 60
MAX_LENGTH = 2048
_CLOCK_SKEW_SECONDS = 30
_CACHE_SIZE = 10_000
_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")

_encoder = msgspec.json.Encoder()


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who (`sub`) signed in (`sid`), and until when; times in seconds since 1970."""

    iss: str
    aud: str
    sub: str
    sid: str
    iat: int
    exp: int
    jti: str


class SigningKey(Struct, frozen=True):
    """An Ed25519 key; `private` is its 32 bytes."""

    kid: str
    private: bytes

    @property
    def header(self) -> str:
        """The one header that tokens of this key have, as it stands in them."""
        fields = {"alg": "EdDSA", "kid": self.kid, "typ": "at+jwt"}
        return encode_segment(_encoder.encode(fields))

    @property
    def public_jwk(self) -> dict[str, str]:
        """What anybody may know of it, as a JSON Web Key."""
        raw = Ed25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": encode_segment(raw),
            "kid": self.kid,
            "use": "sig",
            "alg": "EdDSA",
        }


class Keyring:
    """Signs with the first key, which is the newest, accepts all of them, remembers what it has verified."""

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self.keys = list(keys)
        self._signing = self.keys[0]
        self._private = Ed25519PrivateKey.from_private_bytes(self._signing.private)
        self._public: dict[str, Ed25519PublicKey] = {
            key.header: Ed25519PrivateKey.from_private_bytes(key.private).public_key()
            for key in self.keys
        }
        self._verified: dict[str, Claims] = {}

    def issue(self, claims: Claims) -> str:
        """The signed token."""
        signed = f"{self._signing.header}.{encode_segment(_encoder.encode(claims))}"
        return f"{signed}.{encode_segment(self._private.sign(signed.encode()))}"

    def knows(self, token: str) -> bool:
        """Whether its header is that of one of the keys here."""
        return token.partition(".")[0] in self._public

    def verify(self, token: str, now: int) -> Claims:
        """The claims of a good token at `now` (seconds). Raises Unauthorized for any other."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._read(token)
            if len(self._verified) >= _CACHE_SIZE:
                self._verified.pop(next(iter(self._verified)))
            self._verified[token] = claims
        if not claims.iat - _CLOCK_SKEW_SECONDS <= now < claims.exp:
            self._verified.pop(token, None)
            raise Unauthorized("The access token has expired. Refresh it.", code="token_expired")
        return claims

    def _read(self, token: str) -> Claims:
        form = _FORM.fullmatch(token) if len(token) <= MAX_LENGTH else None
        key = self._public.get(form[1]) if form else None
        if form is None or key is None:
            raise _refused()
        signed = f"{form[1]}.{form[2]}".encode()
        try:
            key.verify(decode_segment(form[3]), signed)
            payload = decode_segment(form[2])
            claims = msgspec.json.decode(payload, type=Claims)
        except (InvalidSignature, ValueError, RecursionError) as err:
            raise _refused() from err
        if _encoder.encode(claims) != payload or not _acceptable(claims):
            raise _refused()
        return claims


def _acceptable(claims: Claims) -> bool:
    lifetime = claims.exp - claims.iat
    return (
        claims.iss == ISSUER
        and claims.aud == AUDIENCE
        and 0 < lifetime <= LIFETIME_SECONDS
        and claims.sub.startswith("usr_")
        and claims.sid != ""
    )


def _refused() -> Unauthorized:
    return Unauthorized("The access token is not valid. Sign in again.")


def encode_segment(raw: bytes) -> str:
    """Base64url without padding, as JWTs have it."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode_segment(segment: str) -> bytes:
    """The bytes of a segment. Raises ValueError where the text is not the one way to write them."""
    raw = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if encode_segment(raw) != segment:
        raise ValueError("not canonical base64url")
    return raw
