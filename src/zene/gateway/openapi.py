"""The OpenAPI document, made from the route table: what a route declares is what it says of itself."""

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import Struct

from zene.domain.events import TYPES, Event
from zene.gateway.creating import Created
from zene.gateway.routing import EVENT_STREAM, JSON, Route

_REFERENCE: Final = "#/components/schemas/{name}"
_BINARY: Final = {"type": "string", "format": "binary"}


class Problem(Struct, frozen=True, kw_only=True):
    """What every error is answered with (RFC 9457). `code` is stable, `message` says what to do next."""

    type: str
    title: str
    status: int
    code: str
    message: str
    detail: str
    details: dict[str, Any] | None


def document(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """The whole document, version 3.1. The events of a session are among its schemas."""
    table = list(routes)
    shapes: list[Any] = [Problem, Event, *TYPES.values()]
    shapes += [shape for each in table for shape in (each.body, _answer(each)) if shape]
    schemas, components = msgspec.json.schema_components(shapes, ref_template=_REFERENCE)
    by_shape = {repr(shape): schema for shape, schema in zip(shapes, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for each in table:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, by_shape)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Zene", "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(each: Route, schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One method of one path."""
    answer = _answer(each)
    content = schemas[repr(answer)] if answer else ({} if each.media == EVENT_STREAM else _BINARY)
    problem = {"application/problem+json": {"schema": schemas[repr(Problem)]}}
    answered: dict[str, Any] = {"description": "As asked."}
    if each.status != 204:
        answered["content"] = {each.media: {"schema": content}}
    operation: dict[str, Any] = {
        "operationId": f"{each.handler.__module__.rpartition('.')[2]}_{each.handler.__name__}",
        "summary": inspect.getdoc(each.handler),
        "tags": [each.handler.__module__.rpartition(".")[2]],
        "x-access": each.access,
        "parameters": [*_path_parameters(each), *_query_parameters(each), *_headers(each)],
        "responses": {
            str(each.status): answered,
            "default": {"description": "It did not work.", "content": problem},
        },
        "security": [] if each.access == "public" else [{"bearer": []}],
    }
    if each.body is not None:
        operation["requestBody"] = _body(JSON, schemas[repr(each.body)])
    elif each.method == "PUT":
        operation["requestBody"] = _body("application/octet-stream", _BINARY)
    return operation


def _body(media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {media: {"schema": schema}}}


def _answer(each: Route) -> Any:
    """The shape of the answer, None where it is not JSON or there is none."""
    if get_origin(each.answer) is Created:
        return get_args(each.answer)[0]
    shape = get_origin(each.answer) or each.answer
    return each.answer if isinstance(shape, type) and issubclass(shape, Struct) else None


def _path_parameters(each: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", each.path)
    ]


def _query_parameters(each: Route) -> list[dict[str, Any]]:
    if each.query is None:
        return []
    schema, components = msgspec.json.schema_components([each.query], ref_template="{name}")
    described = components[schema[0]["$ref"]]
    required = described.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in described["properties"].items()
    ]


def _headers(each: Route) -> list[dict[str, Any]]:
    if get_origin(each.answer) is Created:
        return [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}]
    if each.media == EVENT_STREAM:
        return [{"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}]
    return []
