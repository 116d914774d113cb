"""Starting the server, and bringing its database up to date.

The first Ctrl-C (or SIGTERM) lets running tasks reach a safe point; the second ends the process at once,
which loses nothing either: what was running is taken up again at the next start.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zene import wiring
from zene.cli import terminal
from zene.cli.installation import load, opened
from zene.cli.terminal import styled
from zene.settings import Settings


async def up(*, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Serve until a signal says to stop. Raises SetupError where that cannot be done here."""
    settings = load(config, overrides)
    serving = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, partial(_stop, serving, loop, each))
    try:
        await wiring.serve(settings, ready=partial(_greet, settings))
    except asyncio.CancelledError:
        terminal.note("Zene has stopped.")
    return 0


async def migrate(*, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Bring the schema to this release's; an existing SQLite database is copied first."""
    settings = load(config, overrides)
    async with opened(settings):
        terminal.say(f"{settings.store_shown} has this release's schema.")
    return 0


def _stop(
    serving: asyncio.Task[Any] | None, loop: asyncio.AbstractEventLoop, number: signal.Signals
) -> None:
    """Stop serving cleanly; the same signal again ends the process."""
    loop.add_signal_handler(number, os._exit, 128 + number)
    terminal.note("Stopping; running tasks are handed over. Once more to stop at once.")
    if serving is not None:
        serving.cancel()


def _greet(settings: Settings, ready: wiring.Ready) -> None:
    """Say where it runs, how to sign in, and what does not work as it should."""
    terminal.say(styled(f"Zene is ready at {ready.url}", "bold"))
    if ready.first_password:
        terminal.say(
            f"  Sign in as {settings.admin_email} with the one-time password {ready.first_password}"
        )
    terminal.say("  First task: zene login " + ready.url + ' && zene run "Say hello"')
    for line in model_state(settings):
        terminal.say(f"  {line}")
    for cap, reason in ready.capabilities.missing.items():
        terminal.say(styled(f"  Not enforced here: {cap}: {reason}", "yellow"))


def model_state(settings: Settings) -> list[str]:
    """Which model answers, and what is missing for a real one."""
    model = settings.named(settings.model)
    if model.provider == "demo":
        return [
            "No model is set up: tasks are answered by the demo, a scripted conversation.",
            "For a real one set ZENE_MODEL=openai:NAME and OPENAI_API_KEY (or anthropic:NAME and ANTHROPIC_API_KEY).",
        ]
    if model.api_key is None:
        return [
            f"Model {settings.model} at {model.url}, without a key: set {model.provider.upper()}_API_KEY."
        ]
    return [f"Model {settings.model} at {model.url}"]
