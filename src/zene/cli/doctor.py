"""What this machine can do, what is missing, and the cure. Changes nothing that a running server needs."""

import asyncio
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zene.cli import terminal
from zene.cli.installation import load, store_file
from zene.cli.models import model_state
from zene.cli.terminal import Style, styled
from zene.domain.errors import SetupError, ZeneError
from zene.domain.messages import Item, SystemText, UserMessage
from zene.llm.base import Done, Request
from zene.settings import Settings
from zene.settings.folder import check_marker, marker, secret_key
from zene.store import credentials, installation, users
from zene.store.base import Store
from zene.wiring import parts
from zene.wiring.gateway import check_key
from zene.wiring.worker import probe_sandboxes, users_refused

State = Literal["ok", "weak", "missing"]

_STYLES: dict[State, Style] = {"ok": "green", "weak": "yellow", "missing": "red"}
_LITTLE_SPACE = 2 << 30  # bytes
# Each program, the package that brings it, and how it is asked for its version.
_PROGRAMS = (
    ("bwrap", "bubblewrap", "--version"),
    ("git", "git", "--version"),
    ("rg", "ripgrep", "--version"),
    ("mkfs.ext4", "e2fsprogs", "-V"),
)
_ELSEWHERE = "/usr/local/sbin:/usr/sbin:/sbin"  # where mkfs is, and an ordinary user's PATH is not


class Finding(NamedTuple):
    """One thing that was looked at. `missing` is needed, `weak` is not needed by one user alone."""

    state: State
    what: str
    told: str


async def doctor(*, call_model: bool, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Look at everything, say it, and return 1 where something needed is missing."""
    settings = load(config, overrides)
    missing = False
    async for state, what, told in _findings(settings, call_model=call_model):
        missing = missing or state == "missing"
        terminal.say(
            f"{styled(state.rjust(7), _STYLES[state])}  {what.ljust(12)} {terminal.safe(told)}"
        )
    return 1 if missing else 0


async def _findings(settings: Settings, *, call_model: bool) -> AsyncIterator[Finding]:
    yield Finding(
        "ok",
        "versions",
        f"Zene {version('zene')}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{platform.system()} {platform.release()}",
    )
    for finding in await asyncio.to_thread(_machine, settings):
        yield finding
    for look in (_store, _bus, _sandbox):
        async for finding in look(settings):
            yield finding
    for line in model_state(settings):
        yield Finding("ok", "model", line)
    if call_model:
        yield await _model_call(settings)


def _machine(settings: Settings) -> list[Finding]:
    return [_data_folder(settings.data_dir), *(_program(*each) for each in _PROGRAMS)]


def _data_folder(folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "missing", "data folder", f"{there} cannot be written; choose another with --data-dir"
        )
    free = shutil.disk_usage(there).free
    told = f"{folder}, {free / (1 << 30):.1f} GiB free"
    return Finding("ok" if free > _LITTLE_SPACE else "weak", "data folder", told)


def _program(name: str, package: str, flag: str) -> Finding:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_ELSEWHERE}")
    if path is None:
        return Finding("missing", name, f"not installed; apt install {package}")
    return Finding("ok", name, f"{path} {_version(path, flag)}")


def _version(path: str, flag: str) -> str:
    answer = subprocess.run(  # noqa: S603 - a program of this machine, and no input
        (path, flag), capture_output=True, text=True, check=False, timeout=10
    )
    found = re.search(r"\d+(\.\d+)+", answer.stdout + answer.stderr)
    return found.group() if found else ""


async def _store(settings: Settings) -> AsyncIterator[Finding]:
    file = store_file(settings)
    if file is not None and not await asyncio.to_thread(file.exists):
        yield Finding("ok", "store", f"{settings.store_shown}, made at the first start")
        return
    store = parts.open_store(settings)
    try:
        await store.check()
        count = await store.read(users.count_users)
        yield Finding("ok", "store", f"{settings.store_shown}, {terminal.counted(count, 'user')}")
        async for finding in _installation(settings, store):
            yield finding
    except ZeneError as err:
        yield Finding("missing", "store", f"{settings.store_shown}: {err.message}")
    finally:
        await store.close()


async def _installation(settings: Settings, store: Store) -> AsyncIterator[Finding]:
    """Whether folder and key are those of what is in the store. A gateway needs no folder, a worker no key."""
    name = await store.read(installation.name)
    if name is None:
        return
    folder_of = marker(settings.data_dir)
    try:
        check_marker(settings.data_dir, folder_of, name)
        yield Finding("ok", "installation", f"{name}, also the data folder's")
    except SetupError as err:
        yield Finding("weak" if folder_of is None else "missing", "installation", err.message)
    if not await store.read(credentials.list_keys):
        return
    try:
        secret_key(settings)
    except SetupError as err:
        yield Finding("weak", "key", err.message)
        return
    try:
        await check_key(settings, store)
        yield Finding("ok", "key", "opens what is sealed in the store")
    except SetupError as err:
        yield Finding("missing", "key", err.message)


async def _bus(settings: Settings) -> AsyncIterator[Finding]:
    scheme = settings.bus.partition(":")[0]
    try:
        await parts.probe_bus(settings)
        yield Finding(
            "ok",
            "bus",
            f"{scheme}://, in this process" if scheme == "memory" else f"{scheme}:// answers",
        )
    except ZeneError as err:
        yield Finding("missing", "bus", err.message)


async def _sandbox(settings: Settings) -> AsyncIterator[Finding]:
    try:
        found = await probe_sandboxes(settings)
    except ZeneError as err:
        yield Finding("missing", "sandbox", err.message)
        return
    yield Finding(
        "ok", "sandbox", f"{settings.sandbox} enforces {', '.join(sorted(found.enforced))}"
    )
    for cap, reason in sorted(found.missing.items()):
        yield Finding("weak", cap, f"not enforced: {reason}")
    if refusal := users_refused(settings, found):
        yield Finding("weak", "users", refusal)


async def _model_call(settings: Settings) -> Finding:
    model = parts.open_model(settings, settings.model)
    items = [
        Item(id="itm_0", task_id="tsk_0", step=0, content=SystemText("You are being tested.")),
        Item(
            id="itm_1", task_id="tsk_0", step=0, content=UserMessage("Answer with the word ready.")
        ),
    ]
    request = Request(model=model.info.name, items=items, max_output_tokens=1024)
    try:
        async for output in model.stream(request):
            if isinstance(output, Done):
                return Finding(
                    "ok", "model call", f"{settings.model} answered ({output.stop_reason})"
                )
    except ZeneError as err:
        return Finding("missing", "model call", err.message)
    finally:
        await model.close()
    return Finding("missing", "model call", f"{settings.model} ended without an answer")
