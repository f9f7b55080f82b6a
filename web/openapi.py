"""OpenAPI 3.1 out of the one route table. Pure: the description cannot drift from what is served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web.encode import adapter
from web.schemas import ErrorBody

Json = dict[str, Any]
JSON = "application/json"

ERRORS = {
    400: "the request, or the configuration in it, is wrong; `problems` names each place",
    401: "no valid token or session, or a cookie without its X-CSRF-Token",
    404: "no such object",
    409: "changed by somebody else since expect_revision",
    429: "too many failed logins or too many streams",
    500: "the data plane refused",
    503: "no endpoint of the configuration store answers",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path. `response` is a dataclass (JSON), or None for another media type."""

    method: str
    path: str
    name: str
    summary: str
    response: type[Any] | None = None
    media: str = JSON
    status: int = 200
    request: type[BaseModel] | None = None
    request_media: str = JSON
    query: type[BaseModel] | None = None
    errors: tuple[int, ...] = ()
    public: bool = False  # needs no authentication


def describe(operations: Sequence[Operation], version: str) -> Json:
    """The OpenAPI document of these operations."""
    schemas: Json = {}
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lbnode", "version": version, "summary": "Clustered layer-4 load balancer: one node's API"},
        "paths": paths,
        "security": [{"bearer": []}, {"cookie": [], "csrf": []}],
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "lbnode-NODE"},
                "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token"},
            },
        },
    }


def _operation(operation: Operation, schemas: Json) -> Json:
    content: Json = {operation.media: {}}
    if operation.response is not None:
        content = {operation.media: {"schema": _reference(operation.response, schemas)}}
    responses: Json = {str(operation.status): {"description": "success", "content": content}}
    if operation.status == 303:
        responses = {"303": {"description": "go on at Location"}}
    errors = set(operation.errors) | (set() if operation.public else {401, 429})
    for status in sorted(errors):
        error = {"schema": _reference(ErrorBody, schemas)}
        responses[str(status)] = {"description": ERRORS[status], "content": {JSON: error}}
    result: Json = {"operationId": operation.name, "summary": operation.summary, "responses": responses}
    if parameters := _parameters(operation):
        result["parameters"] = parameters
    if operation.request is not None:
        body = {"schema": _reference(operation.request, schemas)}
        result["requestBody"] = {"required": True, "content": {operation.request_media: body}}
    if operation.public:
        result["security"] = []
    return result


def _parameters(operation: Operation) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    if operation.query is not None:
        for name, schema in operation.query.model_json_schema()["properties"].items():
            found.append({"name": name, "in": "query", "required": False, "schema": schema})
    return found


def _reference(kind: type[Any], schemas: Json) -> Json:
    """Put the schema of `kind`, and of all it is made of, into `schemas`; return a reference to it."""
    template = "#/components/schemas/{model}"
    if issubclass(kind, BaseModel):
        _, top = models_json_schema([(kind, "validation")], ref_template=template)
        schemas.update(top["$defs"])
    else:
        schema = adapter(kind).json_schema(mode="serialization", ref_template=template)
        schemas.update(schema.pop("$defs", {}))
        schemas[kind.__name__] = schema
    return {"$ref": template.format(model=kind.__name__)}
