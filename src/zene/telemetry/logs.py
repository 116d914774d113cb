"""Logs: one line an event, a stable name and its fields, on stderr; the standard library underneath.

    log = telemetry.logger(__name__)
    log.info("task.claimed", task=task.id, worker=self.name)

Neither secrets nor prompts belong in a log. What slips in is masked at the last moment: fields by
their name, known secrets and credentials by their look, in lines of other libraries too.
"""

import datetime
import json
import logging
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal, TextIO

from zene.telemetry.traces import current_trace

Format = Literal["text", "json"]

MASK = "***"
_SECRET_NAMES = re.compile(
    r"password|secret|token$|api_key|authorization|cookie|ticket", re.IGNORECASE
)
_CREDENTIALS = re.compile(
    r"(?P<before>\b[Bb]earer\s+|://[^\s/:@]*:(?=[^\s\"']*@)|[?&](?:ticket|token|key)=)[^\s@&\"']+"
    r"|\bsk-[\w-]{8,}|\beyJ[\w-]+\.[\w-]+\.[\w-]+"
)
_SIGNS = ("earer", "://", "=", "sk-", "eyJ")  # each credential has one; most lines have none
_PLAIN = re.compile(r"[\w.:/@+%,*-]+")
_SHORTEST_SECRET = 6  # characters; masking shorter ones would eat half of every line
_FIELDS = "zene_fields"

_encode = json.JSONEncoder(default=str, ensure_ascii=True).encode


class Log:
    """A named logger of events with fields. Cheap when its level is off."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """What only a developer wants to see."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Something happened as it should."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something did not go as it should, and Zene went on by itself."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something failed that a person should look at."""
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error nobody expected, with its traceback; to be called where it is caught."""
        self._write(logging.ERROR, event, fields, with_traceback=True)

    def _write(
        self, level: int, event: str, fields: dict[str, object], *, with_traceback: bool = False
    ) -> None:
        log = self._logger
        if log.isEnabledFor(level):
            trouble = sys.exc_info() if with_traceback else None
            record = logging.LogRecord(log.name, level, "", 0, event, None, trouble)
            record.__dict__[_FIELDS] = fields
            log.handle(
                record
            )  # `log.log` would walk the stack for a line number that no line shows


def logger(name: str) -> Log:
    """The logger of a module."""
    return Log(name)


def set_up(
    style: Literal["auto", "text", "json"] = "auto",
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send every log line to `stream` (stderr), once; a second call replaces the first."""
    stream = stream or sys.stderr
    if style == "auto":
        style = "text" if stream.isatty() else "json"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(style, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of libraries; what Zene itself says begins at INFO
    logging.getLogger("zene").setLevel(logging.INFO)


class Lines(logging.Formatter):
    """One line a record, whatever is in it, with secrets masked."""

    def __init__(self, style: Format, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._as_line = _as_json if style == "json" else _as_text
        known = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        fields = self._fields(record)
        if record.exc_info and record.exc_info[0]:
            fields["traceback"] = self.formatException(record.exc_info)
        line = self._as_line(record, fields)
        if self._known:
            line = self._known.sub(MASK, line)
        if any(sign in line for sign in _SIGNS):
            line = _CREDENTIALS.sub(lambda found: (found["before"] or "") + MASK, line)
        return line

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = getattr(record, _FIELDS, {})
        shown = {name: MASK if _is_secret(name) else value for name, value in fields.items()}
        return shown | {"trace": trace} if (trace := current_trace()) else shown


@lru_cache(1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAMES.search(name) is not None


def _as_json(record: logging.LogRecord, fields: dict[str, Any]) -> str:
    line = {
        "ts": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": record.getMessage(),
    }
    return _encode(line | fields)


def _as_text(record: logging.LogRecord, fields: dict[str, Any]) -> str:
    time = f"{_time(record).astimezone():%H:%M:%S}"
    traceback = fields.pop("traceback", None)
    words = [time, record.levelname.lower(), _one_line(record.getMessage())]
    words += [f"{name}={_quoted(value)}" for name, value in fields.items()]
    return " ".join(words) + (f"\n{traceback}" if traceback else "")


def _time(record: logging.LogRecord) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(record.created, datetime.UTC)


def _one_line(text: str) -> str:
    """Text that can neither begin a new line nor move the cursor."""
    return text if text.isprintable() else json.dumps(text)


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
