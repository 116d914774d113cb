"""Errors that cross from one process to another and come out the same: class, code, message and the rest."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from zene.domain import errors
from zene.domain.errors import ZeneError

_KINDS: Mapping[str, type[ZeneError]] = {
    kind.__name__: kind
    for kind in (
        *(errors.InvalidInput, errors.Unauthorized, errors.Forbidden, errors.NotFound),
        *(errors.Conflict, errors.TooLarge, errors.TooMany, errors.Unavailable, errors.SetupError),
        *(errors.SandboxError, errors.SandboxUnavailable, errors.SandboxGone, errors.LeaseLost),
    )
}


class Fault(Struct, frozen=True, array_like=True):
    """An error as it travels."""

    kind: str
    code: str
    message: str
    status: int
    details: Mapping[str, Any] | None = None
    retry_after: float | None = None


def fault(error: ZeneError) -> Fault:
    """What the other side has to know."""
    return Fault(
        type(error).__name__,
        error.code,
        error.message,
        error.status,
        error.details,
        error.retry_after,
    )


def error(fault: Fault) -> ZeneError:
    """The error again; one of a kind that is not known here keeps all but its class."""
    return _KINDS.get(fault.kind, ZeneError)(
        fault.message,
        code=fault.code,
        details=fault.details,
        status=fault.status,
        retry_after=fault.retry_after,
    )
