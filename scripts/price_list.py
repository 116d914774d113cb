#!/usr/bin/env python
"""Writes `src/zene/llm/prices.json` from the genai-prices package: run it after that package was updated.

Zene ships the numbers it needs instead of the package, whose import costs 0.3 s of start-up and 7 MB. The
list has no other prices than standard ones, without the surcharge some models have on very long inputs.
"""

import json
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

from genai_prices import data, types

TARGET = Path(__file__).parent.parent / "src" / "zene" / "llm" / "prices.json"
# Those whose own servers speak one of Zene's wire formats.
VENDORS = [
    "anthropic",
    "openai",
    "azure",
    "cerebras",
    "cohere",
    "deepseek",
    "fireworks",
    "google",
    "groq",
    "minimax",
    "mistral",
    "moonshotai",
    "together",
    "x-ai",
    "zai",
]


def price_list(as_of: date) -> dict[str, Any]:
    """The list as of a day: for each vendor the pattern of its addresses, and its models in order."""
    vendors = {vendor.id: vendor for vendor in data.providers}
    return {
        "as_of": as_of.isoformat(),
        "vendors": [
            {
                "id": name,
                "url": vendors[name].api_pattern,
                "models": [_model(model, as_of) for model in vendors[name].models],
            }
            for name in VENDORS
        ],
    }


def _model(model: types.ModelInfo, as_of: date) -> dict[str, Any]:
    prices = _in_force(model, as_of)
    known = {
        "window": model.context_window,
        "input": _base(prices.input_mtok),
        "cached": _base(prices.cache_read_mtok),
        "cache_write": _base(prices.cache_write_mtok),
        "output": _base(prices.output_mtok),
    }
    present = {name: value for name, value in known.items() if value is not None}
    return {"match": _pattern(model.match), **present}


def _in_force(model: types.ModelInfo, as_of: date) -> types.ModelPrice:
    """The latest price that holds all day."""
    if isinstance(model.prices, types.ModelPrice):
        return model.prices
    for conditional in reversed(model.prices):
        match conditional.constraint:
            case None:
                return conditional.prices
            case types.StartDateConstraint(start_date=start) if start <= as_of:
                return conditional.prices
            case _:
                pass
    return model.prices[0].prices


def _base(price: Any) -> float | None:
    base = price.base if isinstance(price, types.TieredPrices) else price
    return None if base is None else float(base)


def _pattern(logic: types.MatchLogic) -> str:
    """A regular expression that matches, from its beginning, the names that the logic does."""
    match logic:
        case types.ClauseEquals(equals=text):
            pattern = rf"{re.escape(text)}\Z"
        case types.ClauseStartsWith(starts_with=text):
            pattern = re.escape(text)
        case types.ClauseEndsWith(ends_with=text):
            pattern = rf".*{re.escape(text)}\Z"
        case types.ClauseContains(contains=text):
            pattern = f".*{re.escape(text)}"
        case types.ClauseRegex(regex=regex):
            pattern = f".*(?:{regex})"
        case types.ClauseOr(or_=clauses):
            pattern = f"(?:{'|'.join(map(_pattern, clauses))})"
        case types.ClauseAnd(and_=clauses):
            pattern = "".join(f"(?={_pattern(clause)})" for clause in clauses)
        case _:
            raise TypeError(f"a way of matching that is not known here: {logic!r}")
    return pattern.replace("\\-", "-")


def text(as_of: date) -> str:
    """The file's content: a model a line, so that a change can be read."""
    prices = price_list(as_of)
    lines = []
    for vendor in prices["vendors"]:
        models = ",\n".join(f"  {json.dumps(model)}" for model in vendor["models"])
        head = f'"id": {json.dumps(vendor["id"])}, "url": {json.dumps(vendor["url"])}'
        lines.append(f' {{{head}, "models": [\n{models}\n ]}}')
    body = ",\n".join(lines)
    return f'{{"as_of": "{prices["as_of"]}", "vendors": [\n{body}\n]}}\n'


def main() -> None:
    """Write the list as of the day given, or today."""
    as_of = date.fromisoformat(sys.argv[1]) if len(sys.argv) > 1 else date.today()  # noqa: DTZ011
    TARGET.write_text(text(as_of))


if __name__ == "__main__":
    main()
