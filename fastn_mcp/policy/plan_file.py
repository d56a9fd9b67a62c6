"""Read a plan: its keys and values, and its signatures, made over its exact bytes by an SSH key.

Signatures are stored beside the plan, in `PLAN.sig`; the public keys of trusted signers in a file of the operator's.
"""

import base64
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, Field, JsonValue, TypeAdapter

from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, Key, TomlSource, load, read, validate
from fastn_mcp.errors import SettingsError, nearest
from fastn_mcp.policy.conditions import NAME, NEW_NAME, Choice
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.plan import Plan, PlanAccount
from fastn_mcp.policy.schema import CHANGING_TOOLS, condition
from fastn_mcp.tools.bounds import size_problem
from fastn_mcp.tools.catalog import OPERATIONS, AnyOperation
from fastn_mcp.tools.fields import JsonObject
from fastn_mcp.tools.tool import Effect

_ANY = "any"
_ARGUMENTS = TypeAdapter[dict[str, JsonValue]](JsonObject)
MAX_DAYS = 90
"""Maximum validity of a plan, in days from its use or signature."""


class _PlanTable(BaseModel):
    model_config = STRICT


class Allow(_PlanTable):
    """`[[allow]]`."""

    tool: str
    target: Annotated[list[str], ONE_OR_MORE] = []
    arguments: dict[str, Any] | str | None = None
    when: dict[str, Any] | None = None
    count: Annotated[int, Field(ge=1, le=10_000)] = 1


class PlanForm(_PlanTable):
    """The whole file."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    account: str
    begins: datetime | None = None
    until: datetime
    reason: str = ""
    allow: Annotated[list[Allow], Field(min_length=1, max_length=1_000)]


def plan(table: Mapping[str, Any], source: TomlSource) -> Plan:
    """Build the plan that a file contains, as nobody has signed it. Raises `ConfigError`."""
    form = validate(PlanForm, table, source)
    for name in ("begins", "until"):
        moment = getattr(form, name)
        if moment is not None and moment.tzinfo is None:
            raise ConfigError((name,), f"{name}: must have an offset, for example 2026-12-01T18:00:00Z")
    return Plan(
        name=form.name,
        account=form.account,
        begins=form.begins,
        until=form.until,
        digest=source.digest,
        signers=(),
        permits=tuple(_permit(number, allow, source) for number, allow in enumerate(form.allow)),
    )


def _permit(number: int, allow: Allow, source: TomlSource) -> Permit:
    at: Key = ("allow", number)
    operation = OPERATIONS.get(allow.tool)
    if operation is None or operation.effect is Effect.READ:
        near = nearest(allow.tool, (known.tool_name() for known in CHANGING_TOOLS))
        why = f"is none{near}" if operation is None else "only reads, which needs no plan"
        raise ConfigError((*at, "tool"), f"tool: {allow.tool!r} {why}")
    exact, conditions = _bounds(at, allow, operation)
    return Permit(
        name=f"plan {source.file} line {source.line(at)}",
        budget=f"plan {source.digest} {number}",
        tool=operation.tool_name(),
        targets=_targets(at, allow, operation),
        arguments=exact,
        conditions=conditions,
        count=allow.count,
        signers=0,
    )


def _targets(at: Key, allow: Allow, operation: AnyOperation) -> tuple[str, ...]:
    if operation.route.parameters and not allow.target:
        raise ConfigError(at, "[[allow]] needs a target: the id, or a pattern of ids")
    if allow.target and not operation.route.parameters:
        raise ConfigError(at, "target: this tool has none")
    for index, text in enumerate(allow.target):
        if not text.strip("*?[]! "):
            raise ConfigError((*at, "target", index), f"target: {text!r} limits nothing")
    return tuple(allow.target)


def _bounds(
    at: Key, allow: Allow, operation: AnyOperation
) -> tuple[Mapping[str, JsonValue] | None, Mapping[str, Choice] | None]:
    """Return the exact arguments, or the conditions on them."""
    takes = operation.model_fields.keys() - {*operation.route.parameters} - operation.ours()
    if allow.arguments is not None and allow.when is not None:
        raise ConfigError((*at, "when"), "when: arguments are given, so there is nothing left to compare")
    if allow.when is not None:
        choices = {
            name: condition((*at, "when", name), [operation], value, loosens=True) for name, value in allow.when.items()
        }
        return None, {NAME if name == NEW_NAME else name: choice for name, choice in choices.items()}
    if allow.arguments is None:
        if takes:
            raise ConfigError(at, f'[[allow]] needs arguments, when, or arguments = "{_ANY}"')
        return {}, None
    if allow.arguments == _ANY:
        return None, None
    try:
        arguments = _ARGUMENTS.validate_python(allow.arguments)
    except ValueError:
        wanted = f'a table that JSON can express (no dates), its JSON text, or "{_ANY}"'
        raise ConfigError((*at, "arguments"), f"arguments: must be {wanted}") from None
    problem = size_problem(operation, arguments)
    if problem:
        raise ConfigError((*at, "arguments"), f"arguments: {problem}")
    unknown = sorted(arguments.keys() - takes)
    if unknown:
        raise ConfigError(
            (*at, "arguments", unknown[0]), f"arguments: there is no {unknown[0]!r}{nearest(unknown[0], takes)}"
        )
    hidden = sorted(arguments.keys() & operation.secrets())
    if hidden:
        raise ConfigError((*at, "arguments", hidden[0]), f"arguments: {hidden[0]} is a secret, which no plan may hold")
    return arguments, None


_PURPOSE = b"fastn-mcp run plan, version 2\n"


class BadSignature(Exception):
    """Signatures that are missing, untrusted or invalid, with the reason."""


@dataclass(frozen=True, slots=True)
class Signature:
    by: str
    at: str
    """ISO 8601."""
    account: PlanAccount
    records: Mapping[str, str]
    """Fingerprints of the records that the plan's exact calls name, by `Record.key`."""
    value: str = ""
    """Base64."""


