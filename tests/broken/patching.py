"""How a build is broken: a function that is another, a statement that says something else."""

import sys
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from sqlalchemy import BindParameter
from sqlalchemy.sql.visitors import iterate

from zene.store.connections import compiled

Break = Callable[[], None]


def becomes(place: str, make: Callable[[Any], Any]) -> Break:
    """Put what `make` makes of the original in its place, `module:name` or `module:Class.name`, and wherever
    that was imported.
    """

    def breaks() -> None:
        owner_name, _, name = place.replace(":", ".").rpartition(".")
        owner = resolve_name(owner_name)
        original = getattr(owner, name)
        broken = make(original)
        setattr(owner, name, broken)
        for module in list(sys.modules.values()):
            if vars(module).get(name) is original:
                setattr(module, name, broken)

    return breaks


def is_left_out(place: str, *, answer: object = None) -> Break:
    """An async function that does nothing."""

    async def nothing(*_: object, **__: object) -> object:
        return answer

    return becomes(place, lambda _: nothing)


def says(place: str, words: str, instead: str = "") -> Break:
    """A store's statement with other words in its SQL."""

    def breaks() -> None:
        statement = resolve_name(place)
        sql = compiled(statement)
        assert words in sql, f"{place} does not say {words!r}: {sql}"
        statement.compiled["sqlite"] = sql.replace(words, instead)

    return breaks


def forgets(place: str, parameter: str) -> Break:
    """A store's UPDATE without the condition that names the parameter, whatever the database."""

    def breaks() -> None:
        statement = resolve_name(place)
        conditions = statement.expression._where_criteria
        kept = [one for one in conditions if parameter not in _parameters(one)]
        assert len(kept) == len(conditions) - 1, f"{place} has no condition on {parameter}"
        forgetful = statement.expression._generate()
        forgetful._where_criteria = tuple(kept)
        statement.expression = forgetful
        statement.compiled.clear()

    return breaks


def together(*breaks: Break) -> Break:
    """Where several things keep a promise, all of them broken."""

    def all_of_them() -> None:
        for one in breaks:
            one()

    return all_of_them


def _parameters(condition: Any) -> set[str]:
    return {each.key for each in iterate(condition) if isinstance(each, BindParameter)}
