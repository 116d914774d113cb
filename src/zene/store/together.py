"""Units side by side in one transaction: each statement is run once for all that have come to it.

A round trip costs the worker and the server more than most statements do. So a statement that many units wait
for goes to the server as one, which holds it several times, each with the values of one unit and its plan as it
is by itself, and says with each row whose it is.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zene.store.base import Insertion, Query, Row, Rows, Statement, Unit
from zene.store.lanes import Work
from zene.store.numbered import Numbered, compiled, execute, text

if TYPE_CHECKING:
    from asyncpg import Connection

MOST = 16  # units
_VALUE = re.compile(r"\$(\d+)")


class _Run:
    """A unit on its way: what it waits for, after how many statements, and its result once it is over."""

    __slots__ = ("done", "is_over", "query", "result", "unit", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.unit: Unit[Any] = work.begin()
        self.query: Query = next(self.unit)
        self.done = 0
        self.is_over = False
        self.result: Any = None

    def go_on(self, rows: Rows) -> None:
        """Give it the rows that it waits for."""
        self.done += 1
        try:
            self.query = self.unit.send(rows)
        except StopIteration as end:
            self.is_over, self.result = True, end.value

    def leave(self) -> None:
        """Nothing more of it is run here."""
        self.is_over = True
        self.unit.close()


async def drive_together(connection: "Connection[Any]", works: Sequence[Work]) -> dict[Work, Any]:
    """Run the units inside the transaction that is open; their results. Missing are those whose first statement
    found nothing, or only what somebody else holds: they have done nothing.
    """
    runs = going = [_Run(work) for work in works]
    while going:
        # Those that are behind catch up first, so that as many as possible meet.
        behind = min(going, key=_done)
        met = [run for run in going if run.query.statement is behind.query.statement]
        answers = await _answers(connection, [run.query for run in met], begins=not behind.done)
        for work in works:
            work.gets_on()
        for run, rows in zip(met, answers, strict=True):
            if run.done or rows:
                run.go_on(rows)
            else:
                run.leave()
        going = [run for run in going if not run.is_over]
    return {run.work: run.result for run in runs if run.done}


def _done(run: _Run) -> int:
    return run.done


async def _answers(
    connection: "Connection[Any]", queries: Sequence[Query], *, begins: bool
) -> list[Rows]:
    """The rows of each, of one statement; of one that begins units, only what nobody else holds."""
    statement = queries[0].statement
    parameters = [each for query in queries for each in query.parameters]
    if isinstance(statement, Insertion):
        await execute(connection, Query(statement, parameters))
        return [()] * len(queries)
    if len(parameters) > len(queries):
        return [await execute(connection, query) for query in queries]
    found: list[Rows] = []
    while (left := len(parameters) - len(found)) > 0:
        some = 1 << (left.bit_length() - 1)  # of few sizes, so that few plans are made
        found += await _found(
            connection, statement, parameters[len(found) : len(found) + some], begins=begins
        )
    return found


async def _found(
    connection: "Connection[Any]",
    statement: Statement,
    parameters: Sequence[Mapping[str, Any]],
    *,
    begins: bool,
) -> list[Rows]:
    name = f"postgresql, {len(parameters)}{', free' if begins else ''}"
    sql, names = statement.compiled.get(name) or _compiled(
        statement, name, len(parameters), begins=begins
    )
    rows = await connection.fetch(
        sql, *[text(values[each]) for values in parameters for each in names]
    )
    if len(parameters) == 1:
        return [rows]
    found: list[list[Row]] = [[] for _ in parameters]
    for nth, *row in rows:
        found[nth].append(row)
    return [*found]


def _compiled(statement: Statement, name: str, times: int, *, begins: bool) -> Numbered:
    """The statement so many times over, kept for the next time."""
    sql, names = compiled(statement)
    if begins:
        if " FOR NO KEY UPDATE" not in sql:
            message = f"A unit that shares a transaction begins with a lock: {sql}"
            raise TypeError(message)
        sql += " SKIP LOCKED"
    if times > 1:
        parts = [f"q{nth} AS ({_shifted(sql, nth * len(names))})" for nth in range(times)]
        has_rows = sql.startswith("SELECT") or " RETURNING " in sql
        rows = [f"SELECT {nth} AS nth, q{nth}.* FROM q{nth}" for nth in range(times)]  # noqa: S608 - our own SQL, values apart
        sql = f"WITH {', '.join(parts)} {' UNION ALL '.join(rows) if has_rows else 'SELECT WHERE false'}"
    made = statement.compiled[name] = Numbered(sql, names)
    return made


def _shifted(sql: str, by: int) -> str:
    return _VALUE.sub(lambda value: f"${int(value[1]) + by}", sql)
