"""The one client of Zene's HTTP interface: for the command line, the tests and users' scripts.

async with AsyncClient("http://127.0.0.1:8420") as zene:
    await zene.login("me@example.org", "…")
    session = await zene.begin_session()
    task = await zene.submit(session.id, "Fix the failing test.")
    async for event in zene.follow(session.id):
        print(event.type)
"""

from zene.client.client import AsyncClient
from zene.client.connection import Connection

__all__ = ["AsyncClient", "Connection"]
