"""The whole store as rows, from one snapshot, for a backend of any kind to take up again."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Table, bindparam, select, tuple_, update

from zene.store.base import Insertion, Row, Rows, Statement, Unit
from zene.store.columns import metadata
from zene.store.schema import sessions

PAGE = 500  # rows that are held at once

Take = Callable[[str, Rows], None]


class _Copied(Struct, frozen=True):
    """How one table is read page by page, in the order of its key, and written again."""

    columns: tuple[str, ...]
    key: tuple[int, ...]  # which of the columns
    first: Statement
    next: Statement
    insert: Insertion


def _copied(table: Table) -> _Copied:
    key = list(table.primary_key)
    columns = [str(column.name) for column in table.columns]
    page = select(table).order_by(*key).limit(PAGE)
    last = tuple_(*(bindparam(f"last{n}", type_=column.type) for n, column in enumerate(key)))
    return _Copied(
        columns=tuple(columns),
        key=tuple(columns.index(column.name) for column in key),
        first=Statement(page),
        next=Statement(page.where(tuple_(*key) > last)),
        insert=Insertion(table),
    )


# Whatever a row names comes before it.
_TABLES = {table.name: _copied(table) for table in metadata.sorted_tables}
COLUMNS = {name: copied.columns for name, copied in _TABLES.items()}
_SETTLE_ANYWHERE = Statement(update(sessions).values(home=None))


def export(begin: Callable[[], Take]) -> Unit[None]:
    """Hand every row of one moment to what `begin` returns, table by table, in an order in which they can be
    loaded again. `begin` is called anew for another attempt, and then forgets what it got.
    """
    take = begin()
    for name, copied in _TABLES.items():
        rows = yield copied.first()
        while rows:
            take(name, rows)
            last = {f"last{n}": rows[-1][place] for n, place in enumerate(copied.key)}
            rows = yield copied.next(**last)


def load(name: str, rows: Sequence[Row]) -> Unit[None]:
    """Write some rows of a table again. Raises KeyError for a table that this release does not have."""
    copied = _TABLES[name]
    values: list[dict[str, Any]] = [dict(zip(copied.columns, row, strict=True)) for row in rows]
    if values:
        yield copied.insert.many(values)


def settle_anywhere() -> Unit[None]:
    """Let whichever worker claims a session next be at its home: it was copied to another place."""
    yield _SETTLE_ANYWHERE()


def is_used() -> Unit[bool]:
    """Whether any table has a row."""
    for copied in _TABLES.values():
        if (yield copied.first()):
            return True
    return False
