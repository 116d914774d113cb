"""A file on its way to somebody: piece by piece, cut off where it breaks or is not read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from zene import telemetry
from zene.domain.errors import ZeneError
from zene.gateway.connections import connection

log = telemetry.logger(__name__)


class Download:
    """An answer whose reader has `seconds` for each piece. What is cut off never looks whole, and by then has
    given back what its `content` holds.
    """

    def __init__(
        self,
        first: bytes,
        content: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str],
        media: str,
        seconds: float,
    ) -> None:
        self._content = content
        self._answer = StreamingResponse(_joined(first, content), headers=headers, media_type=media)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or cut it off."""
        too_slow = False

        async def in_time(message: Message) -> None:
            nonlocal too_slow
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                too_slow = True
                raise

        try:
            async with aclosing(self._content):
                await self._answer(scope, receive, in_time)
        except ZeneError as err:  # the answer has begun
            log.warning("download.broken_off", error=err.message)
            await connection(scope).cut_off()
        except Exception:
            if not too_slow:
                raise
            await connection(scope).cut_off()


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
