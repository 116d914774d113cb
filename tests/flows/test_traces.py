"""One trace id from a request through everything that is done for it, in logs, events and at the provider."""

import json
from pathlib import Path

import httpx

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.redis_server import redis_server
from tests.servers import Log, Zene, served_by

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def trace_of(traceparent: str) -> str:
    return traceparent.split("-")[1]


async def test_a_task_belongs_to_the_trace_of_its_request(zene: Zene, model: ModelServer) -> None:
    calls = [Call(name="shell", arguments={"command": "true"})]
    model.scripts["*"] = Script(answers=[Answer(calls=calls), Answer(text="Done.")])
    client = await zene.client()
    session = await client.create_session()
    async with httpx.AsyncClient(base_url=zene.url, trust_env=False) as http:
        headers = {
            "authorization": f"Bearer {zene.tokens[0].access_token}",
            "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        }
        answer = await http.post(
            f"/v1/sessions/{session.id}/tasks", json={"prompt": "Go."}, headers=headers
        )
        other = await http.get("/v1/nowhere", headers={"traceparent": "00-bad"})
    assert trace_of(answer.headers["traceparent"]) == TRACE
    assert answer.json()["trace_id"] == TRACE
    assert len(trace_of(other.headers["traceparent"])) == 32
    log = Log(client, session.id)
    await log.finished(answer.json()["id"])
    for kind in ("task.queued", "task.started"):
        assert [said["trace_id"] for said in log.of(kind)] == [TRACE]
    assert [trace_of(asked.headers["traceparent"]) for asked in model.requests] == [TRACE] * 2
    written = (zene.home / "server.log").read_text().splitlines()
    lines = [line for line in map(json.loads, written) if line.get("trace") == TRACE]
    told = [line["event"] for line in lines]
    assert told[:2] == ["task.submitted", "task.claimed"]
    assert (told.count("model.called"), told.count("command.ended")) == (2, 1)


async def test_gateway_and_worker_have_their_part_of_the_trace_and_metrics_of_their_own(
    tmp_path: Path, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(text="Done.")])
    async with (
        redis_server(tmp_path) as redis,
        Many(tmp_path, served_by(model, ZENE_BUS=redis.url)) as many,
    ):
        await many.make(gateways=1, workers=1)
        log, task = await many.begin()
        await log.finished(task)
        [trace] = [said["trace_id"] for said in log.of("task.queued")]
        told: dict[str, list[str]] = {}
        counted: dict[str, str] = {}
        async with httpx.AsyncClient(trust_env=False) as http:
            for kind in ("gateway", "worker"):
                [path] = many.home.glob(f"{kind}-*.log")
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                told[kind] = [line["event"] for line in lines if line.get("trace") == trace]
                [url] = [line["url"] for line in lines if line["event"] == "metrics.served"]
                counted[kind] = (await http.get(url)).text
    assert told == {"gateway": ["task.submitted"], "worker": ["task.claimed", "model.called"]}
    assert "zene_http_requests_total" in counted["gateway"]
    assert "zene_claims_total" not in counted["gateway"]
    assert "zene_claims_total 1\n" in counted["worker"]
    assert "zene_http_requests_total" not in counted["worker"]
    for each in counted.values():
        assert "zene_queue_length 0\n" in each


async def test_a_task_without_a_trace_gets_one_of_its_own(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[Answer(text="Done.")])
    client = await zene.client()
    session = await client.create_session()
    tasks = [await client.submit(session.id, "Go.") for _ in range(2)]
    log = Log(client, session.id)
    for task in tasks:
        await log.finished(task.id)
    traces = [said["trace_id"] for said in log.of("task.queued")]
    assert traces == [said["trace_id"] for said in log.of("task.started")]
    assert len(set(traces)) == 2
    assert [trace_of(asked.headers["traceparent"]) for asked in model.requests] == traces
