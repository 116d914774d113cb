"""What the tables are made of. Times are milliseconds since 1970, booleans 0 and 1, JSON is text: nothing
is converted on the way in or out, so that statements can run on the drivers directly.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    MetaData,
    Text,
    TextClause,
    bindparam,
    or_,
    text,
)

_WHERE = "where"
_AT_ONCE = 64  # rows asked for by one statement
ANY_OF_THEM: list[BindParameter[str]] = [bindparam(f"id{n}") for n in range(_AT_ONCE)]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def identity() -> Column[str]:
    """The id, made by the caller."""
    return Column("id", Text, primary_key=True)


def words(name: str, *rest: Any, null: bool = False) -> Column[str]:
    """A column of text."""
    return Column(name, Text, *rest, nullable=null)


def number(name: str, *, null: bool = False, default: str | None = None) -> Column[int]:
    """A column of 64 bits: a count or a time."""
    return Column(name, BigInteger, nullable=null, server_default=default)


def flag(name: str) -> Column[int]:
    """A column of 0 or 1, at first 0."""
    return Column(name, Integer, nullable=False, server_default="0")


def usage() -> list[Column[Any]]:
    """What was used, as `domain.messages.Usage` has it, and what it cost in US dollars."""
    names = (
        "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens",
    )  # fmt: skip
    return [
        *(number(name, default="0") for name in names),
        flag("estimated"),
        Column("cost", Float(53)),
    ]


def partial(name: str, *columns: str | TextClause, where: str) -> Index:
    """An index of the rows for which `where` holds; a query that names the same condition may use it.

    Whoever makes it asks `for_dialect`: named here, the condition would import every dialect it is for.
    """
    return Index(name, *columns, info={_WHERE: where})


def for_dialect(index: Index, dialect: str) -> Index:
    """The index with what its dialect has to know of it."""
    if _WHERE in index.info:
        index.dialect_options[dialect]["where"] = text(index.info[_WHERE])
    return index


def one_of(column: ColumnElement[str], *values: str) -> ColumnElement[bool]:
    """Whether the column has one of these values: an IN that is compiled once and for all."""
    return or_(*(column == value for value in values))


def chunks(ids: Sequence[str]) -> Iterator[dict[str, str | None]]:
    """The parameters of statements about `ANY_OF_THEM`, as many as it takes for all ids."""
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        padded = [*some, *[None] * (_AT_ONCE - len(some))]
        yield {f"id{n}": each for n, each in enumerate(padded)}
