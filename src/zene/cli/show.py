"""A session's events as a person reads them: text as it streams, one item after the other.

Read-only calls run side by side, and their output would mix. So one item at a time is in front and
streams; what comes of others meanwhile is kept, and shown when their turn comes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from zene.cli import terminal
from zene.cli.terminal import safe, styled

_LONGEST_ARGUMENTS = 400  # characters of a call's heading; approvals show them whole


@dataclass
class _Item:
    kind: str
    name: str = ""
    arguments: Any = None
    text: str = ""
    written: str = ""
    status: str | None = None
    exit_code: int | None = None

    @property
    def is_call(self) -> bool:
        return self.kind not in ("message", "reasoning", "user_message", "compaction", "notice")


@dataclass
class Show:
    """Writes events to stdout. Events of one session, in the order of its log."""

    prompts: bool = True  # whether to show what the user asked
    _items: dict[str, _Item] = field(default_factory=dict)
    _front: str | None = None
    _line_is_open: bool = False
    _place: int = 0  # of the task that was queued last, as it was told

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Show one event; those that say nothing to a person are passed over."""
        if write := self._writers.get(kind):
            write(self, data)

    def _started(self, data: Mapping[str, Any]) -> None:
        item = _Item(data["kind"], data.get("name") or "", data.get("arguments"))
        self._items[data["item_id"]] = item
        if self._front is None and item.is_call:
            self._bring_to_front(data["item_id"])

    def _delta(self, data: Mapping[str, Any]) -> None:
        item = self._items.setdefault(data["item_id"], _Item(data["kind"]))
        item.text = item.text[: data["offset"]] + data["text"]
        if self._front is None:
            self._bring_to_front(data["item_id"])
        if self._front == data["item_id"]:
            self._write_text(item)

    def _completed(self, data: Mapping[str, Any]) -> None:
        item = self._items.setdefault(data["item_id"], _Item(data["kind"]))
        item.name = data.get("name") or item.name
        item.arguments = data.get("arguments", item.arguments)
        text = data.get("output") if item.is_call else data.get("text")
        item.text = text if text is not None else item.text
        item.status, item.exit_code = data["status"], data.get("exit_code")
        if self._front in (None, data["item_id"]):
            self._finish_front(data["item_id"])

    def _finish_front(self, item_id: str) -> None:
        """End the item in front, then show those that ended behind it and bring up the next."""
        if self._front is None:
            self._bring_to_front(item_id)
        self._end(self._items.pop(item_id))
        self._front = None
        waiting = sorted(self._items, key=lambda each: self._items[each].status is None)
        if waiting and self._items[waiting[0]].status:
            self._finish_front(waiting[0])
        elif waiting and self._items[waiting[0]].is_call:
            self._bring_to_front(waiting[0])

    def _bring_to_front(self, item_id: str) -> None:
        self._front = item_id
        item = self._items[item_id]
        if item.kind == "user_message" and not self.prompts:
            return
        self._close_line()
        if heading := _heading(item):
            terminal.say(heading)
        self._write_text(item)

    def _write_text(self, item: _Item) -> None:
        if item.kind == "plan" or (item.kind == "user_message" and not self.prompts):
            return
        ended_line = item.written.removesuffix("\n")  # a result has no newline at its end
        if item.text in (item.written, ended_line):
            return
        if item.text.startswith(item.written):
            new = item.text[len(item.written) :]
        elif item.text.startswith(f"{ended_line}\n"):
            new = item.text[len(ended_line) + 1 :]
        else:
            new = item.text  # the model began again, or long output was cut: show it anew
            self._close_line()
        item.written = item.text
        dim = item.is_call or item.kind in ("reasoning", "compaction")
        terminal.say(styled(safe(new), "dim") if dim else safe(new), end="")
        self._line_is_open = not item.text.endswith("\n")

    def _end(self, item: _Item) -> None:
        self._write_text(item)
        self._close_line()
        failure = item.status in ("failed", "denied", "interrupted", "discarded")
        if failure or item.exit_code:
            code = f", exit code {item.exit_code}" if item.exit_code is not None else ""
            terminal.say(styled(f"[{item.status}{code}]", "red"))

    def _close_line(self) -> None:
        if self._line_is_open:
            terminal.say()
        self._line_is_open = False

    def _queued(self, data: Mapping[str, Any]) -> None:
        self._place = data.get("position", 0)
        if self._place:
            self._note(f"Queued at place {self._place}.")

    def _updated(self, data: Mapping[str, Any]) -> None:
        if "prompt" in data:
            self._note("What is asked for was changed.")
        if "position" in data:
            self._moved_up(data)

    def _moved_up(self, data: Mapping[str, Any]) -> None:
        told, self._place = self._place, data["position"]
        if not self._place:
            self._note("Next in the queue.")
        elif self._place != told:
            self._note(f"Now at place {self._place}.")

    def _sandbox(self, data: Mapping[str, Any]) -> None:
        if data["state"] == "out_of_memory":
            self._note("The sandbox ran out of memory; something in it was killed.")
        elif data.get("reason") == "ended":
            self._note("The sandbox ended; the next command starts another.")

    def _changed(self, data: Mapping[str, Any]) -> None:
        count = len(data["files"]) + data.get("more_files", 0)
        files = terminal.counted(count, "file")
        self._note(f"Changed so far: {files}, +{data['added']} -{data['removed']} lines.")

    def _waiting(self, data: Mapping[str, Any]) -> None:
        self._note(f"Waiting: {data['on']}.")

    def _retry(self, data: Mapping[str, Any]) -> None:
        self._note(f"Asking the model again in {data['delay_ms'] / 1000:.1f} s: {data['reason']}.")

    def _approval(self, data: Mapping[str, Any]) -> None:
        self._close_line()
        asked = (data[name] for name in ("approval_id", "name", "risk", "arguments"))
        terminal.say(approval(*asked))

    def _wanted(self, data: Mapping[str, Any]) -> None:
        self._note(f"{data['session_id']} waits for you: zene approve {data['approval_id']}")

    def _finished(self, data: Mapping[str, Any]) -> None:
        self._close_line()
        terminal.note(summary(data))

    def _note(self, text: str) -> None:
        self._close_line()
        terminal.note(safe(text))

    _writers: ClassVar = {
        "item.started": _started,
        "item.delta": _delta,
        "item.completed": _completed,
        "task.queued": _queued,
        "task.updated": _updated,
        "task.waiting": _waiting,
        "task.finished": _finished,
        "queue.changed": _moved_up,
        "sandbox.state": _sandbox,
        "diff.updated": _changed,
        "step.retry": _retry,
        "approval.requested": _approval,
        "approval.wanted": _wanted,
    }  # fmt: skip


