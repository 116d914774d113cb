"""Runs this package's own scripts in sandboxes of their own, so that no user's bytes are parsed on the host.

A script is one file of plain Python (`inside_*.py`) that is sent as text. It gets its options as JSON in
its first argument and answers with one line of JSON, after which raw bytes may follow.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from zene.domain.errors import InvalidInput, TooLarge, Unavailable, ZeneError
from zene.sandbox.base import Command, Exit, Output, Provider, Spec

_T = TypeVar("_T")
_REFUSALS = {413: TooLarge, 415: InvalidInput, 422: InvalidInput}
_STDERR_KEPT = 2000

# git as it must be where its input is hostile: no configuration, hook, filter or attribute but these.
GIT = (
    "git",
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.fsync=none"),
    *("-c", "core.autocrlf=false", "-c", "core.safecrlf=false", "-c", "core.quotePath=true"),
    *("-c", "core.untrackedCache=false", "-c", "core.excludesFile=/dev/null"),
    *("-c", "core.attributesFile=/dev/null", "-c", "core.compression=1", "-c", "gc.auto=0"),
    *("-c", "safe.directory=*", "-c", "protocol.allow=never", "-c", "core.pager=cat"),
)
GIT_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "zene",
    "GIT_AUTHOR_EMAIL": "zene@localhost",
    "GIT_COMMITTER_NAME": "zene",
    "GIT_COMMITTER_EMAIL": "zene@localhost",
}
# Of the highest precedence, so that no .gitattributes of a workspace changes what is stored or shown.
ATTRIBUTES = "* -text -ident !eol !crlf !filter !working-tree-encoding !diff !whitespace\n"


class Refusal(Struct, frozen=True):
    """Why a script did not do what was asked."""

    status: int
    code: str
    message: str


class _Answer(Struct, frozen=True):
    ok: Raw = Raw()
    refused: Refusal | None = None


class Script(Struct, frozen=True, kw_only=True):
    """What to run: modules of this package, each after those it imports, the last one run as the program."""

    modules: tuple[str, ...]
    options: Mapping[str, Any]
    timeout_seconds: float
    output_limit: int = 1 << 20
    stdin: AsyncIterable[bytes] | None = None


async def run(provider: Provider, spec: Spec, script: Script, answer: type[_T]) -> tuple[_T, bytes]:
    """The script's answer and the bytes after it; the sandbox is gone when this returns.

    Raises TooLarge or InvalidInput as the script refuses, Unavailable when it fails or takes too long.
    """
    sandbox = await provider.open(spec)
    try:
        return _parsed(await _collect(sandbox.run(_command(script))), answer)
    finally:
        await sandbox.close()


def _command(script: Script) -> Command:
    options = {
        **script.options,
        "git": GIT,
        "environment": GIT_ENVIRONMENT,
        "attributes": ATTRIBUTES,
    }
    return Command(
        argv=(
            *("/usr/bin/python3", "-I", "-S", "-c", _program(script.modules)),
            msgspec.json.encode(options).decode(),
        ),
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        timeout_seconds=script.timeout_seconds,
        output_limit=script.output_limit,
        split=True,
        stdin=script.stdin,
    )


@cache
def _program(modules: tuple[str, ...]) -> str:
    """One text that makes the modules importable under the names they have here, then runs the last."""
    package = "zene.workspaces"
    texts = {
        f"{package}.{name}": files(package).joinpath(f"{name}.py").read_text("utf-8")
        for name in modules
    }
    return (
        f"import sys, types\nlast = {package + '.' + modules[-1]!r}\n"
        f"for name, text in {texts!r}.items():\n"
        "    module = types.ModuleType('__main__' if name == last else name)\n"
        "    sys.modules[name] = module\n"
        "    exec(compile(text, name, 'exec'), module.__dict__)\n"
    )


class _Said(Struct):
    out: bytearray
    err: bytearray
    exit: Exit | None = None


async def _collect(outputs: AsyncGenerator[Output | Exit, None]) -> _Said:
    said = _Said(bytearray(), bytearray())
    async with aclosing(outputs):
        async for output in outputs:
            if isinstance(output, Exit):
                said.exit = output
            elif output.stream == 1:
                said.out += output.data
            elif len(said.err) < _STDERR_KEPT:
                said.err += output.data[:_STDERR_KEPT]
    return said


def _parsed(said: _Said, answer: type[_T]) -> tuple[_T, bytes]:
    end = said.exit
    if end is None or end.timed_out or end.out_of_memory or end.dropped_bytes:
        raise Unavailable("this took more time or memory than it may", code="workspace_too_much")
    line, _, rest = bytes(said.out).partition(b"\n")
    try:
        told = msgspec.json.decode(line, type=_Answer)
        if told.refused is not None:
            raise _refused(told.refused)
        return msgspec.json.decode(told.ok, type=answer), rest
    except msgspec.DecodeError as err:
        why = ascii(bytes(said.err[-_STDERR_KEPT:]).decode(errors="replace"))
        raise Unavailable(
            f"the workspace could not be worked on: {why}", code="workspace_tool_failed"
        ) from err


def _refused(refusal: Refusal) -> ZeneError:
    kind = _REFUSALS.get(refusal.status, InvalidInput)
    status = refusal.status if refusal.status in _REFUSALS else None
    return kind(refusal.message[:1000], code=refusal.code[:40], status=status)
