"""How a build is broken: a function that is another, a statement that says something else."""

import sys
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

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
