"""Traces: one id from a request through its task's worker, model calls and commands, in every log line.

It is taken from W3C Trace Context (https://www.w3.org/TR/trace-context/), kept with the task, and goes with
the asyncio task that works on it: who logs does not have to hand it on.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NOTHING: Mapping[str, str] = {}
_current: ContextVar[str | None] = ContextVar("trace", default=None)


def trace_id(traceparent: str | None = None) -> str:
    """The id of the trace that a `traceparent` header names; a new one where there is none, or a bad one."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found else secrets.token_hex(16)


def current_trace() -> str | None:
    """The trace of what is being done, if it belongs to one."""
    return _current.get()


@contextmanager
def traced(trace: str | None) -> Iterator[None]:
    """Let what is done in the block belong to that trace, or to none."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def traceparent() -> Mapping[str, str]:
    """The header that names the trace to another server, with a span of its own; none outside a trace."""
    trace = _current.get()
    return {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-00"} if trace else _NOTHING
