"""What Zene says of itself: logs, metrics and traces. Each is set up once, by the composition root."""

from zene.telemetry.logs import MASK, Format, Lines, Log, logger, set_up
from zene.telemetry.traces import current_trace, trace_id, traced, traceparent

__all__ = (
    "MASK",
    "Format",
    "Lines",
    "Log",
    "current_trace",
    "logger",
    "set_up",
    "trace_id",
    "traced",
    "traceparent",
)
