"""A session's files, its difference from where it began, and what its calls printed."""

from typing import Annotated, Final
from urllib.parse import quote

from msgspec import Meta, Struct
from starlette.responses import Response
from starlette.types import ASGIApp

from zene.domain.files import Difference, Listing
from zene.domain.sessions import Session
from zene.gateway.bodies import chunks
from zene.gateway.calls import Call
from zene.gateway.downloads import Download
from zene.gateway.routing import route
from zene.store import history, sessions

BYTES: Final = "application/octet-stream"
MAX_OUTPUT_BYTES: Final = 16 << 20

Path = Annotated[str, Meta(max_length=4096)]


class FolderQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which folder of the workspace; empty or `.` is the workspace itself."""

    path: Path = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 200
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class FileQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which file of the workspace."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]


class OutputQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which bytes of the output."""

    offset: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_BYTES)] = MAX_OUTPUT_BYTES


@route("GET", "/v1/sessions/{session_id}/files", access="viewer")
async def folder(call: Call, query: FolderQuery) -> Listing:
    """What is in a folder of the workspace."""
    session = await _session(call)
    return await call.parts.files.list(session, query.path, cursor=query.cursor, limit=query.limit)


@route("GET", "/v1/sessions/{session_id}/files/content", access="viewer", media=BYTES)
async def read(call: Call, query: FileQuery) -> ASGIApp:
    """A file's bytes, always as an attachment: no browser shows what an agent wrote as a page of Zene."""
    session = await _session(call)
    content = call.parts.files.stream(session, query.path)
    first = await anext(
        content, b""
    )  # what is wrong with the file shows here, before the answer begins
    return Download(
        first,
        content,
        headers={"content-disposition": _attachment(query.path)},
        media=BYTES,
        seconds=call.parts.terms.send_seconds,
    )


@route("PUT", "/v1/sessions/{session_id}/files/content", access="member", status=204)
async def write(call: Call, query: FileQuery) -> None:
    """Replace or make a file: the body is its content, and all of it is there or nothing."""
    session, limit = await _session(call), call.parts.terms.max_file_bytes
    await call.parts.files.write(session, query.path, chunks(call.request, limit), limit=limit)


@route("GET", "/v1/sessions/{session_id}/diff", access="viewer")
async def diff(call: Call) -> Difference:
    """How the workspace differs from where the session began."""
    return await call.parts.files.diff(await _session(call))


@route("GET", "/v1/sessions/{session_id}/items/{item_id}/output", access="viewer", media=BYTES)
async def output(call: Call, query: OutputQuery) -> Response:
    """All that a call printed, as far as it was kept (16 MiB)."""
    session, item_id = await _session(call), call.id("item_id", "itm")
    found = await call.parts.store.read(history.find_item, call.user.id, session.id, item_id)
    content = await call.parts.files.output(
        session, item_id, offset=query.offset, limit=query.limit
    )
    if content is None:
        content = found.output.encode()[query.offset :][: query.limit]
    return Response(
        content, headers={"content-disposition": _attachment(item_id)}, media_type=BYTES
    )


async def _session(call: Call) -> Session:
    """The caller's session: everything here belongs to one."""
    return await call.parts.store.read(
        sessions.get_session, call.user.id, call.id("session_id", "ses")
    )


def _attachment(path: str) -> str:
    """RFC 6266, with the name in the extended form only, where nothing can end it early."""
    return f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}"


ROUTES = (folder, read, write, diff, output)
