"""A plan and its signatures, read from their files. What is wrong stops the start."""

import base64
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fastn_mcp.command_line import PROGRAM, CommandLine
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.plans import Plan
from fastn_mcp.guard.plans.form import plan
from fastn_mcp.guard.plans.signing import BadSignature, parsed, signers
from fastn_mcp.guard.strict_toml import Flaw, Source, load, read

KEYS = "plan-keys.toml"
"""Name of the file of public keys in the configuration folder."""


def _to_sign(path: Path, program: CommandLine) -> str:
    return f"A person signs it with: {program.to('plan', 'approve', str(path), '--as')} NAME"


def _to_verify(path: Path, program: CommandLine) -> str:
    return f"Correct it there, and check it: {program.to('plan', 'verify', str(path))}"


def _to_make(program: CommandLine) -> str:
    return f"Correct the path, or make one: {program.to('plan', 'new')}"


def signatures_of(path: Path) -> Path:
    """Where the signatures of a plan lie."""
    return path.with_name(path.name + ".sig")


def unsigned(path: Path, program: CommandLine = PROGRAM) -> tuple[bytes, Plan]:
    """The plan as it stands, whoever signed it. Raises `SettingsError`, which says what a person does at a shell."""
    data = read(path, "plan", _to_make(program))
    return data, load(data, path, "plan", lambda table, source: plan(table, source, ()), _to_verify(path, program))


def signed(path: Path, keys: Path, account: str, now: datetime, program: CommandLine = PROGRAM) -> Plan:
    """A plan that holds for this account now. Raises `SettingsError`, which says what a person does at a shell."""
    data = read(path, "plan", _to_make(program))
    beside = signatures_of(path)
    marks = read(beside, "file of signatures", _to_sign(path, program))
    try:
        who = signers(data, parsed(marks), trusted(keys, program))
    except BadSignature as error:
        raise SettingsError(f"{path}: {error}.", _to_sign(path, program)) from None
    found = load(data, path, "plan", lambda table, source: plan(table, source, who), _to_verify(path, program))
    if found.account != account:
        raise SettingsError(f"{path} is for {found.account}, and this is {account}.", "Make a plan for this account.")
    if now >= found.until:
        raise SettingsError(f"{path} has run out: it held until {found.until.isoformat()}.", "Make a new plan.")
    return found


def trusted(path: Path, program: CommandLine = PROGRAM) -> dict[str, str]:
    """The public keys of those who may sign, by name. Raises `SettingsError`."""
    approve = program.to("plan", "approve")
    hint = f'It holds a line for each who may sign: name = "public key". {approve} makes the first.'
    return load(read(path, "file of public keys", hint), path, "file of public keys", _keys, hint)


def _keys(table: Mapping[str, Any], _: Source) -> dict[str, str]:
    for name, key in table.items():
        try:
            good = isinstance(key, str) and len(base64.b64decode(key, validate=True)) == 32
        except ValueError:
            good = False
        if not good:
            raise Flaw((name,), f"{name}: is no public key, which is 32 bytes in base64")
    return dict(table)


def with_key(text: str, name: str, key: str) -> str:
    """The text of a file of public keys with one more. Raises `ValueError` where the name is taken by another."""
    known = tomllib.loads(text)
    if known.get(name, key) != key:
        raise ValueError(name)
    return text if name in known else f'{text}"{name}" = "{key}"\n'
