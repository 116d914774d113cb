"""Makes a failed call again, as long as nobody has seen any of its output.

Providers are overloaded for seconds and limit rates for up to a minute; waiting with jitter keeps the workers
of an installation from coming back all at once.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from zene.domain.errors import ModelError
from zene.llm.base import ModelInfo, Output, Provider, Request, Retrying

RETRIES = {"model_unreachable": 3, "model_overloaded": 3, "model_rate_limited": 5}
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 20.0
LONGEST_RETRY_AFTER_SECONDS = 60.0  # a provider that asks for more fails the call at once


class Persistent:
    """A provider that tries again; `uniform` and `sleep` are `random.uniform` and `asyncio.sleep`."""

    def __init__(
        self,
        provider: Provider,
        *,
        uniform: Callable[[float, float], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._provider = provider
        self._uniform = uniform
        self._sleep = sleep

    @property
    def wire(self) -> str:
        """The wire format's name."""
        return self._provider.wire

    @property
    def info(self) -> ModelInfo:
        """What is known of the model."""
        return self._provider.info

    async def stream(self, request: Request) -> AsyncGenerator[Output, None]:
        """Make the call, again where it failed before its first output; see `base.Provider`."""
        attempt, was_sent = 0, False
        while True:
            has_begun = False
            try:
                async with aclosing(self._provider.stream(request)) as outputs:
                    async for output in outputs:
                        has_begun = True
                        yield output
            except ModelError as error:
                was_sent = was_sent or not error.unsent
                error.unsent = not was_sent
                if has_begun or not _may_pass(error, attempt):
                    raise
                failure = error
            else:
                return
            attempt += 1
            delay = self._delay(failure, attempt)
            yield Retrying(attempt, round(delay * 1000), failure.code)
            await self._sleep(delay)

    async def close(self) -> None:
        """Close the provider."""
        await self._provider.close()

    def _delay(self, error: ModelError, attempt: int) -> float:
        """Seconds: doubled each time, with jitter, and never less than the provider asked for."""
        longest = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
        return max(self._uniform(longest / 2, longest), error.retry_after or 0.0)


def _may_pass(error: ModelError, retries: int) -> bool:
    is_soon = (error.retry_after or 0.0) <= LONGEST_RETRY_AFTER_SECONDS
    return error.retryable and is_soon and retries < RETRIES.get(error.code, 0)
