"""Projects: made empty, filled by an upload."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from zene.domain.events import Event
from zene.gateway import shapes
from zene.gateway.bodies import chunks
from zene.gateway.calls import Call
from zene.gateway.creating import Created, create
from zene.gateway.routing import route
from zene.store import projects
from zene.store.base import Unit

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class NewProject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An empty project."""

    name: Name


class ProjectChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes."""

    name: Name


@route("POST", "/v1/projects", access="member", status=201)
async def add(call: Call, body: NewProject) -> Created[shapes.Project]:
    """Make an empty project."""
    project_id, now = call.new_id("prj"), call.now()

    def make() -> Unit[tuple[shapes.Project, Sequence[Event]]]:
        project = yield from projects.create_project(project_id, call.user.id, body.name, now)
        return shapes.project(project), ()

    return await create(call, body, make)


@route("GET", "/v1/projects", access="viewer")
async def all_of_them(call: Call, query: shapes.PageQuery) -> shapes.Page[shapes.Project]:
    """The caller's projects, newest first."""
    found, cursor = await call.parts.store.read(
        projects.list_projects, call.user.id, query.after("prj"), query.limit
    )
    return shapes.Page(items=[shapes.project(each) for each in found], next_cursor=cursor)


@route("GET", "/v1/projects/{project_id}", access="viewer")
async def one(call: Call) -> shapes.Project:
    """One project."""
    project_id = call.id("project_id", "prj")
    return shapes.project(
        await call.parts.store.read(projects.get_project, call.user.id, project_id)
    )


@route("PATCH", "/v1/projects/{project_id}", access="member")
async def rename(call: Call, body: ProjectChange) -> shapes.Project:
    """Rename a project."""
    project_id = call.id("project_id", "prj")
    return shapes.project(
        await call.parts.store.write(
            projects.rename_project, call.user.id, project_id, body.name, call.now()
        )
    )


@route("DELETE", "/v1/projects/{project_id}", access="member", status=204)
async def delete(call: Call) -> None:
    """Delete a project; sessions that started from it keep their workspaces."""
    project_id = call.id("project_id", "prj")
    await call.parts.store.write(
        projects.delete_project, call.user.id, project_id, call.now(), call.new_id("job")
    )
    await call.parts.bus.wake()


@route("PUT", "/v1/projects/{project_id}/archive", access="member")
async def upload(call: Call) -> shapes.Unpacked:
    """Replace the project's files by those of a .tar.gz, whole or not at all: the body is the raw archive."""
    parts, project_id = call.parts, call.id("project_id", "prj")
    await parts.store.read(projects.get_project, call.user.id, project_id)
    unpacked = await parts.files.replace_project(
        call.user.id, project_id, chunks(call.request, parts.terms.max_archive_bytes)
    )
    project = await parts.store.write(
        projects.set_ready,
        call.user.id,
        project_id,
        files=unpacked.files,
        size=unpacked.bytes,
        now=call.now(),
    )
    return shapes.Unpacked(project=shapes.project(project), dropped=unpacked.dropped)


ROUTES = (add, all_of_them, one, rename, delete, upload)
