"""`/metrics` as those who run Zene read it: of a server at work, on a listener that bears everything."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.gateway import running
from tests.model_server import Answer, Call, ModelServer, Script
from tests.servers import Zene, begin, data
from zene.domain.errors import NotFound
from zene.store.census import CensusMeters
from zene.telemetry.listener import HEAD_BYTES, READERS, metrics_served
from zene.telemetry.metrics import Registry

IDS = re.compile(r"\b(usr|prj|ses|tsk|itm|apr|req)_\w+")


def values(text: str) -> dict[str, float]:
    """Each series with its value."""
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {series: float(number) for series, _, number in pairs}


async def read(url: str) -> dict[str, float]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert not IDS.search(answer.text)
    return values(answer.text)


async def test_a_server_counts_what_it_does(zene: Zene, model: ModelServer) -> None:
    calls = [Call(name="shell", arguments={"command": "true"})]
    model.scripts["*"] = Script(answers=[Answer(calls=calls), Answer(text="Done.")])
    log, task = await begin(zene)
    end = await log.live(lambda event: event.type == "task.finished" and event.task_id == task)
    with pytest.raises(NotFound):
        await log.client.task("tsk_" + "0" * 26)
    said = (zene.home / "server.log").read_text()
    [url] = re.findall(r'"metrics.served", "url": "([^"]+)"', said)
    found, used = await read(url), data(end)["usage"]
    assert found["zene_claims_total"] == found["zene_task_wait_seconds_count"] == 1
    assert found["zene_slots"] == 25
    assert found['zene_tasks{status="running"}'] == found["zene_queue_length"] == 0
    assert found["zene_queue_oldest_seconds"] == found["zene_leases_held"] == 0
    assert found["zene_store_reachable"] == 1
    assert found['zene_tasks_finished_total{outcome="succeeded"}'] == 1
    called = 'zene_model_calls_total{model="openai:gpt-4.1",end="%s"}'
    assert (found[called % "tool_calls"], found[called % "end"]) == (1, 1)
    assert found['zene_model_call_seconds_count{model="openai:gpt-4.1"}'] == 2
    tokens = 'zene_model_tokens_total{model="openai:gpt-4.1",kind="%s"}'
    assert found[tokens % "input"] == used["input_tokens"] > 0
    assert found[tokens % "output"] == used["output_tokens"] > 0
    assert found["zene_append_seconds_count"] == found["zene_publish_seconds_count"] >= 4
    assert found["zene_event_lag_seconds_count"] >= 1
    assert 0 <= found["zene_event_lag_seconds_sum"] < 60
    submitted = 'method="POST",route="/v1/sessions/{session_id}/tasks",status="202"'
    assert found[f"zene_http_requests_total{{{submitted}}}"] == 1
    assert found['zene_http_request_seconds_count{route="/v1/sessions/{session_id}/tasks"}'] == 1
    assert found['zene_http_errors_total{code="not_found"}'] == 1


async def test_open_streams_and_unknown_paths_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        ada = await gateway.client("ada")
        session = await ada.create_session()
        stream = ada.follow(session.id)
        await anext(stream)
        assert values(await gateway.registry.read())["zene_open_streams"] == 1
        async with httpx.AsyncClient(trust_env=False) as client:
            for path in ("/v1/sessions/ses_1/nowhere", "/v2/anything", "/v1/me"):
                await client.request("PROPFIND", gateway.url + path)
        found = values(await gateway.registry.read())
        assert found['zene_http_requests_total{method="other",route="other",status="404"}'] == 2
        assert found['zene_http_requests_total{method="other",route="other",status="405"}'] == 1
        await stream.aclose()


async def test_a_store_that_is_away_is_told_and_costs_only_its_own_numbers(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        registry = Registry()
        CensusMeters(registry, gateway.store, clock=gateway.clock)
        assert values(await registry.read())["zene_queue_length"] == 0
        await gateway.store.close()
        assert values(await registry.read()) == {"zene_store_reachable": 0}


@pytest.fixture
async def listener() -> AsyncIterator[str]:
    async with metrics_served(Registry(), host="127.0.0.1", port=0) as url:
        assert url is not None
        yield url


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"200 "),
        (b"GET /metrics?name=x HTTP/1.0\r\nhost: x\r\n\r\n", b"200 "),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 "),
        (b"POST /metrics HTTP/1.1\r\ncontent-length: 0\r\n\r\n", b"405 "),
        (b"\r\n\r\n", b"405 "),
        (b"GET /metrics\r\n\r\n", b"405 "),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"x" * HEAD_BYTES + b"\r\n\r\n", b""),
        (b"\x16\x03\x01 hello", b""),
    ],
)
async def test_only_a_request_for_metrics_gets_any(
    listener: str, sent: bytes, status: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(listener).port)
    writer.write(sent)
    writer.write_eof()
    try:
        answer = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        answer = b""
    writer.close()
    assert answer[9:13] == status


async def test_readers_that_say_nothing_keep_nobody_else_out_for_long(
    listener: str,
) -> None:
    port = urlsplit(listener).port
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(READERS)]
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(listener)).status_code == 503
        async with asyncio.timeout(20):
            for reader, _ in silent:
                assert await reader.read() == b""
        assert (await client.get(listener)).status_code == 200
    for _, writer in silent:
        writer.close()


async def test_a_taken_port_is_no_reason_not_to_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with metrics_served(Registry(), host="127.0.0.1", port=port) as url:
            assert url is None


async def test_leaving_does_not_wait_for_who_still_reads() -> None:
    async with asyncio.timeout(4), metrics_served(Registry(), host="127.0.0.1", port=0) as url:
        assert url is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"GET /met")
        await writer.drain()
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
