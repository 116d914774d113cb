"""Every route says who may call it, is in the table, and is described."""

import importlib
import pkgutil
from dataclasses import replace
from typing import Any

import pytest

import zene.gateway
from zene.domain.errors import SetupError
from zene.domain.events import TYPES
from zene.gateway import openapi
from zene.gateway.routing import Route, paths
from zene.gateway.table import ROUTES

NOBODY: Any = None
NO_PARTS: Any = None

# What anybody may ask without signing in: adding to it is a decision.
PUBLIC = {
    "GET /",
    "GET /.well-known/jwks.json",
    "GET /healthz",
    "GET /openapi.json",
    "GET /readyz",
    "POST /v1/auth/login",
    "POST /v1/auth/refresh",
}


def name(each: Route) -> str:
    return f"{each.method} {each.path}"


def test_only_these_routes_need_no_sign_in() -> None:
    assert {name(each) for each in ROUTES if each.access == "public"} == PUBLIC


def test_only_administrators_may_call_what_is_below_admin() -> None:
    below = {name(each) for each in ROUTES if each.path.startswith("/v1/admin")}
    assert below == {name(each) for each in ROUTES if each.access == "admin"}


def test_a_viewer_may_change_nothing_but_the_own_sign_in() -> None:
    changing = {name(each) for each in ROUTES if each.access == "viewer" and each.method != "GET"}
    assert changing == {"POST /v1/auth/logout"}


def test_a_route_that_does_not_say_who_may_call_it_fails_the_build() -> None:
    with pytest.raises(SetupError, match="GET /v1/me does not declare"):
        paths([replace(each, access=NOBODY) for each in ROUTES if each.path == "/v1/me"], NO_PARTS)


def test_a_route_that_is_there_twice_fails_the_build() -> None:
    with pytest.raises(SetupError, match="twice"):
        paths([ROUTES[0], replace(ROUTES[0])], NO_PARTS)


def test_no_route_was_forgotten_in_the_table() -> None:
    declared = {
        id(value)
        for module in pkgutil.iter_modules(zene.gateway.__path__, "zene.gateway.")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, Route)
    }
    assert declared == {id(each) for each in ROUTES}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(ROUTES, version="1")


@pytest.mark.parametrize("each", ROUTES, ids=name)
def test_the_openapi_document_describes_every_route(each: Route, document: dict[str, Any]) -> None:
    operation = document["paths"][each.path][each.method.lower()]
    assert operation["summary"]
    assert (operation["security"] == []) == (each.access == "public")
    assert ("requestBody" in operation) == (each.body is not None or each.method == "PUT")
    for parameter in operation["parameters"]:
        assert parameter["in"] != "path" or f"{{{parameter['name']}}}" in each.path


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert {ref.rpartition("/")[2] for ref in references(document)} <= set(schemas)


def test_the_document_holds_every_event(document: dict[str, Any]) -> None:
    assert {body.__name__ for body in TYPES.values()} <= set(document["components"]["schemas"])


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for inner in value.values() for ref in references(inner)]
    if isinstance(value, list):
        return [ref for inner in value for ref in references(inner)]
    return []
