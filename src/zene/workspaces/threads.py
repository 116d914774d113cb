"""Threads for file work: the only place where this package leaves the event loop.

A call is settled before its caller goes on, even when the caller is cancelled, because the descriptors
it works on are closed by whoever waits for it.
"""

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_UNCHANGED = -1  # no uid of its own: setfsuid then only tells the present one
_libc = ctypes.CDLL(None, use_errno=True)


class Threads:
    """A few threads. With `uid` they are that user, for good, in all that the kernel checks of files.

    Root's override of permissions is gone in them, and what they make belongs to that user.
    """

    def __init__(self, name: str, count: int, *, uid: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(
            count, thread_name_prefix=name, initializer=_become, initargs=(uid,)
        )

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run it and wait until it has ended; a cancellation is raised after that, never during it."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))
        return await settled(future)

    def close(self) -> None:
        """Wait for what runs, then stop."""
        self._pool.shutdown()


async def settled(future: "asyncio.Future[_T]") -> _T:
    """The future's result, waited for to its end: a cancellation is raised after that, never before."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as stop:
            cancelled = stop
    if cancelled is None:
        return future.result()
    if not future.cancelled():
        future.exception()
    raise cancelled


def _become(uid: int | None) -> None:
    """Per thread: glibc passes these two on to no other. The group first, while still allowed to."""
    if uid is None:
        return
    for change in (_libc.setfsgid, _libc.setfsuid):
        change(uid)
        if change(_UNCHANGED) != uid:
            raise PermissionError("this process may not act as the owner of the workspaces' files")
