"""What Zene says of itself: logs and metrics. Each is set up once, by the composition root."""

from zene.telemetry.logs import MASK, Format, Lines, Log, logger, set_up

__all__ = ("MASK", "Format", "Lines", "Log", "logger", "set_up")
