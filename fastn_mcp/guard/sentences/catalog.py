"""Sentences of each tool, of a batch, and the text to type for a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fastn_mcp.guard.sentences import access, changes
from fastn_mcp.guard.sentences.facts import (
    MAX_FACTS,
    MAX_HISTORY,
    Facts,
    Sentences,
    mapping,
    quoted,
    series,
)
from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import distinction
from fastn_mcp.tools.related_reads import documented_fields, kind_of


def describe(facts: Facts) -> Sentences:
    """Return the sentences of one call. Raises `KeyError` for a tool without any."""
    sentences = _OF_TOOL[facts.call.tool_name()](facts)
    if extra := [name for name in mapping(facts.arguments.get("extra")) if name not in documented_fields(facts.call)]:
        are = "is" if len(extra) == 1 else "are"
        sentences = replace(
            sentences, first=f"{sentences.first[:-1]} and set {series(map(quoted, extra))}, which {are} not documented."
        )
    if facts.pending:
        pending = ", ".join(
            quoted(item) for item in facts.pending
        )  # uncut: nobody can approve what they could not read
        sentences = replace(sentences, then=f"Pending there: {pending}. {sentences.then}")
    if facts.undoes:
        first = f"Undo {facts.undoes}: {sentences.first[0].lower()}{sentences.first[1:]}"
        sentences = replace(
            sentences, first=first, button=f"Undo: {sentences.button}", brief=f"Undo: {sentences.brief}"
        )
    if kinds := facts.dependence.unchecked:
        sentences = replace(sentences, unchecked=f"Not checked: {', '.join(kinds)}. {sentences.unchecked}".strip())
    label, details = facts.resolved.label, list[tuple[str, str]]()
    if label and facts.resolved.target is not None and (which := distinction(kind_of(facts.call), facts.row, label)):
        details.append(("Details", quoted(which)))
    return replace(sentences, facts=(*details, *facts.history[:MAX_HISTORY], *sentences.facts)[:MAX_FACTS])


def describe_batch(calls: Mapping[int, Sentences]) -> Sentences:
    """Return the sentences of a batch, from those of its calls by number."""
    count, losing = len(calls), [number for number, each in calls.items() if each.lost]
    unsure = [str(number) for number, each in calls.items() if each.unchecked]
    these = f"Make {counted(count, 'change')}"
    if losing:
        first = f"{these}. Change{'s' if len(losing) > 1 else ''} {series(map(str, losing))} cannot be undone in full."
    else:
        first = f"{these}."
    return Sentences(
        first,
        button=f"Make {'this change' if count == 1 else f'these {count} changes'}",
        brief=these,
        lost=" ".join(f"{number}: {calls[number].lost}" for number in losing),
        then="They are sent in this order." if count > 1 else "",
        unchecked=f"Not checked in full: {series(unsure)}." if unsure else "",
    )


def phrase(losing: Sequence[Sentences], count: int) -> str:
    """Return the short text to type for a batch, for example `delete 3`: its calls that destroy, or all `count`."""
    verbs = {each.brief.partition(" ")[0].lower() for each in losing}
    return f"{verbs.pop() if len(verbs) == 1 else 'change'} {len(losing) or count}"


_OF_TOOL: Mapping[str, Callable[[Facts], Sentences]] = {
    "create_customer": changes.create_customer,
    "update_customer": changes.updated,
    "delete_customer": changes.delete_customer,
    "create_connector": changes.create_connector,
    "update_connector": changes.update_connector,
    "delete_connector": changes.delete_connector,
    "create_connection": changes.create_connection,
    "delete_connection": changes.delete_connection,
    "create_workflow": changes.create_workflow,
    "update_workflow": changes.update_workflow,
    "delete_workflow": changes.delete_workflow,
    "run_workflow": access.run_workflow,
    "create_trigger": changes.create_trigger,
    "update_trigger": changes.update_trigger,
    "delete_trigger": changes.delete_trigger,
    "invite_user": access.invite_user,
    "create_role": access.create_role,
    "create_api_key": access.create_api_key,
    "revoke_api_key": changes.revoke_api_key,
    "create_secret": changes.create_secret,
    "delete_secret": changes.delete_secret,
    "ai_chat": access.ai_chat,
    "ai_build": access.ai_build,
}
