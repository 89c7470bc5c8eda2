"""Links of the OpenAPI document: which operation takes the id that another one answers (OpenAPI 3.1, 4.8.20). Pure."""

import re
from collections.abc import Iterator
from typing import Any

MADE = ("200", "201", "202")
ID = "$response.body#/id"
TOLD = {"task_id": "$response.body#/task_id", "request_id": "$response.body#/request_id"}
"""What nearly every answer that makes something tells beside its own id."""


def link(schema: dict[str, Any]) -> None:
    """Add to each operation that makes something the links to what may be done with it, so that tools can follow."""
    paths = schema.get("paths", {})
    for path, item in paths.items():
        if "post" not in item:
            continue
        links = dict(_links(path, paths, item["post"], schema))
        for status in MADE if links else ():
            if status in item["post"].get("responses", {}):
                item["post"]["responses"][status].setdefault("links", {}).update(links)


def _links(
    made_at: str, paths: dict[str, Any], operation: dict[str, Any], schema: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    told = _told(operation, schema)
    for path, item in paths.items():
        below = re.match(re.escape(made_at) + r"/\{(\w+)\}(?=/|$)", path)
        parameters = re.findall(r"\{(\w+)\}", path)
        takes = {below[1]: ID} if below and "id" in told else {}
        takes |= {name: TOLD[name] for name in parameters if name in TOLD and name in told and not below}
        if not takes or set(parameters) != takes.keys():
            continue
        for method in item.keys() & {"get", "post", "patch", "delete"}:
            yield f"{method} {path}", {"operationId": item[method]["operationId"], "parameters": takes}


def _told(operation: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """The properties of what an operation answers when it has made something."""
    found: set[str] = set()
    for status in MADE:
        content = operation.get("responses", {}).get(status, {}).get("content", {}).get("application/json", {})
        shape = content.get("schema", {})
        if "$ref" in shape:
            shape = schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
        found |= shape.get("properties", {}).keys()
        if isinstance(content.get("example"), dict):
            found |= content["example"].keys()
    return found
