"""`fastn-mcp surface`: writes what clients see of each tool to `tools/`, so that a change of it is reviewed."""

import json
from pathlib import Path

from fastn_mcp.server import tool
from fastn_mcp.tools import CATALOG, AnyOperation


def snapshot(operation: AnyOperation) -> str:
    """The definition of a tool as it goes over the wire, with its route, effect and evidence."""
    facts = {
        "effect": operation.effect.value,
        "route": str(operation.route),
        "evidence": {"kind": operation.evidence.kind, "source": operation.evidence.source},
    }
    definition = tool(operation).model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(facts | {"tool": definition}, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write each tool's file, and remove those of tools that are no more. The files that changed."""
    folder.mkdir(exist_ok=True)
    changed = differing(folder)
    wanted = {folder / f"{operation.tool_name()}.json": snapshot(operation) for operation in CATALOG}
    for path in changed:
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return changed


def differing(folder: Path) -> list[Path]:
    """The files that are not what the code says now."""
    wanted = {folder / f"{operation.tool_name()}.json": snapshot(operation) for operation in CATALOG}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return sorted([*stale, *(set(folder.glob("*.json")) - wanted.keys())])
