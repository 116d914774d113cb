"""Starting the server: gateway and worker in one process."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zene.cli import terminal
from zene.cli.installation import load
from zene.cli.models import model_state
from zene.cli.stopping import stop_when_told
from zene.cli.terminal import styled
from zene.settings import Settings
from zene.wiring import together


async def up(*, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Serve until a signal says to stop. Raises SetupError where that cannot be done here."""
    settings = load(config, overrides)
    stop = stop_when_told("running tasks are handed over")
    await together.serve(settings, stop=stop, ready=partial(_greet, settings))
    terminal.note("Zene has stopped.")
    return 0


def _greet(settings: Settings, ready: together.Ready) -> None:
    """Say where it runs, how to sign in, and what does not work as it should."""
    terminal.say(styled(f"Zene is ready at {ready.url}", "bold"))
    if ready.first_password:
        terminal.say(
            f"  Sign in as {settings.admin_email} with the one-time password {ready.first_password}\n"
            f"  It is shown this once; another: zene user password {settings.admin_email}"
        )
    terminal.say("  First task: zene login " + ready.url + ' && zene run "Say hello"')
    for line in model_state(settings):
        terminal.say(f"  {line}")
    for cap, reason in ready.capabilities.missing.items():
        terminal.say(styled(f"  Not enforced here: {cap}: {reason}", "yellow"))
