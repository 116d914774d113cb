"""What every process of an installation opens by the same settings: store, bus and models."""

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from zene.domain.errors import SetupError
from zene.seams import backend
from zene.settings import Settings
from zene.settings.folder import prepared
from zene.store.base import Store
from zene.telemetry.metrics import Registry

if TYPE_CHECKING:
    from zene.bus.base import Bus
    from zene.llm.base import Provider


class Shared(Struct, frozen=True, kw_only=True):
    """What gateway and worker of one process share."""

    store: Store
    bus: "Bus"
    registry: Registry


def open_store(settings: Settings) -> Store:
    """The store; to be migrated or checked before use, and closed."""
    if settings.store is None:
        prepared(settings.data_dir)
    store: Store = backend("store", settings.store_url)(settings.store_url)
    return store


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncGenerator[Store, None]:
    """As `open_store`, and closed at the end."""
    store = open_store(settings)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def started_bus(settings: Settings, installation_id: str) -> AsyncGenerator["Bus", None]:
    """The installation's bus, started, and closed at the end. Raises SetupError."""
    bus: Bus = backend("bus", settings.bus)(settings.bus, installation_id)
    try:
        await bus.start()
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def metrics(settings: Settings, store: Store) -> AsyncGenerator[Registry, None]:
    """What this process counts, told at its `/metrics`."""
    from zene.store.census import CensusMeters  # noqa: PLC0415
    from zene.telemetry.listener import metrics_served  # noqa: PLC0415

    registry = Registry()
    CensusMeters(registry, store, clock=lambda: time.time_ns() // 1_000_000)
    async with metrics_served(registry, host=settings.metrics_host, port=settings.metrics_port):
        yield registry


async def probe_bus(settings: Settings) -> None:
    """See whether the bus can be used, beside a server that may be running. Raises SetupError."""
    async with started_bus(settings, f"probe-{os.getpid()}"):
        pass


def check_shared(settings: Settings) -> None:
    """Raise SetupError where the settings are those of one process, and several are wanted."""
    if settings.bus.startswith("memory:"):
        raise SetupError(
            "Gateways and workers of their own find each other over Redis: set ZENE_BUS=redis://… for "
            "all of them. In one process, without Redis, both run as `zene up`."
        )


def open_model(settings: Settings, name: str) -> "Provider":
    """The model of that name, for any number of calls; to be closed. Raises SetupError."""
    from zene.llm import pricing  # noqa: PLC0415
    from zene.llm.http import Endpoint  # noqa: PLC0415
    from zene.llm.retry import Persistent  # noqa: PLC0415

    model = settings.named(name)
    given = pricing.Given(
        window=model.window,
        output_cap=model.max_output_tokens or settings.max_output_tokens,
        input_price=model.input_price,
        cached_price=model.cached_price,
        cache_write_price=model.cache_write_price,
        output_price=model.output_price,
    )
    info = pricing.model_info(model.provider, model.model or name, url=model.url or "", given=given)
    key = model.api_key.reveal() if model.api_key else ""
    endpoint = Endpoint(base_url=model.url or "", api_key=key, api=model.api or "")
    provider: Provider = backend("llm", model.provider)(info, endpoint)
    return Persistent(provider, uniform=random.uniform, sleep=asyncio.sleep)
