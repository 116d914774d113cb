"""JSON bodies, read strictly: one meaning, bounded, and nothing in them that the store could not keep.

Parsers disagree about duplicate keys, NaN and half surrogates, and each disagreement has been somebody's
way round a check; here they are refused.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from zene.domain.errors import Forbidden, InvalidInput, TooLarge

T = TypeVar("T")

MAX_JSON_BYTES = 1 << 20
_MAX_DEPTH = 32
# What a page of another site can send without being asked: never taken for JSON.
_FORM_TYPES = {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"}


async def read_json(request: Request, shape: type[T]) -> T:
    """The body as `shape`. Raises InvalidInput (400 not JSON, 415 not said to be, 422 another shape),
    Forbidden for a form, TooLarge.
    """
    _check_content_type(request)
    raw = b"".join([chunk async for chunk in chunks(request, MAX_JSON_BYTES)])
    try:
        return msgspec.convert(parse(raw), shape)
    except msgspec.ValidationError as err:
        raise InvalidInput(f"The body does not fit: {err}.") from err


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The raw body, piece by piece. Raises TooLarge before anything of a body said to be larger is
    read, and as soon as one that does not say is; InvalidInput (400) when the client leaves early.
    """
    check_length(request, limit)
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            yield chunk
    except ClientDisconnect as err:
        raise InvalidInput("The body ended early.", code="incomplete_body", status=400) from err


def check_length(request: Request, limit: int) -> None:
    """Refuse by what the client says of the body, before any of it is read."""
    stated = request.headers.get("content-length", "0")
    if not (stated.isascii() and stated.isdigit()):
        raise InvalidInput("Content-Length is not a number.", status=400)
    if len(stated) > 18 or int(stated) > limit:
        raise _too_large(limit)


def parse(raw: bytes) -> Any:
    """The JSON value. Raises InvalidInput, 400 where it is not JSON, 422 where it holds what cannot be kept."""
    if not raw.strip():
        raise InvalidInput("The body is empty; a JSON object is needed.")
    try:
        value = _decoder.decode(raw.decode())
    except _Refused as err:
        raise InvalidInput(f"The body {err}.", code="invalid_json", status=400) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as err:
        raise InvalidInput(
            f"The body is not JSON in UTF-8: {err}.", code="invalid_json", status=400
        ) from err
    except RecursionError:
        raise _too_deep() from None
    except ValueError as err:
        raise InvalidInput("The body has a number that is too long.") from err
    _check_values(value)
    return value


class _Refused(Exception):
    """JSON, but not of the kind that means one thing."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Refused("has the same key twice in one object")
    return value


def _constant(name: str) -> None:
    raise _Refused(f"has {name}, which is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _check_values(value: Any) -> None:
    """Bound the depth; refuse NUL and half surrogates, which not every store can keep."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        check_text(value)
    return []


def check_text(text: str) -> None:
    """Raise InvalidInput for text with a NUL or half of a surrogate pair."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text if char > "\ud7ff"):
        raise InvalidInput("Text may not hold NUL or half of a surrogate pair.")


def _check_content_type(request: Request) -> None:
    stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated == "application/json":
        return
    if stated in _FORM_TYPES:
        raise Forbidden("Forms are not taken; send application/json.", code="cross_site")
    raise InvalidInput(
        "Send the body as application/json.", code="unsupported_media_type", status=415
    )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.", details={"limit": limit})


def _too_deep() -> InvalidInput:
    return InvalidInput(
        f"The body is nested deeper than {_MAX_DEPTH} levels.", code="invalid_json", status=400
    )
