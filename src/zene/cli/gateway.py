"""Starting a gateway of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zene.cli import garbage, terminal
from zene.cli.installation import load
from zene.cli.stopping import stop_when_told
from zene.cli.terminal import styled
from zene.wiring import gateway as wiring


async def gateway(*, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Serve until a signal says to stop. Raises SetupError where that cannot be done here."""
    settings = load(config, overrides)
    stop = stop_when_told("followers are told to connect elsewhere")
    await wiring.serve(settings, stop=stop, ready=_greet)
    terminal.note("The gateway has stopped.")
    return 0


def _greet(url: str) -> None:
    garbage.started()
    terminal.say(styled(f"Gateway is ready at {url}", "bold"))
