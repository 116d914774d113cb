"""What is known of a model: its window and prices, from the list shipped with Zene and the settings.

The list is made from genai-prices by `scripts/price_list.py`. Its prices are the standard ones: a
surcharge on very long inputs or a discount for batches is not in the cost that is shown.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from msgspec import Struct
from msgspec.json import decode

from zene.domain.messages import Usage
from zene.llm.base import ModelInfo

UNKNOWN_WINDOW = 128_000  # tokens; most models that are served today have that or more
OUTPUT_CAP = 16_384  # tokens
_MILLION = 1_000_000


class Given(Struct, frozen=True, kw_only=True):
    """What the settings say of a model; it goes before the list. Prices in US dollars per million tokens."""

    window: int | None = None
    output_cap: int = OUTPUT_CAP
    input_price: float | None = None
    cached_price: float | None = None
    cache_write_price: float | None = None
    output_price: float | None = None


class _Model(Struct, frozen=True):
    match: str
    window: int | None = None
    input: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    output: float | None = None


class _Vendor(Struct, frozen=True):
    id: str
    url: str
    models: list[_Model]


class _List(Struct, frozen=True):
    as_of: str
    vendors: list[_Vendor]


def model_info(
    provider: str, model: str, *, url: str = "", given: Given | None = None
) -> ModelInfo:
    """What is known of a model at an address; `known` is False where neither list nor settings have it.

    The vendor whose address `url` is counts first, then the one that `provider` is called after, since
    a proxy in front of it serves the same models.
    """
    given = given or Given()
    listed = _listed(provider, model, url)
    found = listed or _Model("")
    return ModelInfo(
        name=model,
        window=given.window or found.window or UNKNOWN_WINDOW,
        output_cap=given.output_cap,
        known=listed is not None or given.window is not None,
        input_price=_first(given.input_price, found.input),
        cached_price=_first(given.cached_price, found.cached),
        cache_write_price=_first(given.cache_write_price, found.cache_write),
        output_price=_first(given.output_price, found.output),
    )


def cost(usage: Usage, info: ModelInfo) -> float | None:
    """What a usage costs in US dollars; None where a price is not known.

    Cached and cache-written tokens without a price of their own cost what other input does.
    """
    if info.input_price is None or info.output_price is None:
        return None
    cached_price = _first(info.cached_price, info.input_price) or 0.0
    write_price = _first(info.cache_write_price, info.input_price) or 0.0
    fresh = max(usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
    return (
        fresh * info.input_price
        + usage.cached_tokens * cached_price
        + usage.cache_write_tokens * write_price
        + usage.output_tokens * info.output_price
    ) / _MILLION


def _listed(provider: str, model: str, url: str) -> _Model | None:
    for vendor in _vendors(provider, url):
        for listed in vendor.models:
            if re.match(listed.match, model.lower()):
                return listed
    return None


def _vendors(provider: str, url: str) -> Iterator[_Vendor]:
    vendors = _list().vendors
    yield from (vendor for vendor in vendors if re.match(vendor.url, url))
    yield from (vendor for vendor in vendors if vendor.id == provider)


@cache
def _list() -> _List:
    return decode((files("zene.llm") / "prices.json").read_bytes(), type=_List)


def _first(given: float | None, listed: float | None) -> float | None:
    return listed if given is None else given
