"""`fastn-mcp surface`: writes each tool as clients see it, and what else lists them, so that a change is reviewed."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcp.server import Server
from pydantic_core import PydanticUndefined

from fastn_mcp import IS_PUBLISHED
from fastn_mcp.cli import published
from fastn_mcp.cli.introducing import taken_down
from fastn_mcp.cli.starting import resolved_of
from fastn_mcp.cli.wiring import Sandboxed, assemble, policy_of
from fastn_mcp.installing.clients import CLIENTS, Client
from fastn_mcp.installing.links import links
from fastn_mcp.installing.refusal import NotInstalled
from fastn_mcp.introduction import FILE
from fastn_mcp.offer import AnyOffer
from fastn_mcp.operation import Operation
from fastn_mcp.procedures.catalog import OFFERS
from fastn_mcp.served import tool
from fastn_mcp.server import build
from fastn_mcp.settings import SOURCES, Settings
from fastn_mcp.settings.sources import FILE_ONLY


def wanted(folder: Path, readme: Path) -> dict[Path, str]:
    """What each generated file ought to hold."""
    files = {folder / f"{operation.tool_name()}.json": snapshot(operation) for operation in OFFERS}
    package = folder.parent / "fastn_mcp"
    if package.exists():
        files[package / FILE] = taken_down(_server(), OFFERS)
    if readme.exists():
        tables = {"tools": _tools(), "settings": settings_table(), "clients": _clients(), "published": _published()}
        files[readme] = filled(readme.read_text(encoding="utf-8"), tables)
    for name in published.PUBLISHED:
        path = readme.parent / name
        if path.exists():
            files[path] = published.filled(name, path.read_text(encoding="utf-8"))
    return files


def differing(folder: Path, readme: Path) -> list[Path]:
    """The files that are not what the code says now, and those of tools that are no more."""
    files = wanted(folder, readme)
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return sorted([*stale, *(set(folder.glob("*.json")) - files.keys())])


def write(folder: Path, readme: Path) -> list[Path]:
    """Bring them up to date. The files that changed."""
    folder.mkdir(exist_ok=True)
    files, changed = wanted(folder, readme), differing(folder, readme)
    for path in changed:
        if path in files:
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
    return changed


def _server() -> Server[Any]:
    """One on the sandbox, which is never asked: the tools are the same on each account."""
    settings = resolved_of({}, {}, None, sandboxed=True).settings
    with TemporaryDirectory() as state:
        policy = policy_of(settings, {"FASTN_CONFIG_DIR": state})
        parts = assemble(settings, Sandboxed(), policy, Path(state), {}, browser=False, tally=None)
        return build(parts.dispatch, parts.offered, parts.label)


def snapshot(offer: AnyOffer) -> str:
    """The definition of a tool as it goes over the wire, with its effect, and an operation's route and evidence."""
    facts: dict[str, object] = {"effect": offer.effect.value}
    if issubclass(offer, Operation):
        facts["route"] = str(offer.route)
        facts["evidence"] = {"kind": offer.evidence.kind, "source": offer.evidence.source}
    definition = tool(offer).model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(facts | {"tool": definition}, indent=2, ensure_ascii=False) + "\n"


def _tools() -> str:
    rows = [
        f"| `{offer.tool_name()}` | {offer.effect.value} | {_evidence(offer)} | {_cell(offer.__doc__)} |"
        for offer in OFFERS
    ]
    return "\n".join(["| tool | effect | evidence | what it does |", "|---|---|---|---|", *rows])


def _evidence(offer: AnyOffer) -> str:
    return str(offer.evidence) if issubclass(offer, Operation) else "made of others"


def settings_table() -> str:
    """What can be set, where, and what it is by default."""
    rows: list[str] = []
    for source in SOURCES:
        info = Settings.model_fields[source.field]
        default = "" if info.default in (PydanticUndefined, None) else f"`{info.default}`"
        names = "<br>".join(f"`{name}`" for name in (source.field, source.variable, source.flag) if name)
        rows.append(f"| {names} | {default} | {_cell(info.description)} |")
    rows += [f"| `{name}` |  | {_cell(meaning)} |" for name, meaning in FILE_ONLY.items()]
    return "\n".join(["| setting, variable, flag | default | |", "|---|---|---|", *rows])


def _published() -> str:
    if IS_PUBLISHED:
        return "With [uv](https://docs.astral.sh/uv/) alone: `uvx fastn-mcp demo`"
    return "**Not published yet:** nobody owns the name `fastn-mcp` on the package registry. Install from the clone."


def _clients() -> str:
    rows = [
        (client.title, f"`fastn-mcp install {client.name}`", *([_buttons(client)] if IS_PUBLISHED else []))
        for client in CLIENTS
    ]
    header = ("client", "one line", *(["or one click: the sandbox"] if IS_PUBLISHED else []))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _buttons(client: Client) -> str:
    try:
        found = links(client, "fastn", ("--sandbox",), "profile")
    except NotInstalled:
        return ""
    return " ".join(
        f"[![Try it in {label}](docs/images/button-{label.lower().replace(' ', '-')}.svg)]({link})"
        for label, link in found.items()
    )


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def filled(text: str, tables: dict[str, str]) -> str:
    """The text with each table between its markers."""
    for name, table in tables.items():
        text = re.sub(
            rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- /{name} -->)",
            lambda found, table=table: f"{found[1]}{table}\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text
