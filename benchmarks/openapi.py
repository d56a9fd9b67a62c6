"""What the peers are given: this project's own operations, as an OpenAPI document and as a table of routes.

Run as `openapi.py TOOLS FOLDER UPSTREAM` it writes both into FOLDER, so that no peer imports this package. The static
tools are the published ones, in TOOLS.
"""

import json
import sys
from pathlib import Path
from typing import Any

from fastn_mcp.tools.catalog import CATALOG, AnyOperation


def fields(operation: AnyOperation) -> tuple[list[str], dict[str, Any], list[str]]:
    """The names of the path's fields, and of the others their schemas by the names that Fastn uses and the required.

    What is an argument but no field of the call (`dry_run`) stays with our server.
    """
    schema = operation.input_schema()
    sent = operation.model_fields.keys() - set(operation.route.parameters)
    rest = {name: shape for name, shape in schema["properties"].items() if name in sent}
    wire = {name: operation.model_fields[name].serialization_alias or name for name in rest}
    required = [wire[name] for name in schema.get("required", []) if name in rest]
    return list(operation.route.parameters), {wire[name]: shape for name, shape in rest.items()}, required


def document(server: str) -> dict[str, Any]:
    """The API as OpenAPI 3.1, as a bridge would be given it. Answers have no schema: Fastn documents none."""
    paths: dict[str, Any] = {}
    for operation in CATALOG:
        path, others, required = fields(operation)
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path]
        described: dict[str, Any] = {
            "operationId": operation.tool_name(),
            "summary": operation.title(),
            "description": operation.__doc__,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": {}}}}},
        }
        if operation.route.method in ("GET", "DELETE"):
            parameters += [
                {"name": name, "in": "query", "required": name in required, "schema": shape}
                for name, shape in others.items()
            ]
        else:
            body = {"type": "object", "properties": others, "required": required}
            described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        described["parameters"] = parameters
        paths.setdefault(operation.route.path, {})[operation.route.method.lower()] = described
    info = {"title": "Fastn", "version": "1", "description": "Made of this project's catalogue, for measuring only."}
    return {"openapi": "3.1.0", "info": info, "servers": [{"url": server}], "paths": paths}


def routes() -> dict[str, Any]:
    """For each tool its method, path and the names of the path's fields, and what the other fields are called."""
    return {
        operation.tool_name(): {
            "method": operation.route.method,
            "path": operation.route.path,
            "in_path": list(operation.route.parameters),
            "wire": {name: info.serialization_alias or name for name, info in operation.model_fields.items()},
        }
        for operation in CATALOG
    }


if __name__ == "__main__":
    tools, folder, upstream = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    published = [json.loads((tools / f"{name}.json").read_text(encoding="utf-8"))["tool"] for name in routes()]
    (folder / "static.json").write_text(json.dumps({"tools": published, "routes": routes()}), encoding="utf-8")
    (folder / "openapi.json").write_text(json.dumps(document(upstream)), encoding="utf-8")
