"""Statements and units as PostgreSQL takes them: numbered parameters, many rows as one statement.

SQLAlchemy writes the SQL once for each statement; its values go to the driver as they are, in the order
of their numbers. asyncpg prepares each SQL once for each connection.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BindParameter, Column, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import PGCompiler_asyncpg, PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.base import PGTypeCompiler
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.elements import ClauseElement

from zene.store.base import Insertion, Query, Rows, Statement, T, Unit
from zene.store.columns import for_dialect, metadata

if TYPE_CHECKING:
    from asyncpg import Connection


class Types(PGTypeCompiler):
    """Columns of text sort by their bytes, as SQLite's do and cursors need, whatever the database's language."""

    def visit_TEXT(self, type_: Any, type_expression: Any = None, **options: Any) -> str:  # noqa: D102, N802 - theirs
        sql = super().visit_TEXT(type_, **options)
        return f'{sql} COLLATE "C"' if isinstance(type_expression, Column) else str(sql)


class _Dialect(PGDialect_asyncpg):
    type_compiler_cls = Types


_DIALECT: Final = _Dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class Numbered(NamedTuple):
    """SQL, and the names of its values in the order of their numbers."""

    sql: str
    names: Sequence[str]


async def drive(connection: "Connection[Any]", unit: Unit[T], gets_on: Callable[[], None]) -> T:
    """Run a unit's statements inside the transaction that is open, telling of each answer; its result."""
    try:
        rows = await execute(connection, next(unit))
        while True:
            gets_on()
            rows = await execute(connection, unit.send(rows))
    except StopIteration as end:
        result: T = end.value
        return result


async def drive_alone(connection: "Connection[Any]", unit: Unit[T]) -> T:
    """Run a unit of one statement, which needs no transaction. Raises HasMore for one that has two."""
    try:
        rows = await execute(connection, next(unit))
        unit.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result
    unit.close()
    raise HasMore


class HasMore(Exception):
    """The unit has more than one statement."""


def compiled(statement: Statement) -> Numbered:
    """The statement for one set of values, kept for the next time."""
    made = statement.compiled["postgresql"] = _numbered(statement.expression)
    return made


def definitions() -> Iterator[str]:
    """The SQL that makes every table and index of this release."""
    for table in metadata.sorted_tables:
        yield str(CreateTable(table).compile(dialect=_DIALECT))
        for index in table.indexes:
            yield str(CreateIndex(for_dialect(index, "postgresql")).compile(dialect=_DIALECT))


async def execute(connection: "Connection[Any]", query: Query) -> Rows:
    """Run one statement; its rows."""
    statement, parameters = query
    if len(parameters) == 1:
        sql, names = statement.compiled.get("postgresql") or compiled(statement)
        values = parameters[0]
        return await connection.fetch(sql, *[text(values[name]) for name in names])
    if not isinstance(statement, Insertion):
        sql, names = statement.compiled.get("postgresql") or compiled(statement)
        await connection.executemany(
            sql, [[values[name] for name in names] for values in parameters]
        )
        return ()
    sql, names = statement.compiled.get("postgresql, many") or _compiled_for_many(statement)
    columns = ([text(values[name]) for values in parameters] for name in names)
    return await connection.fetch(sql, *columns)


def text(value: Any) -> Any:
    """The value as PostgreSQL takes it; PostgreSQL's text has no NUL, which a model may still send in the name of a call."""
    return value.replace("\0", "\ufffd") if type(value) is str and "\0" in value else value


def _compiled_for_many(statement: Insertion) -> Numbered:
    """With one array for each column."""
    columns = statement.table.columns
    arrays = [bindparam(column.name, type_=ARRAY(column.type)) for column in columns]
    rows = func.unnest(*arrays).table_valued(*columns.keys()).render_derived()
    made = _numbered(insert(statement.table).from_select(columns.keys(), select(*rows.c)))
    statement.compiled["postgresql, many"] = made
    return made


def _numbered(expression: ClauseElement) -> Numbered:
    compiler = _Compiler(_DIALECT, expression)
    return Numbered(str(compiler), tuple(compiler.positiontup or ()))


class _Compiler(PGCompiler_asyncpg):
    """Writes the values that stand in a statement into its text: a partial index is only used for those."""

    def visit_bindparam(self, bindparam: BindParameter[Any], *args: Any, **options: Any) -> str:
        options["literal_binds"] = not bindparam.required
        sql = super().visit_bindparam(bindparam, *args, **options)  # type: ignore[no-untyped-call]
        return str(sql)
