"""What PostgreSQL's errors mean for whoever asked: try again, somewhere else, or never."""

from typing import Any, Final

import asyncpg

from zene.domain.errors import Unavailable

# A unit that lost against another; run anew, it may win.
CONTENTION: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
# This address, this user or this database is not what the settings say.
REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
)
# The server, or this connection to it, is no good any more; the others that there are may be no better.
LOST: Final = (
    OSError,  # TimeoutError too
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
)
_BUSY: Final = (
    asyncpg.InsufficientResourcesError,  # too many clients, no memory
    asyncpg.QueryCanceledError,  # a statement that took too long
    asyncpg.LockNotAvailableError,
    *CONTENTION,
)
# The first that fits counts: kind, code, message, and after how many seconds to try again.
_MEANINGS: Final[tuple[tuple[Any, str | None, str, float], ...]] = (
    (
        asyncpg.DiskFullError,
        "disk_full",
        "The disk that the database is on is full. Make room there; nothing was lost.",
        5,
    ),
    (
        asyncpg.ReadOnlySQLTransactionError,
        None,
        "The database server takes no writes at present.",
        2,
    ),
    (REFUSED, None, "The database server refuses us: {}.", 5),
    (_BUSY, None, "The database is too busy: {}.", 1),
    (LOST, None, "The database does not answer: {}.", 2),
)


def ends_connection(error: Exception) -> bool:
    """Whether nothing more can be had of the connection; a value that does not fit is the unit's own fault."""
    return isinstance(error, LOST) and not isinstance(error, asyncpg.DataError)


def translated(error: Exception) -> Exception:
    """PostgreSQL's error as Zene's; any other, and one that only a wrong unit makes, as it is."""
    for kind, code, message, seconds in _MEANINGS:
        if isinstance(error, kind) and not isinstance(error, asyncpg.DataError):
            return Unavailable(
                message.format(str(error) or type(error).__name__), code=code, retry_after=seconds
            )
    return error
