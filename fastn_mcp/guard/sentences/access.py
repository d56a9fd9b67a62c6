"""Sentences about runs, access and Fastn's AI, and the power of permissions."""

from dataclasses import replace
from typing import cast

from pydantic import JsonValue

from fastn_mcp.guard.sentences.facts import (
    MAX_FACTS,
    MAX_ON_BUTTON,
    Facts,
    items,
    joined,
    look_alikes,
    mapping,
    place,
    quoted,
    say,
    series,
    short_name,
    short_place,
    undo_words,
)
from fastn_mcp.ledger.question import UNCUT, Question
from fastn_mcp.records.formats import counted
from fastn_mcp.records.platform import PEOPLE
from fastn_mcp.records.rows import text, value, word
from fastn_mcp.redaction import quote, texts_in
from fastn_mcp.tools.ai import AiBuild


def run_workflow(facts: Facts) -> Question:
    arguments = facts.arguments
    where = place(facts)
    short_where = short_place(facts)
    whose = f" for customer {facts.owner}" if facts.owner else ""
    reference = arguments.get("customer_ref")
    if reference:
        whose = f" for customer {quoted(reference)}"
    installed = arguments.get("installation_id")
    if installed:
        whose += f" as installed by {quoted(installed)}"
    connectors = value(facts.row, "connectors")
    apps = [each if isinstance(each, str) else text(mapping(each), "name", "slug") for each in items(connectors)]
    reached = series(map(quoted, apps)) if all(apps) and 0 < len(apps) <= MAX_FACTS else "other systems"
    return Question(
        title=f"Run workflow {facts.name} now{where}{whose}.",
        button=f"Run {short_name(facts)}{short_where}",
        brief=f"Run {facts.name}{short_where}",
        then=f"Its effects in {reached} cannot be undone from here.",
        facts=(("Input", quote(quote(arguments["input"], UNCUT))),) if arguments.get("input") else (),
    )


def invite_user(facts: Facts) -> Question:
    email = quoted(facts.arguments.get("email"))
    role, unchecked = _role(facts, "role")
    sent = "An invitation e-mail goes out immediately and cannot be recalled."
    button = f"Invite as {role}" if len(role) <= MAX_ON_BUTTON else "Invite this person"
    brief = f"Invite {email} as {role}"
    then = f"{sent} {PEOPLE}"
    title = joined(f"Invite {email} as {role}.", look_alikes(facts.arguments.get("email")))
    return Question(title=title, button=button, brief=brief, then=then, unchecked=unchecked)


def _role(facts: Facts, argument: str) -> tuple[str, str]:
    """Return the name of the role that an argument gives by name or id, and a sentence if it could not be read."""
    role = facts.arguments.get(argument)
    name = facts.name_of("role", str(role))
    return quoted(name or role), "" if name or not role else f"The permissions of role {quoted(role)} were not checked."


def create_role(facts: Facts) -> Question:
    permissions = list(cast("list[str]", facts.arguments.get("permissions")) or ())
    parent, unchecked = _role(facts, "parent")
    count = counted(len(permissions), "permission")
    only = len(permissions) == 1
    powerful = [quote(each, UNCUT, is_name=True) for each in sorted(permissions, key=power) if power(each) <= 1]
    if any(each.strip() in _ALL_PERMISSIONS for each in permissions):
        can = f"with every permission ({quote('*')})"
    elif powerful:
        can = f"with {count}, {'a' if only else f'{len(powerful)} of them'} powerful{' one' if only else ''}"
        can += f": {series(powerful)}"
    else:
        are_harmless = all(power(each) == _HARMLESS_RANK for each in permissions)
        to_read = ", read-only" if only else ", all of them read-only"
        can = f"with {count}{to_read if are_harmless else ''}" if permissions else "without permissions"
    return say(
        facts,
        "Create",
        title=f"Create role {facts.name} {can}.",
        button=f"Create {short_name(facts, 'role')}",
        then=undo_words(facts),
        unchecked=unchecked,
        further=[("Has fewer permissions than", parent)] if facts.arguments.get("parent") else [],
    )


_ALL_PERMISSIONS = ("*", "*:*", "*.*")
_TERMS = {
    "30d": "valid for 30 days",
    "90d": "valid for 90 days",
    "1y": "valid for a year",
    "never": "without an expiry date",
}
_MODES = {"test": "Test", "live": "Live"}


