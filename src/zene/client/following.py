"""Following a session over server-sent events, through every cut of the line, by its cursor."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, cast

import httpx

from zene.client.connection import Connection, decoded
from zene.domain.errors import TooMany, Unavailable
from zene.domain.events import FLEETING, Event

_SILENCE_SECONDS: Final = 45.0  # the server sends something each 15 s
_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0


async def follow(
    connection: Connection,
    session_id: str,
    after: int | None,
    *,
    patience_seconds: float,
    away: Callable[[], None],
) -> AsyncGenerator[Event, None]:
    """Every event after the cursor (None: a snapshot and what comes then), durable ones once and in
    order, deltas between them. Ends when the session is deleted; comes back by itself whenever the
    line is cut or the server goes away. Raises what the server refuses it with, Unavailable or TooMany
    once it has got nowhere for `patience_seconds`; `away` is called as it begins to wait, once each time.
    """
    cursor, pause = after, _PAUSE_SECONDS
    clock = asyncio.get_running_loop().time
    last_seen, is_away = clock(), False
    while True:
        try:
            async with aclosing(_once(connection, session_id, cursor)) as events:
                async for event in events:
                    pause, last_seen, is_away = _PAUSE_SECONDS, clock(), False
                    if event.type not in FLEETING or event.type == "snapshot":
                        cursor = event.seq
                    yield event
                    if event.type == "session.deleted":
                        return
        except (TooMany, Unavailable) as err:
            if clock() - last_seen > patience_seconds:
                raise
            if not is_away and isinstance(err, Unavailable):
                is_away = True
                away()
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _once(
    connection: Connection, session_id: str, cursor: int | None
) -> AsyncGenerator[Event, None]:
    """The events of one connection."""
    query = {"from": "snapshot"} if cursor is None else {"after": cursor}
    headers = {"accept": "text/event-stream"}
    async with (
        connection.opened(
            "GET", f"/v1/sessions/{session_id}/stream", query=query, headers=headers
        ) as response,
        aclosing(_frames(response)) as frames,
    ):
        async for frame in frames:
            for line in frame.split(b"\n"):
                if line.startswith(b"data: "):
                    yield decoded(line[6:], Event)


async def _frames(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Whole frames out of bytes that are cut anywhere; what the end cuts off is dropped."""
    pending = b""
    # httpx says iterator and gives a generator, which has to be closed where it is left early.
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as chunks:
        while True:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    pending += await anext(chunks)
            except (StopAsyncIteration, TimeoutError):
                return
            *whole, pending = pending.split(b"\n\n")
            for frame in whole:
                yield frame
