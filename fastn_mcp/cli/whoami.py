"""`fastn-mcp whoami`: the account, its key, and by one read whether the key works."""

import json
import os
from dataclasses import dataclass
from typing import cast

import anyio
import click
from pydantic import JsonValue

from fastn_mcp.build.account import AccountParts
from fastn_mcp.build.startup import policy_file
from fastn_mcp.cli import StartOptions
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, Forbidden, Unauthorized
from fastn_mcp.fastn.names import name_of
from fastn_mcp.fastn.rows import text, timestamp, word
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.tables import dated
from fastn_mcp.redaction import is_own_key, sanitize
from fastn_mcp.tools.account import EXPIRES, ListApiKeys
from fastn_mcp.tools.tool import FastnObject


@dataclass(frozen=True, slots=True)
class Checked:
    """`works` is None where it could not be learnt."""

    works: bool | None
    said: str


async def checked(parts: AccountParts) -> Checked:
    """Ask Fastn for its API keys, of which this should be one."""
    try:
        try:
            found = await parts.dispatch(ListApiKeys(limit=100), Caller("local", None))
        finally:
            await parts.aclose()
    except Unauthorized as error:
        return Checked(
            False, f"The key does not work. {error.what} Copy it again: Fastn dashboard, Settings, API keys."
        )
    except Forbidden:
        return Checked(True, "The key works. It may not list API keys, so its permissions are unknown.")
    except FastnError as error:
        return Checked(None, f"Could not check whether the key works. {error}")
    page = found.result if isinstance(found, Done) else None
    rows = cast("list[FastnObject]", getattr(page, "items", []))
    mine = next((row for each in rows if is_own_key(parts.settings.api_key, row := each.model_dump())), None)
    if mine is None:
        return Checked(True, "The key works. It is not among the first 100 API keys, so its permissions are unknown.")
    mode, permissions = text(mine, "mode").lower(), text(mine, "permissions").lower()
    ends = "never expires"
    if word(mine, *EXPIRES) not in ("", "never"):
        expires = timestamp(mine, *EXPIRES)
        ends = "expires at an unknown time" if expires is None else f"expires {dated(expires, parts.system.now())}"
    known = ", ".join(filter(None, (mode and f"{mode} mode", permissions, ends)))
    return Checked(True, sanitize(f"The key works. Key {name_of(mine)!r}: {known}."))


KINDS = {
    "live": "live",
    "test": "test (no sandbox: it acts on the same live connections)",
    "unknown": "of unknown kind, so treated as live",
}
_WIDTH = 13


@click.command(name="whoami")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def whoami(start: StartOptions, as_json: bool) -> int:
    """Show the account, where its key comes from and the mode, and make one read request to see whether the key works.

    \b
    Exit codes:
      0  the key works
      1  it does not, or Fastn could not be asked
      2  a setting is wrong, or there is no key
    """
    resolved = start.resolved()
    settings = resolved.settings
    parts = start.parts(settings)
    known: dict[str, JsonValue] = {
        "sandbox": start.sandboxed,
        "profile": settings.profile,
        "host": settings.host,
        **account(settings),
        "key": settings.key_kind,
        "key_from": resolved.key,
        "mode": "read-only" if settings.read_only else settings.mode,
        "policy": str(policy_file(settings, os.environ) or "") or None,
        "plan": str(settings.plan) if settings.plan else None,
    }
    if not as_json:
        said: dict[str, JsonValue] = known | {
            "sandbox": "in this process: nothing reaches Fastn" if start.sandboxed else None,
            "host": None if start.sandboxed else settings.host,
            "key": "the sandbox's own" if start.sandboxed else f"{KINDS[settings.key_kind]}, from {resolved.key}",
            "key_from": None,
            "policy": known["policy"] or "no file",
        }
        for name, value in said.items():
            if value is not None:
                click.echo(sanitize(f"{name:{_WIDTH}}{value}"))
    result = anyio.run(checked, parts)
    if as_json:
        click.echo(json.dumps(known | {"works": result.works, "said": result.said}, ensure_ascii=False))
    else:
        click.echo(result.said, err=not result.works)
    return 0 if result.works else 1


def account(settings: Settings) -> dict[str, JsonValue]:
    """What else says which account it is."""
    found = {
        "environment": settings.env,
        "space": settings.space_id,
        "tenant": settings.tenant_id,
        "organisation": settings.end_org_id,
    }
    return {name: value for name, value in found.items() if value}
