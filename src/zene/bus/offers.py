"""How one of many workers is chosen for a request: all are asked, those that answer are compared.

No list of workers is kept that could be out of date: who is dead does not answer, and who holds a workspace
says so from its own memory.
"""

import asyncio
from hashlib import sha256

from msgspec import Struct

from zene.bus.asking import too_many

OFFER_SECONDS = 0.1  # how long all who were asked are waited for, once one has answered


class Ask(Struct, frozen=True, array_like=True, tag=True):
    """To every worker, from the side `transfer`: who can answer something about this?"""

    transfer: str
    about: str
    inbox: bytes


class Offer(Struct, frozen=True, array_like=True, tag=True):
    """The worker with that inbox can, or is full."""

    transfer: str
    inbox: bytes
    holds: bool
    is_full: bool


class Begin(Struct, frozen=True, array_like=True, tag=True):
    """To the one that was chosen."""

    transfer: str
    inbox: bytes
    request: bytes


class Offers:
    """The answers to one Ask."""

    def __init__(self) -> None:
        self._offers: list[Offer] = []
        self._came = asyncio.Event()

    def add(self, offer: Offer) -> None:
        """One has answered."""
        self._offers.append(offer)
        self._came.set()

    async def come(self, asked: int) -> None:
        """Wait until one that holds it has answered, or all that were asked, or those that are quick; without an end
        where none answers.
        """
        await self._came.wait()
        try:
            async with asyncio.timeout(OFFER_SECONDS):
                while len(self._offers) < asked and not any(o.holds for o in self._offers):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            return

    def best(self, about: str) -> Offer:
        """Who holds it, else the same for everyone who asks about this. Raises Unavailable where all are full."""
        best = min(self._offers, key=lambda o: (not o.holds, o.is_full, _place(about, o)))
        if best.is_full:
            raise too_many()
        return best


def _place(about: str, offer: Offer) -> bytes:
    return sha256(about.encode() + offer.inbox).digest()
