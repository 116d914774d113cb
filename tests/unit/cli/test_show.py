from typing import Any

import pytest

from zene.cli.show import Show, approval, canonical


def shown(capsys: pytest.CaptureFixture[str], *events: tuple[str, dict[str, Any]]) -> str:
    show = Show()
    for kind, data in events:
        show.event(kind, data)
    return capsys.readouterr().out


def started(item: str, kind: str, **more: object) -> tuple[str, dict[str, Any]]:
    return "item.started", {"item_id": item, "kind": kind, **more}


def delta(item: str, kind: str, offset: int, text: str) -> tuple[str, dict[str, Any]]:
    return "item.delta", {"item_id": item, "kind": kind, "offset": offset, "text": text}


def completed(item: str, kind: str, **more: object) -> tuple[str, dict[str, Any]]:
    return "item.completed", {"item_id": item, "kind": kind, "status": "completed", **more}


def shell(item: str, command: str) -> tuple[str, dict[str, Any]]:
    return started(item, "command", name="shell", arguments={"command": command})


def test_text_streams_and_its_end_repeats_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        started("i", "message"),
        delta("i", "message", 0, "Hel"),
        delta("i", "message", 3, "lo"),
        completed("i", "message", text="Hello!"),
    ]
    assert shown(capsys, *events) == "Hello!\n"


def test_the_text_so_far_after_a_reconnect_is_not_shown_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = [
        started("i", "message"),
        delta("i", "message", 0, "Hello"),
        delta("i", "message", 0, "Hello, wor"),
        completed("i", "message", text="Hello, world"),
    ]
    assert shown(capsys, *events) == "Hello, world\n"


def test_a_text_that_begins_again_is_shown_anew(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        started("i", "message"),
        delta("i", "message", 0, "Wrong"),
        delta("i", "message", 0, "Right"),
        completed("i", "message", text="Right"),
    ]
    assert shown(capsys, *events) == "Wrong\nRight\n"


def test_an_item_nobody_saw_streaming_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, completed("i", "message", text="Hello")) == "Hello\n"


def test_calls_side_by_side_are_shown_one_after_the_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = [
        shell("a", "first"),
        shell("b", "second"),
        delta("b", "command", 0, "b1\n"),
        delta("a", "command", 0, "a1\n"),
        completed("b", "command", output="b1\nb2\n"),
        delta("a", "command", 3, "a2\n"),
        completed("a", "command", output="a1\na2\n"),
    ]
    assert shown(capsys, *events) == "$ first\na1\na2\n$ second\nb1\nb2\n"


def test_a_call_that_failed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    end = completed("a", "command", output="no\n")
    end[1].update(status="failed", exit_code=2)
    assert shown(capsys, shell("a", "false"), end) == "$ false\nno\n[failed, exit code 2]\n"


def test_nothing_from_outside_reaches_the_terminal_as_a_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "\x1b]0;title\x07\x9b2J\u202e"
    events = [
        shell("a", evil),
        delta("a", "command", 0, evil),
        completed("a", "command", output=evil + evil),
        started("b", evil, name=evil, arguments={evil: evil}),
        completed("m", "message", text=evil),
        ("task.waiting", {"on": evil}),
        (
            "approval.requested",
            {"approval_id": "apr_1", "name": evil, "arguments": {"x": evil}, "risk": "low"},
        ),
        (
            "task.finished",
            {"outcome": "failed", "error": {"code": "x", "message": evil}, "usage": {}},
        ),
    ]
    show = Show()
    for kind, data in events:
        show.event(kind, data)
    out, err = capsys.readouterr()
    assert not set("\x1b\x07\x9b\u202e") & set(out + err)


def test_an_approval_shows_its_whole_arguments_in_one_spelling() -> None:
    first = approval("apr_1", "shell", "high", {"b": "а", "a": 1})  # noqa: RUF001 - a Cyrillic letter
    assert "\\u0430" in first
    assert "zene approve apr_1" in first
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})


def test_events_that_say_nothing_to_a_person_are_passed_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown(capsys, ("usage.updated", {}), ("a.new.event", {})) == ""


def test_a_place_in_the_queue_is_told_where_it_is_news(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show()
    show.event("task.queued", {"prompt": "Go.", "position": 2})
    for position in (2, 1, 0):
        show.event("queue.changed", {"position": position})
    told = capsys.readouterr().err.splitlines()
    assert told == ["Queued at place 2.", "Now at place 1.", "Next in the queue."]


def test_a_change_before_a_task_begins_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show()
    show.event("task.updated", {"prompt": "Go on.", "position": 3})
    show.event("task.updated", {"priority": 3})
    assert capsys.readouterr().err.splitlines() == [
        "What is asked for was changed.",
        "Now at place 3.",
    ]


def test_a_sandbox_that_ended_by_itself_is_told_and_one_that_was_ended_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = Show()
    for state in (
        {"state": "started", "ms": 5},
        {"state": "gone", "reason": "killed"},
        {"state": "out_of_memory"},
        {"state": "gone", "reason": "ended"},
    ):
        show.event("sandbox.state", state)
    first, second = capsys.readouterr().err.splitlines()
    assert "out of memory" in first
    assert "ended" in second


def test_what_was_changed_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"path": "a", "added": 3, "removed": 1}
    Show().event("diff.updated", {"files": [one], "more_files": 2, "added": 5, "removed": 1})
    assert capsys.readouterr().err == "Changed so far: 3 files, +5 -1 lines.\n"


def test_a_call_of_another_session_that_waits_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"session_id": "ses_2", "approval_id": "apr_1", "name": "shell"}
    Show().event("approval.wanted", wanted)
    assert "ses_2 waits for you: zene approve apr_1" in capsys.readouterr().err
