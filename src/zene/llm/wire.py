"""What the wire formats share: a call over HTTP, and the bounds on what a model may send.

A wire format is one file with a `Wire`: how a request is written and how an answer's events are read. The
connection, its limits and the meaning of every failure are here, the same for all of them.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Protocol

from msgspec import DecodeError, structs

from zene.domain.errors import ModelError
from zene.domain.messages import Usage
from zene.llm.base import ModelInfo, Output, Request
from zene.llm.connection import IDLE, bad_response
from zene.llm.http import Client, Endpoint, Exchange
from zene.llm.refusals import Refusal, Refused, model_error

CALL_LIMIT = 64  # tool calls in one answer
ARGUMENTS_LIMIT = 1 << 20  # characters of all arguments in one answer
_CHARACTERS_A_TOKEN = 64  # more than any tokenizer packs into its average token


class Answer(Protocol):
    """One answer being read. `is_complete` turns true with the event that ends it."""

    is_complete: bool

    def read(self, event: bytes) -> Iterable[Output]:
        """What one event adds, nothing once complete. Raises DecodeError, Refused and ModelError."""
        ...

    def finish(self) -> Iterable[Output]:
        """The parts still open and Done, after the last event. Raises ModelError if the end is missing."""
        ...


class Wire(Protocol):
    """One wire format. It keeps nothing between calls."""

    @property
    def name(self) -> str:
        """As `Block.wire` has it."""
        ...

    @property
    def path(self) -> str:
        """What is appended to the base URL."""
        ...

    def headers(self, api_key: str) -> Mapping[str, str]:
        """The headers that sign the call."""
        ...

    def body(self, request: Request) -> bytes:
        """The request as it is sent: the same bytes for the same request."""
        ...

    def answer(self, request: Request) -> Answer:
        """What will read the answer to it."""
        ...

    def hint(self, refusal: Refusal, request: Request) -> str:
        """What Zene adds to the provider's own words, or nothing."""
        ...


class HttpProvider:
    """A model behind a wire format at an address: the `Provider` of every format that travels by HTTP."""

    def __init__(self, wire: Wire, info: ModelInfo, endpoint: Endpoint, client: Client) -> None:
        self._wire = wire
        self._info = info
        self._api_key = endpoint.api_key
        self._client = client

    @property
    def wire(self) -> str:
        """The wire format's name."""
        return self._wire.name

    @property
    def info(self) -> ModelInfo:
        """What is known of the model."""
        return self._info

    async def stream(self, request: Request) -> AsyncGenerator[Output, None]:
        """Make the call; see `base.Provider`."""
        has_begun = False
        exchange: Exchange | None = None
        answer = self._wire.answer(request)
        try:
            exchange = await self._post(request)
            while not answer.is_complete and (events := await exchange.events()) is not None:
                for event in events:
                    for output in answer.read(event):
                        has_begun = True
                        yield output
            await exchange.finish()
            for output in answer.finish():
                yield output
        except (Refused, ModelError, DecodeError, UnicodeDecodeError, RecursionError) as err:
            raise self._error(err, request, has_begun=has_begun) from err
        finally:
            if exchange is not None:
                exchange.close()

    async def close(self) -> None:
        """Close the connections. Twice is harmless."""
        await self._client.close()

    async def _post(self, request: Request) -> Exchange:
        headers = self._wire.headers(self._api_key)
        return await self._client.post(self._wire.path, headers, self._wire.body(request))

    def _error(self, err: Exception, request: Request, *, has_begun: bool) -> ModelError:
        if isinstance(err, Refused):
            hint = self._wire.hint(err.refusal, request)
            error = model_error(err.refusal, hint=hint, secret=self._api_key)
        elif isinstance(err, ModelError):
            error = err
        else:
            return bad_response(f"sent an event that does not parse: {err}")
        return _interrupted(error) if has_begun and _breaks_off(error) else error


def _breaks_off(error: ModelError) -> bool:
    """Would have been tried again, had no output been shown yet."""
    if error.code == "model_timeout":
        return error.details == IDLE
    return error.code in ("model_unreachable", "model_overloaded", "model_rate_limited")


def _interrupted(error: ModelError) -> ModelError:
    return ModelError(
        f"The answer broke off. {error.message}",
        code="model_interrupted",
        details={"reason": error.code, **(error.details or {})},
        retryable=True,
        retry_after=error.retry_after,
    )


class Bounds:
    """Counts what a model streams, in the tokens it must have cost at the least.

    A delta of two characters or more carries a token or more (some servers cut a token into characters,
    none puts less than a character into a delta). `is_over` once that exceeds what was asked for by 1 %.
    """

    def __init__(self, max_output_tokens: int) -> None:
        self._cap = max_output_tokens + max_output_tokens // 100
        self._characters = 0
        self._argument_characters = 0
        self._calls = 0
        self.tokens = 0
        self.is_over = False

    def count(self, text: str) -> None:
        """A delta arrived."""
        self._characters += len(text)
        if len(text) > 1:
            self.tokens += 1
        if self.tokens > self._cap or self._characters > self._cap * _CHARACTERS_A_TOKEN:
            self.is_over = True

    def count_arguments(self, text: str) -> None:
        """A delta is one of a call's arguments. Raises ModelError over the limit."""
        self._argument_characters += len(text)
        if self._argument_characters > ARGUMENTS_LIMIT:
            raise bad_response(f"sent tool arguments of more than {ARGUMENTS_LIMIT} characters")

    def count_call(self) -> None:
        """A tool call began. Raises ModelError over the limit."""
        self._calls += 1
        if self._calls > CALL_LIMIT:
            raise bad_response(f"made more than {CALL_LIMIT} tool calls in one answer")

    def checked(self, usage: Usage | None) -> Usage | None:
        """The usage as reported, unless more was streamed than it says: then what was streamed, marked."""
        if usage is None or usage.output_tokens >= self.tokens:
            return usage
        return structs.replace(usage, output_tokens=self.tokens, estimated=True)
