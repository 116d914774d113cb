import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from zene import telemetry


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.getLogger("zene").level)
    yield io.StringIO()
    root.handlers[:], root.level = before[0], before[1]
    logging.getLogger("zene").setLevel(before[2])


log = telemetry.logger("zene.test")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json(stream: io.StringIO) -> None:
    telemetry.set_up("json", stream=stream)
    log.info("task.claimed", task="tsk_1", worker="w\n1", steps=3)
    (line,) = lines(stream)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "zene.test",
        "event": "task.claimed",
        "task": "tsk_1",
        "worker": "w\n1",
        "steps": 3,
    }


def test_a_person_reads_one_line_too(stream: io.StringIO) -> None:
    telemetry.set_up("text", stream=stream)
    log.warning("bus.down", reason="it\nbroke \x1b[2J", seconds=2.5)
    written = stream.getvalue()
    assert written.endswith('warning bus.down reason="it\\nbroke \\u001b[2J" seconds=2.5\n')
    assert written.count("\n") == 1


def test_without_a_terminal_lines_are_json(stream: io.StringIO) -> None:
    telemetry.set_up(stream=stream)
    log.info("ready")
    assert lines(stream)[0]["event"] == "ready"


def test_set_up_twice_writes_once(stream: io.StringIO) -> None:
    telemetry.set_up("json", stream=io.StringIO())
    telemetry.set_up("json", stream=stream)
    log.info("ready")
    assert len(lines(stream)) == 1


def test_debug_is_off(stream: io.StringIO) -> None:
    telemetry.set_up("json", stream=stream)
    log.debug("noise")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    "fields",
    [
        {"password": "planted"},
        {"access_token": "planted"},
        {"api_key": "planted"},
        {"reason": "401 for planted-secret"},
        {"url": "postgresql://zene:planted@host/db"},
        {"path": "/v1/ws?ticket=planted&x=1"},
        {"header": "Bearer planted"},
        {"key": "sk-planted-0123456789"},
        {"jwt": "eyJplanted.eyJplanted.planted"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_secrets_are_masked(
    stream: io.StringIO, style: telemetry.Format, fields: dict[str, str]
) -> None:
    telemetry.set_up(style, secrets=["planted-secret"], stream=stream)
    log.info("something", **fields)
    assert "planted" not in stream.getvalue()
    assert telemetry.MASK in stream.getvalue()


def test_an_address_without_a_password_is_shown(stream: io.StringIO) -> None:
    telemetry.set_up("json", stream=stream)
    log.info("bus.away", redis="redis://127.0.0.1:6379/0")
    assert lines(stream)[0]["redis"] == "redis://127.0.0.1:6379/0"


def test_counts_of_tokens_are_not_secrets(stream: io.StringIO) -> None:
    telemetry.set_up("json", stream=stream)
    log.info("step", input_tokens=12)
    assert lines(stream)[0]["input_tokens"] == 12


def test_other_libraries_lines_are_masked_too(stream: io.StringIO) -> None:
    telemetry.set_up("json", secrets=["planted"], stream=stream)
    logging.getLogger("other").warning("with %s", "planted")
    assert lines(stream)[0]["event"] == "with ***"


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_unexpected_error_comes_with_its_traceback(
    stream: io.StringIO, style: telemetry.Format
) -> None:
    telemetry.set_up(style, secrets=["planted"], stream=stream)
    try:
        raise ValueError("planted")  # noqa: TRY301 - to be caught at once
    except ValueError:
        log.exception("task.crashed", task="tsk_1")
    assert "test_logs.py" in stream.getvalue()
    assert "planted" not in stream.getvalue()
