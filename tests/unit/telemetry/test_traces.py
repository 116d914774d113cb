"""A trace is taken over where it is a valid one, and is in every log line of what is done in it."""

import asyncio
import io
import json
import re

import pytest

from zene import telemetry

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
NEW = re.compile(r"[0-9a-f]{32}")
log = telemetry.logger("zene.test")


@pytest.mark.parametrize("flags", ["00", "01", "ff"])
def test_a_valid_trace_is_taken_over(flags: str) -> None:
    assert telemetry.trace_id(f"00-{ID}-00f067aa0ba902b7-{flags}") == ID


@pytest.mark.parametrize(
    "stated",
    [
        None,
        "",
        ID,
        f"00-{ID}-00f067aa0ba902b7",
        f"00-{ID.upper()}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{ID}-{'0' * 16}-01",
        f"ff-{ID}-00f067aa0ba902b7-01",
        f"01-{ID}-00f067aa0ba902b7-01-more",
        f" 00-{ID}-00f067aa0ba902b7-01",
        f"00-{ID}-00f067aa0ba902b7-01\n",
        f"00-{ID[:-1]}٣-00f067aa0ba902b7-01",
    ],
)
def test_any_other_gets_a_new_one(stated: str | None) -> None:
    first, second = telemetry.trace_id(stated), telemetry.trace_id(stated)
    assert NEW.fullmatch(first)
    assert ID not in (first, second)
    assert first != second


async def test_log_lines_have_the_trace_they_are_written_in_also_in_tasks_begun_there() -> None:
    stream = io.StringIO()
    telemetry.set_up("json", stream=stream)

    async def work() -> None:
        log.info("inside", n=1)

    log.info("before")
    with telemetry.traced(ID):
        begun = asyncio.create_task(work())
        with telemetry.traced(None):
            log.info("aside")
    await begun
    log.info("after")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["event"]: line.get("trace") for line in lines} == {
        "before": None,
        "aside": None,
        "inside": ID,
        "after": None,
    }


def test_another_server_gets_the_trace_with_a_span_of_its_own() -> None:
    assert telemetry.traceparent() == {}
    with telemetry.traced(ID):
        first, second = telemetry.traceparent(), telemetry.traceparent()
    assert first != second
    assert all(telemetry.trace_id(each["traceparent"]) == ID for each in (first, second))
