"""How a server is told to stop: by a signal, and by a second one at once.

The first Ctrl-C (or SIGTERM) lets running tasks reach a safe point; the second ends the process at once,
which loses nothing either: what was running is taken up again by another worker, or at the next start.
"""

import asyncio
import os
import signal
from functools import partial

from zene.cli import terminal


def stop_when_told(what_happens: str) -> asyncio.Event:
    """Set with the first signal, which says `what_happens`; to be called once in a process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, partial(_told, stop, loop, what_happens))
    return stop


def _told(stop: asyncio.Event, loop: asyncio.AbstractEventLoop, what_happens: str) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, os._exit, 128 + each)
    terminal.note(f"Stopping; {what_happens}. Once more to stop at once.")
    stop.set()
