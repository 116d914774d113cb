"""Starting the server: gateway and worker in one process."""

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zene.cli import garbage, terminal
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
    garbage.started()
    terminal.say(styled(f"Zene is ready at {ready.url}", "bold"))
    if ready.first_password:
        elsewhere = settings.data_dir != Settings().data_dir.expanduser()
        data_dir = f" --data-dir {shlex.quote(str(settings.data_dir))}" if elsewhere else ""
        another = terminal.typed(f"user password {settings.admin_email}{data_dir}")
        terminal.say(
            f"  Sign in as {settings.admin_email} with the one-time password {ready.first_password}\n"
            f"  It is shown this once. To set another: {another}"
        )
    first = (terminal.typed(f"login {ready.url}"), terminal.typed('run "Say hello"'))
    terminal.say(f"  First task: {' && '.join(first)}")
    for line in model_state(settings):
        terminal.say(f"  {line}")
    for cap, reason in ready.capabilities.missing.items():
        terminal.say(styled(f"  Not enforced here: {cap}: {reason}", "yellow"))