class _SignatureFile(BaseModel):
    """The whole file beside the plan."""

    signatures: tuple[Signature, ...]


def sign(
    data: bytes, by: str, at: datetime, account: PlanAccount, records: Mapping[str, str], key: Ed25519PrivateKey
) -> Signature:
    """Sign a plan's bytes for an account, and for the records that its calls name."""
    unsigned = Signature(by, at.isoformat(timespec="seconds"), account, records)
    return replace(unsigned, value=base64.b64encode(key.sign(_message(data, unsigned))).decode())


def written(signatures: tuple[Signature, ...]) -> bytes:
    return _SignatureFile(signatures=signatures).model_dump_json(indent=2).encode() + b"\n"


def parsed(data: bytes) -> tuple[Signature, ...]:
    """Parse signatures. Raises `BadSignature`."""
    try:
        return _SignatureFile.model_validate_json(data, strict=True).signatures
    except ValueError:
        raise BadSignature("the signatures file cannot be read") from None


def signers(
    data: bytes, signatures: tuple[Signature, ...], trusted: Mapping[str, str], account: PlanAccount
) -> tuple[str, ...]:
    """Verify every signature and return the names of the signers.

    Raises `BadSignature` if any one is invalid, or was made for another account.
    """
    if not signatures:
        raise BadSignature("it is not signed")
    for signature in signatures:
        known = trusted.get(signature.by)
        if known is None:
            raise BadSignature(f"{signature.by!r} may not sign")
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(known, validate=True))
            value = base64.b64decode(signature.value, validate=True)
            public.verify(value, _message(data, signature))
        except (InvalidSignature, ValueError):
            raise BadSignature(
                f"the signature of {signature.by!r} is invalid: the plan was edited, or signed with another key"
            ) from None
        if signature.account != account:
            raise BadSignature(f"{signature.by!r} signed it for {signature.account}, and this is {account}")
    return tuple(dict.fromkeys(signature.by for signature in signatures))


