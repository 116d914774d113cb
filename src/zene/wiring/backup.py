"""Copying an installation while it runs, and making one from a copy.

The store is read first, as of one moment, and the files after it. So the files are never older than what
the store says of them: what an agent did in between is there, its call has no result, and the one who goes
on with the task is told that it may have run.
"""

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from zene.domain.errors import SetupError
from zene.settings import Settings
from zene.settings.folder import (
    KEY,
    check_restored,
    claimed,
    mark,
    marker,
    prepared,
    restoring,
)
from zene.store import claims, copying, installation, jobs
from zene.store.base import Rows, Store
from zene.store.schema import REVISION
from zene.wiring.gateway import check_key
from zene.wiring.installation import found
from zene.wiring.parts import opened_store
from zene.workspaces.backup import copy_files, put_back

_MANIFEST, _ROWS, _FILES = "backup.json", "store", "files"
_FOLLOWED = {"sessions", "projects"}  # tables whose rows have files


class Manifest(Struct, frozen=True, kw_only=True):
    """What a backup is of. It is written last: a folder without one is no backup."""

    release: str
    revision: str
    installation: str
    made_at_ms: int
    rows: dict[str, int]
    has_key: bool


async def backup(settings: Settings, folder: Path) -> Manifest:
    """Copy the installation into a new folder, beside whatever runs. Raises SetupError, ZeneError."""
    async with opened_store(settings) as store:
        name = await found(store)
        if marker(settings.data_dir) != name:
            raise SetupError(
                f"{settings.data_dir} is not this installation's data folder; set ZENE_DATA_DIR."
            )
        _make(folder)
        rows = _Rows(folder / _ROWS)
        try:
            await store.read(copying.export, rows.begin)
        finally:
            rows.close()
    await asyncio.to_thread(
        copy_files,
        settings.data_dir,
        folder / _FILES,
        sessions=rows.ids["sessions"],
        projects=rows.ids["projects"],
    )
    has_key = (settings.data_dir / KEY).exists() and not settings.secret_key
    if has_key:
        shutil.copy2(settings.data_dir / KEY, folder)
    manifest = Manifest(
        release=version("zene"),
        revision=REVISION,
        installation=name,
        made_at_ms=_now_ms(),
        rows=dict(rows.counts),
        has_key=has_key,
    )
    (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


async def restore(settings: Settings, folder: Path) -> str:
    """Make a new installation from a backup, in an empty store and an empty data folder; its id. Nothing on
    a bus that was the old one's means anything to it. Raises SetupError.
    """
    manifest = _manifest(folder)
    if marker(settings.data_dir) is not None:
        raise SetupError(f"{settings.data_dir} belongs to an installation already. Name a new one.")
    if not (manifest.has_key or settings.secret_key):
        raise SetupError(
            "This backup has no key: its installation had ZENE_SECRET_KEY. Set it to the same."
        )
    check_restored(settings.data_dir)
    with claimed(prepared(settings.data_dir)):
        async with opened_store(settings) as store:
            await store.migrate()
            if await store.read(copying.is_used):
                raise SetupError(
                    f"{settings.store_shown} is not empty. Restore into a new database; what an earlier try "
                    "left has to go, too."
                )
            with restoring(settings.data_dir):
                name = await _restored(settings, store, folder, manifest)
    return name


async def _restored(settings: Settings, store: Store, folder: Path, manifest: Manifest) -> str:
    await _load(store, folder / _ROWS)
    await asyncio.to_thread(put_back, folder / _FILES, settings.data_dir)
    if manifest.has_key:
        shutil.copy2(folder / KEY, settings.data_dir)
    await check_key(settings, store)
    await store.write(copying.settle_anywhere)
    await store.write(claims.take_over_all, now=_now_ms())
    await store.write(jobs.take_over_jobs, now=_now_ms())
    name = await store.write(installation.named, secrets.token_hex(8), _now_ms())
    mark(settings.data_dir, name)
    return name


class _Rows:
    """The rows of one attempt to read them all, each table in a file of its own: a line of columns, then a
    line a row.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self.counts: dict[str, int] = {}
        self.ids: dict[str, list[str]] = {}

    def begin(self) -> Callable[[str, Rows], None]:
        """Forget what an earlier attempt got."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        self.counts = dict.fromkeys(copying.COLUMNS, 0)
        self.ids = {table: [] for table in _FOLLOWED}
        return self._take

    def close(self) -> None:
        """Twice is harmless."""
        while self._files:
            _, file = self._files.popitem()
            file.close()

    def _take(self, table: str, rows: Rows) -> None:
        if table not in self._files:
            self._files[table] = (self._folder / f"{table}.jsonl").open("wb")
            self._files[table].write(msgspec.json.encode(copying.COLUMNS[table]) + b"\n")
        self._files[table].writelines(msgspec.json.encode(tuple(row)) + b"\n" for row in rows)
        self.counts[table] += len(rows)
        if table in _FOLLOWED:
            place = copying.COLUMNS[table].index("id")
            self.ids[table] += [row[place] for row in rows]


async def _load(store: Store, folder: Path) -> None:
    for table, columns in copying.COLUMNS.items():
        path = folder / f"{table}.jsonl"
        if table == "installation" or not path.exists():
            continue
        with path.open("rb") as lines:
            if tuple(msgspec.json.decode(next(lines))) != columns:
                raise SetupError(f"{path.name} is of another schema, or damaged.")
            rows = []
            for line in lines:
                rows.append(msgspec.json.decode(line))
                if len(rows) == copying.PAGE:
                    await store.write(copying.load, table, rows)
                    rows = []
            await store.write(copying.load, table, rows)


def _manifest(folder: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as err:
        raise SetupError(
            f"{folder} is no whole backup: {_MANIFEST}, which is written last, cannot be read ({err})."
        ) from err
    if manifest.revision != REVISION:
        raise SetupError(
            f"The backup has schema {manifest.revision}, and this release {REVISION}. Restore it with release "
            f"{manifest.release}, and bring it here with `zene migrate`."
        )
    return manifest


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as err:
        raise SetupError(f"Cannot make {folder} for the backup: {err.strerror}.") from err


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
