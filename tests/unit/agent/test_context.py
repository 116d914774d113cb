"""What a model is shown of a history, and how the history reads as text."""

from msgspec import Raw

from zene.agent.context import visible
from zene.agent.history import lines
from zene.domain.messages import (
    Block,
    Compaction,
    Content,
    Item,
    Message,
    Reasoning,
    SystemText,
    ToolCall,
    ToolResult,
    UserMessage,
)

OWN = Block(wire="own", data=Raw(b'{"signature":"s"}'))
FOREIGN = Block(wire="foreign", data=Raw(b'{"signature":"f"}'))
RESULT = ToolResult(status="failed", output="one\ntwo")


def items(*contents: Content) -> list[Item]:
    return [Item(id=f"itm_{n}", task_id="tsk_1", step=1, content=c) for n, c in enumerate(contents)]


def shown(*contents: Content) -> list[Content]:
    return [item.content for item in visible(items(*contents), "own")]


def test_only_the_last_system_text_counts_and_stands_first() -> None:
    one, two, said = SystemText("one"), SystemText("two"), UserMessage("hello")
    assert shown(one, said, two) == [two, said]


def test_blocks_of_this_wire_format_stay_as_they_are() -> None:
    contents: list[Content] = [
        Reasoning("", OWN),
        Message("m", OWN),
        ToolCall("c", "n", "{}", RESULT, OWN),
    ]
    assert shown(*contents) == contents


def test_blocks_of_another_wire_format_go_and_reasoning_with_them() -> None:
    foreign: list[Content] = [
        Reasoning("thought", FOREIGN),
        Message("m", FOREIGN),
        Message("", FOREIGN),
        ToolCall("c", "n", "{}", RESULT, FOREIGN),
    ]
    assert shown(*foreign) == [Message("m"), ToolCall("c", "n", "{}", RESULT)]


def test_the_history_reads_as_lines_with_ids_to_ask_for() -> None:
    history = items(
        SystemText("rules"),
        UserMessage("Mend it."),
        Reasoning("hm"),
        Message("I look."),
        ToolCall("c", "shell", '{"command":"ls"}', RESULT),
        Compaction("It was mended."),
    )
    assert lines(history) == [
        "## user itm_1",
        "Mend it.",
        "",
        "## agent itm_3",
        "I look.",
        "",
        '## call itm_4 shell {"command":"ls"}',
        "[failed]",
        "one",
        "two",
        "",
        "## summary itm_5",
        "It was mended.",
        "",
    ]