def new_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def sealed(key: Ed25519PrivateKey, passphrase: str) -> bytes:
    """Serialize a private key, encrypted with a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode()))


def opened(data: bytes, passphrase: str) -> Ed25519PrivateKey:
    """Decrypt a private key. Raises `BadSignature` if the passphrase is wrong or the data is not such a key."""
    try:
        key = load_pem_private_key(data, passphrase.encode())
    except (ValueError, TypeError):
        raise BadSignature("the key cannot be opened with this passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadSignature("it is not an Ed25519 key")
    return key


def public(key: Ed25519PrivateKey) -> str:
    """Return the public key in base64."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _message(data: bytes, signature: Signature) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    account = signature.account
    records = sorted(signature.records.items())
    return _PURPOSE + json.dumps([digest, signature.by, signature.at, account.name, account.digest, records]).encode()


KEYS = "plan-keys.toml"
"""File of public keys in the configuration folder."""


def signatures_of(path: Path) -> Path:
    return path.with_name(path.name + ".sig")


def unsigned(path: Path, program: CommandLine = PROGRAM) -> tuple[bytes, Plan]:
    """Load a plan without verifying signatures. Raises `SettingsError` with the command to run next."""
    data, _ = read(path, "plan", f"Correct the path, or write one: {program.to('plan', 'new')}")
    hint = f"Correct the line, then run: {program.to('plan', 'verify', str(path))}"
    return data, load(data, path, "plan", build=plan, hint=hint)


def signed(path: Path, keys: Path, account: PlanAccount, now: datetime, program: CommandLine = PROGRAM) -> Plan:
    """Load a plan that is valid for this account now. Raises `SettingsError` with the command to run next."""
    data, loaded = unsigned(path, program)
    to_sign = f"A person signs the plan with: {program.to('plan', 'approve', str(path), '--as')} NAME"
    content, _ = read(signatures_of(path), "file of signatures", to_sign)
    raise_unless_for(loaded, path, account.name, now)
    try:
        signatures = parsed(content)
        names = signers(data, signatures, trusted(keys, program), account)
    except BadSignature as error:
        raise SettingsError(f"{path}: {error}.", to_sign) from None
    permits = tuple(replace(each, signers=len(names)) for each in loaded.permits)
    return replace(loaded, signers=names, permits=permits, records=tuple(each.records for each in signatures))


def raise_unless_for(plan: Plan, path: Path, account: str, now: datetime) -> None:
    """Raise `SettingsError` unless a plan is for this account, and can be used or signed now."""
    if plan.account != account:
        raise SettingsError(f"{path} is for {plan.account}, and this is {account}.", "Make a plan for this account.")
    if now >= plan.until:
        raise SettingsError(f"{path} has expired: it was valid until {plan.until.isoformat()}.", "Make a new plan.")
    if plan.until - now > timedelta(days=MAX_DAYS):
        raise SettingsError(f"{path} is valid for more than {MAX_DAYS} days.", "Set an earlier `until`, and sign it.")


def trusted(path: Path, program: CommandLine = PROGRAM) -> dict[str, str]:
    """Load the public keys of trusted signers, by name. Raises `SettingsError`."""
    approve = program.to("plan", "approve")
    hint = f'It has a line for each signer: name = "public key". {approve} creates the first.'
    data, _ = read(path, "file of public keys", hint)
    return load(data, path, "file of public keys", build=_keys, hint=hint)


def _keys(table: Mapping[str, Any], _: TomlSource) -> dict[str, str]:
    names: dict[bytes, str] = {}
    for name, key in table.items():
        try:
            raw = base64.b64decode(key if isinstance(key, str) else "", validate=True)
        except ValueError:
            raw = b""
        if len(raw) != 32:
            raise ConfigError((name,), f"{name}: is not a public key of 32 bytes in base64")
        other = names.setdefault(raw, name)
        if other != name:  # one person would sign as two
            raise ConfigError((name,), f"{name} has the public key of {other}")
    return dict(table)


def with_key(text: str, name: str, key: str) -> str:
    """Add a public key to the text of a key file. Raises `ValueError` if the name has another key."""
    known = tomllib.loads(text)
    if known.get(name, key) != key:
        raise ValueError(name)
    return text if name in known else f'{text}"{name}" = "{key}"\n'
