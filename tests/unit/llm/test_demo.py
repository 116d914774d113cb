"""The demo model: a whole run, without a key and without a state."""

from collections.abc import Sequence

import msgspec

from zene.domain.messages import Item, Message, SystemText, ToolCall, ToolResult, UserMessage
from zene.llm.base import Delta, Done, ModelInfo, Output, PartDone, Request, ToolSpec
from zene.llm.demo import open_provider

TOOLS = [
    ToolSpec(name=name, description="does it", parameters={"type": "object"})
    for name in ("list_files", "write_file", "shell")
]
PROMPT = [
    Item(id="itm_1", task_id="tsk_1", step=0, content=SystemText("Be good.")),
    Item(id="itm_2", task_id="tsk_1", step=0, content=UserMessage("Say 'hi' 🙂\nplease")),
]


async def answer(items: Sequence[Item], tools: Sequence[ToolSpec] = TOOLS) -> list[Output]:
    provider = open_provider(ModelInfo(name="demo", window=128_000))
    request = Request(model="demo", items=items, tools=tools, max_output_tokens=1000)
    outputs = [output async for output in provider.stream(request)]
    await provider.close()
    return outputs


def parts(outputs: Sequence[Output]) -> list[PartDone]:
    return [output for output in outputs if isinstance(output, PartDone)]


async def play(status: str = "succeeded") -> list[Item]:
    """The history of a run in which every call ends with `status`."""
    items = list(PROMPT)
    for step in range(1, 9):
        outputs = await answer(items)
        for part in parts(outputs):
            content = part.content
            if isinstance(content, ToolCall):
                result = msgspec.convert({"status": status, "output": "Hello!"}, ToolResult)
                content = msgspec.structs.replace(content, result=result)
            name = f"itm_{step}_{part.index}"
            items.append(Item(id=name, task_id="tsk_1", step=step, content=content))
        last = outputs[-1]
        assert isinstance(last, Done)
        if last.stop_reason == "end":
            return items
    raise AssertionError("the demo does not end")


def calls_of(items: Sequence[Item]) -> list[ToolCall]:
    return [item.content for item in items if isinstance(item.content, ToolCall)]


async def test_it_looks_around_writes_a_program_runs_it_and_says_what_came_out() -> None:
    items = await play()
    calls = calls_of(items)
    assert [call.name for call in calls] == ["list_files", "write_file", "shell"]
    assert len({call.call_id for call in calls}) == 3
    last = items[-1].content
    assert isinstance(last, Message)
    assert "Hello!" in last.text


async def test_its_program_is_python_that_repeats_what_was_asked() -> None:
    written = calls_of(await play())[1]
    program = msgspec.json.decode(written.arguments)["content"]
    names: dict[str, str] = {}
    exec(compile(program.splitlines()[0], "hello.py", "exec"), names)
    assert names["asked"] == "Say 'hi' 🙂"


async def test_the_same_request_gets_the_same_answer() -> None:
    items = (await play())[:5]
    assert await answer(items) == await answer(items)


async def test_a_call_that_did_not_succeed_ends_the_script() -> None:
    items = await play("denied")
    assert [call.name for call in calls_of(items)] == ["list_files"]


async def test_a_second_prompt_begins_the_script_again() -> None:
    items = await play()
    again = Item(id="itm_again", task_id="tsk_2", step=0, content=UserMessage("and again"))
    assert [call.name for call in calls_of_answer(await answer([*items, again]))] == ["list_files"]


def calls_of_answer(outputs: Sequence[Output]) -> list[ToolCall]:
    return [part.content for part in parts(outputs) if isinstance(part.content, ToolCall)]


async def test_without_tools_it_only_says_hello() -> None:
    assert calls_of_answer(await answer(PROMPT, tools=[])) == []


async def test_text_comes_in_small_deltas_that_join_to_the_parts() -> None:
    outputs = await answer(PROMPT)
    for part in parts(outputs):
        deltas = [out.text for out in outputs if isinstance(out, Delta) and out.index == part.index]
        whole = part.content
        text = whole.arguments if isinstance(whole, ToolCall) else getattr(whole, "text", None)
        assert "".join(deltas) == text
        assert max(map(len, deltas)) <= 6
