"""Sentences about deletions, and about secrets, whose overwriting is one."""

from dataclasses import replace

from fastn_mcp.fastn.names import counted, sentence
from fastn_mcp.fastn.rows import timestamp, word
from fastn_mcp.guard.sentences.facts import (
    Facts,
    Sentences,
    created_again,
    joined,
    listed,
    place,
    quoted,
    say,
    series,
    short_name,
    stops,
)

_ID_LOST = "Its id is lost for good."


def delete_customer(facts: Facts) -> Sentences:
    owned, are = list[str](), "is"
    for kind in ("connections", "secrets"):
        found = facts.found(kind)
        if found is not None:
            names = tuple(name.removesuffix(f" of {facts.plain}") for name in found.examples)
            owned.append(listed(replace(found, examples=names)))
        if kind in facts.dependence.unchecked:
            owned.append(f"all {'other ' if found else ''}{kind} that it has")
        if len(owned) > 1 or facts.may_have_several(kind):
            are = "are"
    lost = f"{sentence(series(owned))} {are} lost for good." if owned else _ID_LOST
    runs = facts.found("executions")
    history = (("History", counted(runs.count, "run", at_least=runs.more)),) if runs else ()
    return say(facts, "Delete", lost=lost, then=f"Triggers that it has stop. {created_again(facts)}", further=history)


def delete_connector(facts: Facts) -> Sentences:
    found, credentials = facts.found("connections"), ""
    if found is not None:
        each = "their customers have" if facts.may_have_several("connections") else "its customer has"
        credentials = f", and the credentials of {listed(found)}; {each} to authorise again"
    elif facts.may_have_several("connections"):
        credentials = ", and the credentials of all connections that it has"
    lost = f"Its actions and events are lost for good{credentials}."
    then = joined(stops(facts.found("workflows"), ""), stops(facts.found("triggers"), ""), created_again(facts))
    return say(facts, "Delete", lost=lost, then=then)


def delete_connection(facts: Facts) -> Sentences:
    whose = facts.owner or "Somebody"
    lost = f"Its credentials are lost for good. {whose} has to authorise again."
    return say(facts, "Delete", lost=lost, then=stops(facts.found("triggers"), ""))


def delete_workflow(facts: Facts) -> Sentences:
    then = joined(stops(facts.found("triggers")), "It can be restored, in the dashboard only.")
    return say(
        facts, "Move", first=f"Move workflow {facts.name} to Trash.", brief=f"To Trash: workflow {facts.name}",
        button=f"Move {short_name(facts)} to Trash", then=then,
    )  # fmt: skip


def delete_trigger(facts: Facts) -> Sentences:
    kind = word(facts.row, "type")
    lost = _ID_LOST if kind in ("scheduler", "app event") else "Its webhook address is lost for good."
    return say(facts, "Delete", lost=lost, then=created_again(facts))


def revoke_api_key(facts: Facts) -> Sentences:
    at = timestamp(facts.row, "lastUsedAt", "lastUsed")
    used = f"; it was last used {at:%Y-%m-%d %H:%M} UTC" if at else ""
    return say(facts, "Revoke", lost="It never works again.", then=f"Whatever uses it stops at once{used}.")


def create_secret(facts: Facts) -> Sentences:
    whose = f"{f' for customer {facts.owner}' if facts.owner else ''}{place(facts.given)}"
    source = facts.given.get("value_from_env")
    said = say(
        facts, "Store", first=f"Store secret {facts.name}{whose}.{facts.entered}",
        then="There is none of this name yet. It can be deleted again.",
        further=(("Value", f"from the server's variable {quoted(source)}"),) if source else (),
    )  # fmt: skip
    if facts.target is None:
        return said
    if not facts.row:
        unknown = "If there is one of this name already, its value is lost for good."
        return replace(said, lost=unknown, then="", unchecked="Could not be checked: whether there is one.")
    over = say(facts, "Overwrite", first=f"Overwrite secret {facts.name}{whose}.{facts.entered}", further=said.facts)
    return replace(over, lost="The old value is lost for good.")


def delete_secret(facts: Facts) -> Sentences:
    whose = f" of customer {facts.owner}" if facts.owner else ""
    return say(
        facts, "Delete", first=f"Delete secret {facts.name}{whose}.",
        lost="Its value is lost for good; somebody has to enter it again.",
        then=stops(facts.found("workflows"), "", does="fail"),
    )  # fmt: skip