def approval(approval_id: str, name: str, risk: str, arguments: object) -> str:
    """A pending approval with its whole arguments, in one form whatever their spelling, and how to answer."""
    return "\n".join(
        [
            styled(f"{safe(name)} asks for approval, risk {safe(risk)}:", "yellow"),
            canonical(arguments),
            f"  zene approve {safe(approval_id)}    or    zene approve {safe(approval_id)} --deny",
        ]
    )


def canonical(arguments: object) -> str:
    """Arguments as JSON in ASCII with sorted names: look-alike letters and odd spellings show."""
    return json.dumps(arguments, ensure_ascii=True, sort_keys=True, indent=2)


def summary(finished: Mapping[str, Any]) -> str:
    """One line on how a task ended and what it used."""
    usage = finished.get("usage") or {}
    words = [str(finished["outcome"])]
    if error := finished.get("error"):
        words.append(f"({error['code']}: {error['message']})")
    words.append(f"{usage.get('input_tokens', 0)} tokens in, {usage.get('output_tokens', 0)} out")
    if (cost := finished.get("cost")) is not None:
        words.append(f"${cost:.4f}")
    return safe(" · ".join(words))


def _heading(item: _Item) -> str:
    if item.kind == "user_message":
        return styled("> ", "bold")
    if not item.is_call:
        return ""
    given = item.arguments if isinstance(item.arguments, dict) else {}
    if item.name == "shell" and "command" in given:
        return styled(f"$ {safe(str(given['command']))}", "cyan")
    text = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()
    )
    if len(text) > _LONGEST_ARGUMENTS:
        text = text[:_LONGEST_ARGUMENTS] + "…"
    return styled(f"{safe(item.name)}({safe(text)})", "cyan")
