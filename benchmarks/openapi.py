"""What the peers are given: the operations as the OpenAPI document of `make openapi`, and as a table of routes.

Run as `openapi.py TOOLS FOLDER UPSTREAM` it writes both into FOLDER, so that no peer imports this package. The static
tools are the published ones, in TOOLS.
"""

import json
import sys
from pathlib import Path
from typing import Any

from openapi_document import document

from fastn_mcp.tools.catalog import CATALOG


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
