"""Which calls a person must allow, and how such a call is shown so that nothing of it can hide.

The summary is made of the arguments as they were decoded, which is what is executed, not of the text
that the model sent: of a key that stands there twice it shows the one that counts.
"""

import re
import unicodedata
from typing import Any, Literal

import msgspec
from msgspec import Struct

from zene.domain.approvals import arguments_hash
from zene.domain.messages import ToolCall
from zene.domain.sessions import ApprovalPolicy
from zene.tools.base import Tool
from zene.tools.text import shortened

SUMMARY_LIMIT = 8000  # characters; the arguments themselves stand beside it, whole
_RUN = re.compile(r"(.)\1{15,}", re.DOTALL)
_SPOOFING = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def needs_approval(policy: ApprovalPolicy, tool: Tool[Any], rules: frozenset[str]) -> bool:
    """Whether a person must allow this tool's calls in a session of that policy and those rules."""
    if policy == "auto" or tool.name in rules:
        return False
    return policy == "ask_always" or not tool.read_only


def risk(tool: Tool[Any]) -> Literal["low", "medium", "high"]:
    """What a call can do at worst: read, change files, or whatever the sandbox lets a program do."""
    if tool.read_only:
        return "low"
    return "medium" if tool.kind == "file_change" else "high"


def summary(call: ToolCall, arguments: Struct) -> str:
    """One line: the tool, each argument in full and escaped, and the hash that a decision is bound to."""
    values = msgspec.to_builtins(arguments)
    shown = ", ".join(f"{name}={escaped(str(value))}" for name, value in values.items())
    digest = arguments_hash(call.name, call.arguments)
    return f"{call.name}({shortened(shown, SUMMARY_LIMIT)}) sha256:{digest}"


def escaped(text: str) -> str:
    """The text in quotes on one line, with everything visible: controls, bidirectional and invisible
    characters by number, long runs of one character by their length.
    """
    packed = _RUN.sub(lambda run: f"⟨{ord(run[1]):#04x} times {len(run[0])}⟩", text)
    return '"' + "".join(map(_visible, packed)) + '"'


def _visible(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    if character.isprintable() and unicodedata.category(character) not in _SPOOFING:
        return character
    return f"\\u{{{ord(character):x}}}"
