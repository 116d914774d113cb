"""Trying again: when, how often, how long to wait."""

from collections.abc import AsyncGenerator, Sequence

import pytest

from zene.domain.errors import ModelError
from zene.domain.messages import Item, UserMessage
from zene.llm.base import Delta, Done, ModelInfo, Output, Provider, Request, Retrying
from zene.llm.retry import Persistent

REQUEST = Request(
    model="m",
    items=[Item(id="itm_1", task_id="tsk_1", step=0, content=UserMessage("hi"))],
    max_output_tokens=100,
)
DONE = Done(stop_reason="end", usage=None)


class Playing:
    """A provider that plays one list after the other: outputs, or an error to raise."""

    wire = "played"
    info = ModelInfo(name="m", window=1000)

    def __init__(self, *calls: Sequence[Output | ModelError]) -> None:
        self.calls = list(calls)
        self.made = 0
        self.closed = 0

    async def stream(self, request: Request) -> AsyncGenerator[Output, None]:
        assert request is REQUEST
        played = self.calls[min(self.made, len(self.calls) - 1)]
        self.made += 1
        for output in played:
            if isinstance(output, ModelError):
                raise output
            yield output

    async def close(self) -> None:
        self.closed += 1


def failing(code: str, *, retry_after: float | None = None, retryable: bool = True) -> ModelError:
    return ModelError("no", code=code, retryable=retryable, retry_after=retry_after)


class Waits:
    """Notes the waits instead of making them; `uniform` takes the upper end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def uniform(self, low: float, high: float) -> float:
        assert 0 < low < high
        return high


async def outputs_of(provider: Playing, waits: Waits) -> list[Output]:
    persistent: Provider = Persistent(provider, uniform=waits.uniform, sleep=waits.sleep)
    assert (persistent.wire, persistent.info) == (provider.wire, provider.info)
    try:
        return [output async for output in persistent.stream(REQUEST)]
    finally:
        await persistent.close()
        assert provider.closed == 1


async def test_an_overloaded_model_is_asked_again_and_everyone_is_told() -> None:
    waits = Waits()
    provider = Playing([failing("model_overloaded")], [failing("model_unreachable")], [DONE])
    assert await outputs_of(provider, waits) == [
        Retrying(1, 500, "model_overloaded"),
        Retrying(2, 1000, "model_unreachable"),
        DONE,
    ]
    assert waits.seconds == [0.5, 1.0]


@pytest.mark.parametrize(
    ("code", "calls"),
    [("model_overloaded", 4), ("model_unreachable", 4), ("model_rate_limited", 6)],
)
async def test_it_gives_up_after_a_few_times(code: str, calls: int) -> None:
    provider = Playing([failing(code)])
    with pytest.raises(ModelError) as raised:
        await outputs_of(provider, Waits())
    assert raised.value.code == code
    assert provider.made == calls


@pytest.mark.parametrize(("sent", "unsent"), [((), True), ((0,), False), ((3,), False)])
async def test_only_what_never_reached_the_provider_counts_as_unsent(
    sent: tuple[int, ...], *, unsent: bool
) -> None:
    errors = [
        ModelError("no", code="model_unreachable", retryable=True, unsent=n not in sent)
        for n in range(4)
    ]
    with pytest.raises(ModelError) as raised:
        await outputs_of(Playing(*([error] for error in errors)), Waits())
    assert raised.value.unsent is unsent


@pytest.mark.parametrize(
    "code",
    [
        "model_unauthorized",
        "model_not_found",
        "model_rejected",
        "model_timeout",
        "model_interrupted",
        "model_bad_response",
        "model_context_too_long",
    ],
)
async def test_what_would_fail_again_is_not_asked_again(code: str) -> None:
    provider = Playing([failing(code)])
    with pytest.raises(ModelError):
        await outputs_of(provider, Waits())
    assert provider.made == 1


async def test_a_limit_that_does_not_pass_is_not_asked_again() -> None:
    provider = Playing([failing("model_rate_limited", retryable=False)])
    with pytest.raises(ModelError):
        await outputs_of(provider, Waits())
    assert provider.made == 1


async def test_after_the_first_output_nothing_is_asked_again() -> None:
    provider = Playing([Delta(0, "message", "so"), failing("model_overloaded")])
    with pytest.raises(ModelError):
        await outputs_of(provider, Waits())
    assert provider.made == 1


async def test_the_providers_own_wait_is_kept_to() -> None:
    waits = Waits()
    await outputs_of(Playing([failing("model_rate_limited", retry_after=7.5)], [DONE]), waits)
    assert waits.seconds == [7.5]


async def test_a_wait_of_hours_fails_at_once() -> None:
    provider = Playing([failing("model_rate_limited", retry_after=3600)])
    with pytest.raises(ModelError) as raised:
        await outputs_of(provider, Waits())
    assert raised.value.retry_after == 3600
    assert provider.made == 1


async def test_leaving_early_closes_the_call() -> None:
    provider = Playing([Delta(0, "message", "so"), DONE])
    waits = Waits()
    stream = Persistent(provider, uniform=waits.uniform, sleep=waits.sleep).stream(REQUEST)
    assert await anext(stream) == Delta(0, "message", "so")
    await stream.aclose()
    assert provider.made == 1
