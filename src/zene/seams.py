"""Backends by URL: a scheme names a callable in a module that is imported only then.

So one machine never pays for the client libraries of a large installation, and which backends
there are stands in one table. What a backend is called with is its seam's own affair.
"""

import importlib
from collections.abc import Callable
from typing import Any, Literal

from zene.domain.errors import SetupError

Seam = Literal["bus", "store", "sandbox", "llm"]

BACKENDS: dict[Seam, dict[str, str]] = {
    "bus": {
        "memory": "zene.bus.memory:open_bus",
        "redis": "zene.bus.redis:open_bus",
        "rediss": "zene.bus.redis:open_bus",
    },
    "store": {
        "sqlite": "zene.store.sqlite:SqliteStore",
        "postgresql": "zene.store.postgres:PostgresStore",
    },
    "sandbox": {"bwrap": "zene.sandbox.bwrap:BubblewrapProvider"},
    "llm": {
        "openai": "zene.llm.openai:open_provider",
        "anthropic": "zene.llm.anthropic:open_provider",
        "demo": "zene.llm.demo:open_provider",
    },
}


def backend(seam: Seam, url: str) -> Callable[..., Any]:
    """What opens this URL. Raises SetupError for an unknown scheme and for a missing client library."""
    scheme = url.partition(":")[0]
    known = BACKENDS[seam]
    if scheme not in known:
        raise SetupError(f"No {seam} backend is called {scheme!r}. There are: {', '.join(known)}.")
    module, _, name = known[scheme].partition(":")
    try:
        opener: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] == "zene":
            raise
        extra = module.rpartition(".")[2]
        raise SetupError(
            f"{scheme}: needs the package {err.name}. Install it with: pip install 'zene[{extra}]'"
        ) from err
    return opener
