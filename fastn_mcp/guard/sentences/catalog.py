"""Sentences of each tool and of a list, and the text to type for a list."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fastn_mcp.guard.sentences import access, changes
from fastn_mcp.guard.sentences.facts import (
    CHANGED_BACK,
    MAX_FACTS,
    MAX_HISTORY,
    Facts,
    joined,
    mapping,
    quoted,
    series,
    unchecked_words,
)
from fastn_mcp.ledger.question import Question
from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import details_of
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
            then=question.then.replace(CHANGED_BACK, "The undo can itself be undone."),
        )
    if facts.dependence.unchecked:
        question = replace(question, unchecked=joined(unchecked_words(facts), question.unchecked))
    details: Sequence[tuple[str, str]] = ()
    label = facts.resolved.label
    if label and facts.resolved.target is not None:
        details = details_of(kind_of(facts.call), facts.row, label)
    further = (*facts.history[:MAX_HISTORY], *question.facts)
    described = tuple((heading, value if value in _PLAIN else quoted(value)) for heading, value in details)
    return replace(question, facts=(*described, *further[:MAX_FACTS]))


def describe_list(calls: Sequence[Question]) -> Question:
    """Return the sentences about a list, from the questions on its calls."""
    lasting = [call for call in calls if not call.has_undo]
    losing = [call for call in calls if call.lost]
    partly = [call for call in losing if call.has_undo]
    unsure = [call for call in calls if call.unchecked]
    brief = f"Make {counted(len(calls), 'change')}"
    title = joined(
        f"{brief}.",
        f"{_numbers(lasting)} cannot be undone from here." if lasting else "",
        f"{_numbers(partly)} cannot be fully undone." if partly else "",
    )
    return Question(
        title=title,
        button=f"Make {'this change' if len(calls) == 1 else f'these {len(calls)} changes'}",
        brief=brief,
        lost=" ".join(f"{call.number}: {call.lost}" for call in losing),
        then="The calls are sent in this order." if len(calls) > 1 else "",
        unchecked=f"{_numbers(unsure)} {'was' if len(unsure) == 1 else 'were'} not fully checked." if unsure else "",
    )


def _numbers(calls: Sequence[Question]) -> str:
    """Name calls of a list by number: `Call 2`, `Calls 2 and 3`."""
    return f"Call{'' if len(calls) == 1 else 's'} {series(str(call.number) for call in calls)}"


def phrase(losing: Sequence[Question], count: int) -> str:
    """Return the short text to type for a list, for example `3 deletions`: its calls that destroy, or all `count`.

    The number comes first, since `delete 3` would read as an order to delete the third.
    """
    nouns = {_NOUNS.get(call.brief.partition(" ")[0].lower(), "change") for call in losing}
    return counted(len(losing) or count, nouns.pop() if len(nouns) == 1 else "change")


_PLAIN = frozenset(
    {"active", "inactive", "draft", "disabled", "pending", "live", "test", "test and live", "webhook", "none"}
)
"""Values of details that are words of Fastn's documentation or ours, and are not quoted."""

_NOUNS = {"delete": "deletion", "revoke": "revocation", "overwrite": "overwrite"}
"""By the verb of a call that destroys: what its calls are, for the text to type."""


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
