"""Sentences of each tool and of a list, and the text to type for a list."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fastn_mcp.guard.sentences import access, changes
from fastn_mcp.guard.sentences.facts import (
    MAX_FACTS,
    MAX_HISTORY,
    Facts,
    mapping,
    quoted,
    series,
)
from fastn_mcp.ledger.question import Question
from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import distinction
from fastn_mcp.tools.related_reads import documented_fields, kind_of


def describe(facts: Facts) -> Question:
    """Return the sentences about one call, as a question without the call itself. Raises `KeyError` if it has none."""
    question = _OF_TOOL[facts.call.tool_name()](facts)
    extra = [name for name in mapping(facts.arguments.get("extra")) if name not in documented_fields(facts.call)]
    if extra:
        are = "is" if len(extra) == 1 else "are"
        undocumented = f"and set {series(map(quoted, extra))}, which {are} not documented."
        question = replace(question, title=f"{question.title[:-1]} {undocumented}")
    if facts.pending:
        pending = ", ".join(map(quoted, facts.pending))  # uncut: nobody can approve what they could not read
        question = replace(question, then=f"Pending there: {pending}. {question.then}")
    if facts.undoes:
        question = replace(
            question,
            title=f"Undo {facts.undoes}: {question.title[0].lower()}{question.title[1:]}",
            button=f"Undo: {question.button}",
            brief=f"Undo: {question.brief}",
        )
    if facts.dependence.unchecked:
        unchecked = f"Not checked: {', '.join(facts.dependence.unchecked)}. {question.unchecked}"
        question = replace(question, unchecked=unchecked.strip())
    details: list[tuple[str, str]] = []
    label = facts.resolved.label
    if label and facts.resolved.target is not None:
        which = distinction(kind_of(facts.call), facts.row, label)
        if which:
            details.append(("Details", quoted(which)))
    further = (*details, *facts.history[:MAX_HISTORY], *question.facts)
    return replace(question, facts=further[:MAX_FACTS])


def describe_list(calls: Sequence[Question]) -> Question:
    """Return the sentences about a list, from the questions on its calls."""
    losing = [call for call in calls if call.lost]
    unsure = [str(call.number) for call in calls if call.unchecked]
    brief = f"Make {counted(len(calls), 'change')}"
    title = f"{brief}."
    if losing:
        numbers = series(str(call.number) for call in losing)
        title += f" Change{'s' if len(losing) > 1 else ''} {numbers} cannot be undone in full."
    return Question(
        title=title,
        button=f"Make {'this change' if len(calls) == 1 else f'these {len(calls)} changes'}",
        brief=brief,
        lost=" ".join(f"{call.number}: {call.lost}" for call in losing),
        then="They are sent in this order." if len(calls) > 1 else "",
        unchecked=f"Not checked in full: {series(unsure)}." if unsure else "",
    )


def phrase(losing: Sequence[Question], count: int) -> str:
    """Return the short text to type for a list, for example `delete 3`: its calls that destroy, or all `count`."""
    verbs = {call.brief.partition(" ")[0].lower() for call in losing}
    return f"{verbs.pop() if len(verbs) == 1 else 'change'} {len(losing) or count}"


_OF_TOOL: Mapping[str, Callable[[Facts], Question]] = {
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
