"""Whatever a model's server sends, a call ends in time, with an answer or with an error that says which."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.model_server import Answer, Fault, ModelServer, Script
from tests.model_server.asking import (
    WIRES,
    Heard,
    WireName,
    asked,
    hear,
    prompt,
    provider_at,
    provider_for,
)
from tests.planted import KEY
from zene.llm.base import ERROR_CODES, Delta, Retrying
from zene.llm.http import Limits
from zene.llm.retry import Persistent

CASES = json.loads(
    (Path(__file__).parents[1] / "data" / "hostile" / "llm.json").read_text(encoding="utf-8")
)["cases"]
ANSWER = {"text": "Yes, it is."}
WAIT = 20.0  # a call that takes longer hangs


def _runs() -> Iterator[Any]:
    for case in CASES:
        for wire in [case["wire"]] if "wire" in case else WIRES:
            yield pytest.param(case, wire, id=f"{case['id']}-{wire}")


async def heard_from(case: dict[str, Any], wire: WireName, server: ModelServer) -> Heard:
    """What comes out of a call that meets the case, retries without their waits."""
    url = server.url
    with closing(_listener()) as silent, closing(_listener()) as closed:
        if "address" in case:
            ports = {"silent": silent.getsockname()[1], "closed": closed.getsockname()[1]}
            closed.close()
            url = case["address"].format(**ports)
        limits = msgspec.convert(case.get("limits", {}), Limits)
        waits: list[float] = []
        provider = Persistent(
            provider_at(url, wire, limits=limits),
            uniform=lambda _, high: high,
            sleep=_noting(waits),
        )
        async with asyncio.timeout(WAIT):
            request = asked(provider, prompt(), **case.get("request", {}))
            heard = await hear(provider, request)
        await provider.close()
    assert len(waits) == sum(isinstance(output, Retrying) for output in heard.outputs)
    return heard


def _listener() -> socket.socket:
    """A socket that takes connections and never says a word."""
    return socket.create_server(("127.0.0.1", 0))


def _noting(waits: list[float]) -> Any:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return sleep


@pytest.mark.parametrize(("case", "wire"), list(_runs()))
async def test_what_a_server_may_send(case: dict[str, Any], wire: WireName) -> None:
    fault = msgspec.convert(case.get("fault", {}), Fault)
    answer = msgspec.convert({**ANSWER, **case.get("answer", {})}, Answer)
    script = Script(answers=[msgspec.structs.replace(answer, fault=fault)])
    async with ModelServer({"*": script}) as server:
        heard = await heard_from(case, wire, server)
        check(case["expect"], heard)
        if "requests" in case["expect"]:
            assert len(server.requests) == case["expect"]["requests"]


def check(expect: dict[str, Any], heard: Heard) -> None:
    """The call ended as expected, and nothing that was understood is missing or made up."""
    if "code" in expect:
        assert heard.error is not None, heard.outputs[-1]
        assert heard.error.code == expect["code"], heard.error.message
        assert heard.error.unsent == expect.get("unsent", False)
        assert heard.error.code in ERROR_CODES
        assert KEY not in heard.error.message
        assert heard.error.message.isprintable()
    else:
        assert heard.done.stop_reason == expect["stop"]
    found: dict[str, Any] = {
        "begun": heard.has_begun,
        "text": heard.text,
        "reasoning": "".join(part.text for part in heard.thoughts),
        "calls": [[call.name, call.arguments] for call in heard.calls],
    }
    for name in found.keys() & expect.keys():
        assert found[name] == expect[name]
    if "usage" in expect:
        assert heard.done.usage is None
    deltas = sum(isinstance(output, Delta) for output in heard.outputs)
    assert deltas <= expect.get("most_deltas", deltas)


@pytest.mark.parametrize("wire", WIRES)
async def test_the_key_does_not_follow_a_redirect(wire: WireName) -> None:
    async with ModelServer({"*": Script(answers=[Answer(text="Yes.")])}) as elsewhere:
        away = {"location": f"{elsewhere.url}/v1/messages"}
        for status in (301, 302, 303, 307, 308):
            moved = Answer(fault=Fault(status=status, headers=away))
            async with ModelServer({"*": Script(answers=[moved])}) as server:
                provider = provider_for(server, wire)
                heard = await hear(provider, asked(provider, prompt()))
                await provider.close()
            assert heard.error is not None
            assert heard.error.code == "model_bad_response"
        assert elsewhere.requests == []


@pytest.mark.parametrize("key", ["two\r\nlines", "schlüssel-€"])
@pytest.mark.parametrize("wire", WIRES)
async def test_a_key_that_fits_no_header_is_told(wire: WireName, key: str) -> None:
    async with ModelServer({"*": Script(answers=[Answer(text="Yes.")])}) as server:
        provider = provider_for(server, wire, key=key)
        heard = await hear(provider, asked(provider, prompt()))
        await provider.close()
        assert heard.error is not None
        assert heard.error.code == "model_unauthorized"
        assert server.requests == []


@pytest.mark.parametrize("wire", WIRES)
async def test_calls_beyond_the_open_connections_wait_for_one(wire: WireName) -> None:
    async with ModelServer({"*": Script(answers=[Answer(text="Yes.")])}) as server:
        provider = provider_for(server, wire, limits=Limits(connections=2))
        requests = [asked(provider, prompt(str(n))) for n in range(10)]
        heard = await asyncio.gather(*(hear(provider, request) for request in requests))
        await provider.close()
        assert [one.text for one in heard] == ["Yes."] * 10
        assert server.connections_made <= 2
