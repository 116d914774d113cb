"""What the model server plays: a list of answers, each with what may go wrong on its way.

Nothing is kept between requests. Which answer is due follows from the request alone: the assistant's turns
since the last prompt are counted, so that a client or server that was killed goes on where it was.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct


class Call(Struct, frozen=True, kw_only=True):
    """A tool call; `id` is made up where it is empty."""

    name: str
    arguments: Mapping[str, Any] = {}
    id: str = ""


class Part(Struct, frozen=True, kw_only=True):
    """Bytes of a body that replaces the answer: `size` characters of `text`, sent `times` times.

    `{n}` in it counts. A lone surrogate U+DC80 to U+DCFF stands for a byte that is no UTF-8.
    """

    text: str
    size: int = 0
    times: int = 1

    def pieces(self) -> Iterator[bytes]:
        """The bytes, as often as they are sent."""
        text = self.text * (self.size // len(self.text)) if self.size else self.text
        for n in range(self.times):
            yield text.replace("{n}", str(n)).encode(errors="surrogateescape")


class Fault(Struct, frozen=True, kw_only=True):
    """What goes wrong. `times` requests fail, counted for each body; 0 means all of them do.

    `body` replaces the answer's events; `swaps` replaces text in them, `append` adds to them. `cut_at` hangs
    up after so many bytes, `stall_at` falls silent. `piece` writes so many bytes at a time.
    """

    times: int = 0
    hang_up: bool = False
    status: int = 200
    headers: Mapping[str, str] = {}
    raw_head: str = ""
    body: Sequence[Part] | None = None
    swaps: Sequence[tuple[str, str]] = ()
    append: str = ""
    cut_at: int | None = None
    stall_at: int | None = None
    piece: int = 0
    is_chunked: bool = True


class Answer(Struct, frozen=True, kw_only=True):
    """One answer. Text is streamed by words, or `delta_size` characters at a time.

    `tokens` streams that many numbered words instead of a text; `delay_ms` waits before each event.
    """

    reasoning: str = ""
    redacted: str = ""
    text: str = ""
    tokens: int = 0
    calls: Sequence[Call] = ()
    stop: Literal["end", "length", "refusal"] = "end"
    delta_size: int = 0
    delay_ms: float = 0
    has_usage: bool = True
    fault: Fault | None = None

    @property
    def said(self) -> str:
        """The text, whichever way it is given."""
        return "".join(f"word{n} " for n in range(self.tokens)) if self.tokens else self.text


class Script(Struct, frozen=True, kw_only=True):
    """The answers to a prompt: those whose key the prompt contains, or else `answers`.

    `takes_steering` counts what a user says after a tool's result as part of the turn, not as a prompt.
    `window` refuses a longer history, in tokens of four bytes.
    """

    answers: Sequence[Answer] = ()
    answers_to: Mapping[str, Sequence[Answer]] = {}
    takes_steering: bool = False
    window: int = 0

    def answer(self, prompt: str, step: int) -> Answer:
        """The answer that is due; after the last one there is nothing more to say."""
        for key, answers in self.answers_to.items():
            if key in prompt:
                return answers[step] if step < len(answers) else _NOTHING_MORE
        return self.answers[step] if step < len(self.answers) else _NOTHING_MORE


_NOTHING_MORE = Answer(text="There is nothing more to say.")


def play_trajectory(path: Path, *, reasoning: bool = False) -> Script:
    """The script that replays a recorded run: what the agent said and did, in the tools' terms.

    With `reasoning` what it said is reasoning, except at the end.
    """
    recorded = json.loads(path.read_text())
    answers = []
    for step in recorded["steps"]:
        calls = () if step["do"] == "finish" else (_call(step["do"]),)
        is_thought = reasoning and bool(calls)
        said = {"reasoning" if is_thought else "text": step["say"]}
        answers.append(Answer(calls=calls, **said))
    return Script(answers=answers)


def _call(action: dict[str, Any]) -> Call:
    match action:
        case {"write": {"path": path, "content": content}}:
            return Call(name="write_file", arguments={"path": path, "content": content})
        case {"shell": command}:
            return Call(name="shell", arguments={"command": command})
        case {"find": {"name": name, "under": folder}}:
            return Call(name="find_files", arguments={"pattern": name, "path": folder})
        case {"read": {"path": path, "line": line}}:
            lines = {"offset": max(line - 10, 1), "limit": 20}
            return Call(name="read_file", arguments={"path": path, **lines})
        case {"edit": {"path": path, "old": old, "new": new}}:
            texts = {"old_text": old, "new_text": new}
            return Call(name="edit_file", arguments={"path": path, **texts})
        case _:
            raise ValueError(f"a recorded action that no tool does: {action}")
