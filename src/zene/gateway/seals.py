"""Seals: what the store keeps of a secret is unreadable without the installation's secret key."""

import hmac
import secrets
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from zene.domain.errors import SetupError

_NONCE_BYTES = 12


class Seal:
    """AES-256-GCM under a key derived (HKDF-SHA256) from ZENE_SECRET_KEY, bound to what it is for."""

    def __init__(self, secret_key: bytes) -> None:
        self._cipher = AESGCM(_derived(secret_key, b"zene seal v1"))
        self._mark = _derived(secret_key, b"zene fingerprint v1")

    def close(self, secret: bytes, purpose: str) -> str:
        """The sealed secret, in base64: a random nonce, then the ciphertext. `purpose` must be named to open it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return b64encode(nonce + self._cipher.encrypt(nonce, secret, purpose.encode())).decode()

    def fingerprint(self, content: bytes) -> str:
        """What tells contents apart and says nothing of them, not even to who can guess them (HMAC-SHA256)."""
        return hmac.digest(self._mark, content, "sha256").hex()

    def open(self, sealed: str, purpose: str) -> bytes:
        """The secret again. Raises SetupError where the key or the purpose is another one."""
        raw = b64decode(sealed)
        nonce, ciphertext = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, purpose.encode())
        except InvalidTag as err:
            message = (
                f"The {purpose} in the store was sealed with another ZENE_SECRET_KEY. "
                "Start with the key that this installation was made with."
            )
            raise SetupError(message, code="wrong_secret_key") from err


def _derived(secret_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret_key)
