"""`fastn-mcp whoami`: the account, its key, what is asked first, and by one read whether the key works."""

import json
import os

import anyio
import click
from pydantic import JsonValue

from fastn_mcp.cli import Start
from fastn_mcp.cli.key_check import checked
from fastn_mcp.cli.starting import policy_file
from fastn_mcp.redaction import sanitize
from fastn_mcp.settings import Settings

KINDS = {
    "live": "live",
    "test": "test (no sandbox: it acts on the same live connections)",
    "unknown": "of no known kind, so taken as live",
}
_WIDTH = 13


def whoami(start: Start, *, as_json: bool) -> int:
    """Say it; the exit code. Raises `SettingsError`."""
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
