"""What a gateway counts of itself."""

from typing import Final

import msgspec
from msgspec import Struct
from starlette.types import Scope

from zene.bus.base import Live
from zene.domain.times import milliseconds
from zene.telemetry.metrics import Registry

NOWHERE: Final = ("other", "other")  # of a request that no route takes
ROUTE: Final = "zene.route"  # in the scope: the method and path of the route that was found


class Meters:
    """The gateway's instruments."""

    def __init__(self, registry: Registry) -> None:
        self._requests = registry.counter(
            "zene_http_requests_total",
            "Requests answered, by method and path of their route (`other` where there is none) and by status.",
            "method",
            "route",
            "status",
        )
        self._seconds = registry.histogram(
            "zene_http_request_seconds",
            "From a request's head to the head of its answer, by the path of its route.",
            "route",
        )
        self._errors = registry.counter(
            "zene_http_errors_total", "Requests answered with a problem, by its code.", "code"
        )
        self.streams = registry.gauge(
            "zene_open_streams", "Streams and long polls that follow a session here."
        )
        self._lag = registry.histogram(
            "zene_event_lag_seconds",
            "From the time of a durable event, just before its commit, to its hand-over to a stream; of each stream at most one event a second.",
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """A request got the head of its answer."""
        method, path = scope.get(ROUTE, NOWHERE)
        self._requests.count(method, path, str(status))
        self._seconds.observe(seconds, path)

    def failed(self, code: str) -> None:
        """A request is answered with a problem."""
        self._errors.count(code)

    def delivered(self, event: Live, now_ms: int) -> None:
        """A live event was handed to a stream."""
        written = milliseconds(_envelope.decode(event.body).ts)
        self._lag.observe(max(now_ms - written, 0) / 1000)


class _Written(Struct):
    ts: str


_envelope = msgspec.json.Decoder(_Written)
