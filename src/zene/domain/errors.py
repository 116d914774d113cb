"""Every error that Zene raises on purpose, in one tree.

    ZeneError
    ├── InvalidInput            400/422  the caller's input does not fit
    ├── Unauthorized            401
    ├── Forbidden               403
    ├── NotFound                404      unknown, or somebody else's: the same answer
    ├── Conflict                409      the state does not allow it
    ├── TooLarge                413
    ├── TooMany                 429
    ├── Unavailable             503      a dependency is down; try again
    ├── LeaseLost                        the writer's lease epoch is old
    ├── SetupError                       this machine or these settings cannot work
    ├── SandboxError
    │   ├── SandboxUnavailable           none can be started
    │   └── SandboxGone                  it ended; a new one can be started
    └── ModelError                       a model call failed (`llm.base` has the codes)

The gateway turns the first group into problem documents, the task runner turns what reaches it into
`task.finished` events, and nobody else catches an error it cannot mend.
"""

from collections.abc import Mapping
from typing import Any


class ZeneError(Exception):
    """Something Zene could not do. `code` is stable, `message` is for people and says what to do next."""

    status = 500
    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retry_after = retry_after
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class InvalidInput(ZeneError):
    """The input does not fit what is asked for."""

    status = 422
    code = "invalid_input"


class Unauthorized(ZeneError):
    """Nobody is signed in, or the sign-in is no longer good."""

    status = 401
    code = "unauthorized"


class Forbidden(ZeneError):
    """The signed-in user may not do this."""

    status = 403
    code = "forbidden"


class NotFound(ZeneError):
    """There is no such thing, or it belongs to somebody else."""

    status = 404
    code = "not_found"


class Conflict(ZeneError):
    """The state it is in does not allow this."""

    status = 409
    code = "conflict"


class TooLarge(ZeneError):
    """The input is larger than allowed."""

    status = 413
    code = "too_large"


class TooMany(ZeneError):
    """Too many requests, streams or tasks; `retry_after` says when to come back (seconds)."""

    status = 429
    code = "too_many"


class Unavailable(ZeneError):
    """Something Zene depends on is down or slow; try again after `retry_after` seconds."""

    status = 503
    code = "unavailable"


class LeaseLost(ZeneError):
    """A write was refused because the writer's lease epoch is old: somebody else owns the work now."""

    code = "lease_lost"


class SetupError(ZeneError):
    """This machine, these settings or this data folder cannot work; the message says how to mend it."""

    code = "setup"


class SandboxError(ZeneError):
    """A sandbox could not do what it was asked."""

    status = 503
    code = "sandbox"


class SandboxUnavailable(SandboxError):
    """No sandbox can be started here; the message says why and what helps."""

    code = "sandbox_unavailable"


class SandboxGone(SandboxError):
    """The sandbox has ended; what ran in it is dead, and a new one can be started on the same workspace."""

    code = "sandbox_gone"


class ModelError(ZeneError):
    """A model call failed. `retryable` says whether the same call may succeed later, `unsent` that nothing of it
    has reached the provider, so that it costs nothing.
    """

    status = 502
    code = "model_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        retryable: bool = False,
        unsent: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details, retry_after=retry_after)
        self.retryable = retryable
        self.unsent = unsent