def create_api_key(facts: Facts) -> Question:
    """Describe a new key. What is not given has Fastn's documented defaults."""
    arguments = facts.arguments
    defaults = facts.call.defaults
    mode = word(arguments, "mode") or word(defaults, "mode")
    role = text(arguments, "permissions") or defaults["permissions"]
    term = text(arguments, "expires") or defaults["expires"]
    is_full = word({"role": role}, "role") == "full access"
    extent = "full-access " if is_full else ""
    what = f"a {extent}{_MODES.get(mode, quoted(arguments.get('mode')))} API key {facts.name}"
    if not is_full:
        what += ": read only" if word({"role": role}, "role") == "viewer" else f": role {quoted(role)}"
    until = _TERMS.get(term.strip().lower(), f"valid until {quoted(term)}")
    does = "do everything in this account, including deletions" if is_full else "use it"
    live = "" if mode == "live" else " A test key is not a sandbox: it acts on your live connections."
    customers = arguments.get("customers")
    addresses = arguments.get("allowed_ips")
    names = [quoted(facts.name_of("customer", key) or key) for key in texts_in(customers)]
    allowed = [quoted(address) for address in texts_in(addresses)]
    further = [("Customers", series(names or ["all"])), ("IP addresses", series(allowed or ["any"]))]
    brief = f"Create {what}, {until}"
    button = f"Create {short_name(facts, 'full-access key' if is_full else 'key')}"
    then = f"Anyone with this key can {does}.{live} You can revoke it at any time."
    return Question(title=f"{brief}.", button=button, brief=brief, then=then, facts=tuple(further))


def ai_chat(facts: Facts) -> Question:
    return _ai(facts, "Ask Fastn's AI", _message(facts.arguments.get("message")))


def ai_build(facts: Facts) -> Question:
    kind = word(facts.arguments, "type")
    kind = kind if kind in ("connector", "workflow") else quoted(facts.arguments.get("type"))
    name = facts.arguments.get("name")
    what = f"a {kind} named {quoted(name)}" if name else f"a {kind}"
    question = _ai(facts, f"Let Fastn's AI build {what}", _message(facts.arguments.get("prompt")))
    return replace(question, button="Let it build", then=joined(question.then, "What it builds can be deleted."))


def _ai(facts: Facts, what: str, message: str) -> Question:
    button = "Ask Fastn's AI"
    then = "The AI asks before each change."
    if facts.call.arguments().get("session_id") is not None:
        what = "Answer Fastn's AI"
        button = "Send this answer"
        then = "Its changes have to be undone by hand."
    if facts.call.arguments().get("approval_mode") != "manual":
        what = _unasked(facts, what)
        button = "Let it act without asking"
        then = "Its changes have to be undone by hand."
    return Question(
        title=f"{what}: {message}.",
        button=button,
        brief=f"{what}: {message}",
        then=f"This spends AI credits. {then}",
    )


def _unasked(facts: Facts, what: str) -> str:
    """Say that Fastn's AI makes changes without asking."""
    if isinstance(facts.call, AiBuild):
        return f"{what}, and make changes without asking"
    return "Let Fastn's AI make changes without asking"


def _message(content: JsonValue) -> str:
    return quote(content if isinstance(content, str) else "")


_HARMLESS_RANK = 3
"""Rank of a permission that only reads."""
_HARMLESS_VERBS = frozenset({"read", "view", "list", "get"})
_CHANGING_VERBS = frozenset({"create", "write", "update", "edit", "run", "execute", "delete", "manage"})
_ORDINARY_RESOURCES = frozenset(
    {"customers", "connectors", "connections", "workflows", "triggers", "executions", "usage", "audit"}
)


def power(permission: JsonValue) -> int:
    """Rank a permission from 0 (everything) to `_HARMLESS_RANK`. An unknown one counts as powerful."""
    resource, _, verb = str(permission).casefold().replace(".", ":").rpartition(":")
    if "*" in str(permission):
        return 0
    if resource not in _ORDINARY_RESOURCES or verb not in _HARMLESS_VERBS | _CHANGING_VERBS:
        return 1
    return _HARMLESS_RANK if verb in _HARMLESS_VERBS else 2
