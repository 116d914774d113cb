"""Closing: every item that is open gets an end that says what is known of it."""

import pytest

from zene.domain.closing import OpenItem, close_open
from zene.domain.events import ItemCompleted
from zene.domain.messages import ToolCall

CALL = ToolCall(call_id="c1", name="shell", arguments='{"command": "ls"}')


def item(*, call: ToolCall | None = None, begun: bool = False, asked: bool = False) -> OpenItem:
    return OpenItem(
        id="itm_1",
        task_id="tsk_1",
        step=3,
        kind="message" if call is None else "command",
        call=call,
        begun=begun,
        asked=asked,
    )


def test_text_that_nobody_ends_is_discarded() -> None:
    (draft,) = close_open([item()])
    assert isinstance(draft.body, ItemCompleted)
    assert (draft.body.status, draft.content, draft.step) == ("discarded", None, 3)


@pytest.mark.parametrize(
    ("begun", "asked", "status", "told"),
    [
        (True, False, "interrupted", "may have run"),
        (True, True, "interrupted", "may have run"),
        (False, False, "interrupted", "Not run"),
        (False, True, "denied", "Not run"),
    ],
)
def test_a_call_says_whether_it_may_have_run(
    *, begun: bool, asked: bool, status: str, told: str
) -> None:
    (draft,) = close_open([item(call=CALL, begun=begun, asked=asked)])
    assert isinstance(draft.body, ItemCompleted)
    assert isinstance(draft.content, ToolCall)
    assert draft.content.result is not None
    assert draft.body.status == draft.content.result.status == status
    assert draft.body.output == draft.content.result.output
    assert told in draft.content.result.output
    assert draft.body.call_id == "c1"


def test_nothing_open_is_nothing_to_close() -> None:
    assert close_open([]) == []
