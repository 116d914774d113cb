"""What a provider's refusal means: its status and its error body become one of the codes of `llm.base`.

The providers' own words are kept in the message, since only they say what to mend; the key is taken
out of them, control characters too, and they are cut.
"""

import re
from collections.abc import Mapping

from msgspec import DecodeError, Struct, ValidationError, convert
from msgspec.json import Decoder

from zene.domain.errors import ModelError

_WORDS_LIMIT = 500
_TOO_LONG = re.compile(
    r"context[ _]length|context window|context limit|available context|maximum context"
    r"|prompt is too long|input is too long|too many (input )?tokens",
    re.IGNORECASE,
)
_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "credits_exhausted"})
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")

# Error types and codes that a provider sends inside a stream whose status was 200; any other counts as its fault.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "bio_policy": 400,
    "misalignment_policy_violation": 400,
    "data_residency_mismatch": 400,
    "model_not_found": 404,
    "insufficient_quota": 429,
}


class Refusal(Struct, frozen=True, kw_only=True):
    """A provider's no: HTTP status (or what its error type stands for), its error code and its words."""

    status: int
    kind: str
    words: str
    retry_after: float | None = None
    may_retry: bool = True
    request_id: str = ""


class Refused(Exception):
    """The provider said no, instead of an answer or in the middle of one."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.words)
        self.refusal = refusal


class _ErrorBody(Struct):
    error: object = None
    message: str | None = None
    detail: object = None


class _Error(Struct):
    type: str | None = None
    code: str | int | None = None
    message: str | None = None

    @property
    def kind(self) -> str:
        return self.code if isinstance(self.code, str) and self.code else self.type or ""

    @property
    def status(self) -> int:
        """The HTTP status this error would have had, if the stream had not already begun with 200."""
        if isinstance(self.code, int) and 400 <= self.code < 600:
            return self.code
        return _STATUS_OF_TYPE.get(self.type or "", _STATUS_OF_TYPE.get(self.kind, 500))


_BODY = Decoder(_ErrorBody, strict=False)


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """The refusal in an answer that is not a stream; `headers` has lower-case names."""
    error = _error_in(body)
    return Refusal(
        status=error.status if status == 200 and error.message else status,
        kind=error.kind,
        words=error.message or body.decode("utf-8", "replace"),
        retry_after=_seconds(headers.get("retry-after", "")),
        may_retry=headers.get("x-should-retry", "true") != "false",
        request_id=headers.get("x-request-id", "") or headers.get("request-id", ""),
    )


def refused_in_stream(error: object) -> Refused:
    """What to raise for the `error` member of a stream's event."""
    known = _read_error(error)
    return Refused(Refusal(status=known.status, kind=known.kind, words=known.message or ""))


def model_error(refusal: Refusal, *, hint: str = "", secret: str = "") -> ModelError:
    """The error to raise; `hint` is what Zene adds for people, `secret` never shows in the message."""
    code, is_retryable = _meaning(refusal)
    words = refusal.words.replace(secret, "…") if secret else refusal.words
    words = _UNPRINTABLE.sub(" ", words).strip()[:_WORDS_LIMIT]
    message = f"The model's server answered {refusal.status}: {words or 'no reason given'}"
    return ModelError(
        f"{message} ({hint})" if hint else message,
        code=code,
        details={"status": refusal.status, "type": refusal.kind, "request_id": refusal.request_id},
        retryable=is_retryable and refusal.may_retry,
        retry_after=refusal.retry_after,
    )


def _meaning(refusal: Refusal) -> tuple[str, bool]:
    """The error code, and whether the same call may succeed later."""
    status = refusal.status
    if status >= 500 or status == 408:
        return "model_overloaded", True
    if status == 429:
        return "model_rate_limited", refusal.kind not in _NO_CREDIT
    return _meaning_of_the_rest(refusal), False


def _meaning_of_the_rest(refusal: Refusal) -> str:
    if refusal.status < 400:
        return "model_bad_response"
    if refusal.status == 413 or (refusal.status in (400, 422) and _is_too_long(refusal)):
        return "model_context_too_long"
    if refusal.status == 404 or refusal.kind == "model_not_found":
        return "model_not_found"
    return "model_unauthorized" if refusal.status in (401, 403) else "model_rejected"


def _is_too_long(refusal: Refusal) -> bool:
    return refusal.kind == "context_length_exceeded" or bool(_TOO_LONG.search(refusal.words))


def _error_in(body: bytes) -> _Error:
    try:
        answer = _BODY.decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()
    if answer.error is not None:
        return _read_error(answer.error)
    return _Error(message=answer.message or (str(answer.detail) if answer.detail else None))


def _read_error(error: object) -> _Error:
    if isinstance(error, str):
        return _Error(message=error)
    try:
        return convert(error, _Error)
    except ValidationError:
        return _Error(message=str(error))


def _seconds(value: str) -> float | None:
    """Retry-After in seconds; the form that is a date is as good as absent."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None
