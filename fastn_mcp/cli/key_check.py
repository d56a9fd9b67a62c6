"""One read with a key, and what it says of the key: whether Fastn takes it, and what it may do."""

from dataclasses import dataclass
from typing import cast

from fastn_mcp.cli.wiring import Parts
from fastn_mcp.dispatch import Done
from fastn_mcp.errors import FastnError, Forbidden, Unauthorized
from fastn_mcp.fastn.names import name_of
from fastn_mcp.fastn.rows import text, timestamp, word
from fastn_mcp.guard import Caller
from fastn_mcp.operation import Record
from fastn_mcp.procedures.ages import dated
from fastn_mcp.redaction import is_own_key, sanitize
from fastn_mcp.tools.api_keys import EXPIRES, ListApiKeys


@dataclass(frozen=True, slots=True)
class Checked:
    """`works` is None where it could not be learnt."""

    works: bool | None
    said: str


async def checked(parts: Parts) -> Checked:
    """Ask Fastn for its API keys, of which this should be one."""
    try:
        try:
            found = await parts.dispatch(ListApiKeys(limit=100), Caller("local", None))
        finally:
            await parts.aclose()
    except Unauthorized as error:
        return Checked(False, f"The key does not work. {error.what} Copy it anew: Fastn dashboard, Settings, API keys.")
    except Forbidden:
        return Checked(True, "The key works. It may not list API keys, so what else it may do is not known.")
    except FastnError as error:
        return Checked(None, f"Whether the key works could not be learnt. {error}")
    page = found.result if isinstance(found, Done) else None
    rows = cast("list[Record]", getattr(page, "items", []))
    mine = next((row for each in rows if is_own_key(parts.settings.api_key, row := each.model_dump())), None)
    if mine is None:
        return Checked(True, "The key works. It is not among the first 100 API keys, so what it may do is not known.")
    mode, permissions = text(mine, "mode").lower(), text(mine, "permissions").lower()
    ends = "never expires"
    if word(mine, *EXPIRES) not in ("", "never"):
        expires = timestamp(mine, *EXPIRES)
        ends = "expires at an unknown time" if expires is None else f"expires {dated(expires, parts.system.now())}"
    known = ", ".join(filter(None, (mode and f"{mode} mode", permissions, ends)))
    return Checked(True, sanitize(f"The key works. Key {name_of(mine)!r}: {known}."))
