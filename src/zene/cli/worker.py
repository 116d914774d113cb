"""Starting a worker of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zene.cli import garbage, terminal
from zene.cli.installation import load
from zene.cli.stopping import stop_when_told
from zene.cli.terminal import styled
from zene.sandbox.base import Capabilities
from zene.wiring import worker as wiring


async def worker(*, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Work until a signal says to stop. Raises SetupError where that cannot be done here."""
    settings = load(config, overrides)
    stop = stop_when_told("running tasks are handed over")
    await wiring.serve(settings, stop=stop, ready=_greet)
    terminal.note("The worker has stopped.")
    return 0


def _greet(name: str, capabilities: Capabilities) -> None:
    garbage.started()
    terminal.say(styled(f"Worker {name} is ready", "bold"))
    for cap, reason in capabilities.missing.items():
        terminal.say(styled(f"  Not enforced here: {cap}: {reason}", "yellow"))
