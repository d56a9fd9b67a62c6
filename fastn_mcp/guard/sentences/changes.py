"""Sentences about creates, updates and deletions."""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from fastn_mcp.guard.sentences.facts import (
    CHANGED_BACK,
    Facts,
    field_words,
    fields_in_words,
    in_place,
    joined,
    listed,
    look_alikes,
    place,
    quoted,
    say,
    series,
    short_name,
    stops,
    undo_words,
)
from fastn_mcp.guard.undo import NotUndoable, Undo
from fastn_mcp.ledger.question import FieldChange, Question
from fastn_mcp.policy.conditions import host_of
from fastn_mcp.records import cron
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.records.platform import NO_CUSTOMER, PUBLIC, callers_of, is_webhook, webhook_authentication
from fastn_mcp.records.rows import Row, inside, key_of, objects, text, timestamp, word
from fastn_mcp.records.states import STATES, State
from fastn_mcp.redaction import texts_in
from fastn_mcp.tools.operation import Update
from fastn_mcp.tools.related_reads import documented_fields
from fastn_mcp.tools.tool import Effect

_MAX_VALUE = 80
"""Characters of a value that the title gives. Longer ones stand in the list of changes."""


def _changed_back(facts: Facts, back: str = CHANGED_BACK) -> tuple[str, str, str]:
    """Return what is lost by changing fields, what can be undone (`back` if all can), and what is not known."""
    changed = [each.field for each in facts.changes]
    missing = changed if isinstance(facts.undo, NotUndoable) else facts.undo.not_restored
    shown = [name for name in missing if facts.row.get(name) is not None]
    hidden = [name for name in missing if facts.row.get(name) is None]
    lost = f"The current {fields_in_words(facts, shown)} will be lost." if shown else ""
    unchecked = f"The current {fields_in_words(facts, hidden)} (not returned by Fastn) will be lost." if hidden else ""
    if isinstance(facts.undo, NotUndoable) and not changed:
        is_same = bool(facts.row) and isinstance(facts.call, Update)
        lost = "" if is_same else "Its current values will be lost."
        back = ""
    elif missing:
        back = "The rest can be changed back." if len(missing) < len(changed) else ""
    return lost, back, unchecked


def _created(facts: Facts, title: str, then: str) -> Question:
    """Describe a create, or the overwriting of what has its name or slug."""
    question = say(facts, "Create", title=title, then=then)
    if facts.resolved.target is None:
        return question
    if not facts.row:
        return replace(question, unchecked="Its name or slug may be taken: Fastn may overwrite something.")
    lost, back, unknown = _changed_back(facts)
    title = f"Overwrite the existing {facts.kind} {facts.name}."
    taken = f"The name or slug is taken by {quoted(key_of(facts.row))}."
    if back == CHANGED_BACK:
        back = "The earlier values can be restored."
    then = joined(taken, back, _uses(facts))
    return say(facts, "Overwrite", title=title, lost=lost, then=then, unchecked=unknown)


def _uses(facts: Facts) -> str:
    """Say how many connections use the target; empty if none does."""
    connections = facts.dependents("connections")
    return f"{sentence(connections.words())} {'uses' if connections.is_one else 'use'} it." if connections else ""


def _invited(facts: Facts) -> str:
    email = facts.arguments.get("admin_email")
    sent = f"An invitation e-mail to {quoted(email)} goes out immediately and cannot be recalled." if email else ""
    return joined(sent, look_alikes(email))


def create_customer(facts: Facts) -> Question:
    email = facts.arguments.get("admin_email")
    invites = f" and invite {quoted(email)}" if email else ""
    role = " as its administrator" if email else ""
    question = _created(facts, f"Create customer {facts.name}{invites}{role}.", "It can be deleted afterwards.")
    return replace(question, then=joined(question.then, _invited(facts)), button=f"{question.button}{invites}")


def create_connector(facts: Facts) -> Question:
    return _created(facts, f"Create private connector {facts.name}.", "It can be deleted afterwards.")


def updated(facts: Facts, back: str = CHANGED_BACK, *also: str) -> Question:
    lost, then, unknown = _changed_back(facts, back)
    if facts.arguments.get("admin_email") and then == CHANGED_BACK:
        then = "The change itself can be reverted."
    then = joined(*also, _uses(facts), then, _invited(facts))
    return say(facts, "Update", title=_change(facts), button=_button(facts), lost=lost, then=then, unchecked=unknown)


def _change(facts: Facts) -> str:
    """Say which fields change: `Rename …`, `Switch off …`, `Change plan of … from … to …`."""
    of = f"{facts.kind} {facts.name}"
    documented = documented_fields(facts.call)
    changes = {each.field: each for each in facts.changes if each.field in documented}
    if not changes:
        fields = sorted(facts.arguments.keys() - {*type(facts.call).route.parameters, "extra"})
        if not fields:
            return f"Update {of}."
        words = series(name.replace("_", " ") for name in fields)
        if not facts.row:
            return f"Set the {words} of {of}, which could not be read."
        return f"Set the {words} of {of} to the value{'s' if len(fields) > 1 else ''} that it already has."
    switch = ""
    if "status" in changes and (state := _state(facts, {"status": changes["status"].after})) is not State.UNKNOWN:
        del changes["status"]
        switch = f"Switch {'off' if state is State.OFF else 'on'} {of}"
    if not changes:
        return f"{switch}."
    what = _changes(facts, changes, "it" if switch else of)
    return f"{switch} and {what}." if switch else f"{sentence(what)}."


def _button(facts: Facts) -> str:
    """Return the label of the button for an update: `Rename …`, `Switch off …`, or else `Update …`."""
    fields = {each.field for each in facts.changes}
    verb = "Update"
    if fields == {"name"}:
        verb = "Rename"
    elif fields == {"status"}:
        state = _state(facts, {"status": facts.changes[0].after})
        verb = {State.OFF: "Switch off", State.LIVE: "Switch on"}.get(state, verb)
    return f"{verb} {short_name(facts)}"


def _state(facts: Facts, fields: Row) -> State:
    """Return the state that a status gives to a resource, by the values that are documented for its kind."""
    state_of = STATES.get(facts.call.toolset())
    state = state_of(fields) if state_of is not None else State.UNKNOWN
    return state if state in (State.LIVE, State.OFF) else State.UNKNOWN


def _changes(facts: Facts, changes: Mapping[str, FieldChange], of: str) -> str:
    if of == "it" and "schedule" in changes and changes.keys() <= {"schedule", "timezone"}:
        return f"run it {_schedule(changes['schedule'].after, facts.arguments.get('timezone'))}"
    if len(changes) > 1:
        return f"change {len(changes)} fields of {of}: {fields_in_words(facts, changes)}"
    (change,) = changes.values()
    field = change.field
    before = change.before
    after = change.after
    if field == "name":
        return f"rename {of} to {quoted(after)}"
    what = f"the {field_words(facts, field)} of {of}"
    if field == "code" or any(
        isinstance(each, (dict, list)) or len(str(each)) > _MAX_VALUE for each in (before, after)
    ):
        return f"change {what}"
    was, now = (_schedule(each) if field == "schedule" else quoted(each) for each in (before, after))
    if after is None:
        return f"clear {what}, which is {was}"
    return f"set {what} to {now}" if before is None else f"change {what} from {was} to {now}"


def _schedule(schedule: JsonValue, timezone: JsonValue = None) -> str:
    zone = f" ({quoted(timezone)})" if timezone else ""
    known = cron.words(schedule) if isinstance(schedule, str) else None
    return f"{known or f'on the schedule {quoted(schedule)}'}{zone}"


def update_connector(facts: Facts) -> Question:
    return updated(facts, CHANGED_BACK, "The change stays in test until it is published.")


def update_workflow(facts: Facts) -> Question:
    changed = facts.arguments.keys() - {"workflow_id", "name", "description"}
    only_switches = changed == {"status"} and _state(facts, facts.arguments) is not State.UNKNOWN
    publishes = "" if only_switches or not changed else "Fastn may or may not publish the new code, within minutes."
    return updated(facts, CHANGED_BACK, publishes)


def update_trigger(facts: Facts) -> Question:
    is_off = _state(facts, facts.arguments if "status" in facts.arguments else facts.row) is State.OFF
    changes_nothing = bool(facts.row) and not facts.changes
    is_renamed = facts.arguments.keys() <= {"trigger_id", "name", "description"}
    if facts.effect is not Effect.EXTERNAL or is_off or changes_nothing or is_renamed:
        return updated(facts)
    back = "The change can be undone; its runs cannot."
    after = {**facts.row, **facts.arguments}
    fires = f"It fires {_when(after)}." if is_webhook(after) else ""
    starts = "If it is active, the change takes effect immediately."
    if _state(facts, facts.row) is State.LIVE:
        starts = "The change takes effect immediately."
    elif _state(facts, facts.arguments) is State.LIVE:
        starts = "It is live from then on."
    return updated(facts, back, starts, fires, callers_of(after))


def create_connection(facts: Facts) -> Question:
    key = text(facts.arguments, "connector_id")
    app = facts.name_of("connector", key) or key
    whose = f"customer {facts.owner}" if facts.owner else "your own account (no customer)"
    typed = facts.resolved.typed
    has_credentials = "credentials" in facts.arguments or typed is not None
    is_unknown = typed and not typed.is_certain
    connector = facts.resolved.record("connector", key)
    row: Row = connector.row if connector and connector.row is not None else {}
    domain = text(row, "domain")
    visibility = text(row, "visibility")
    at = f" at {quoted(domain)}" if domain else ""
    is_like = "visibility not known" if row else "could not be read"
    if visibility:
        is_like = visibility.lower() if visibility.lower() in _VISIBILITIES else quoted(visibility)
    sent_to = quoted(domain) if domain else "an unknown address"
    hosts = [quoted(host) for host in _sign_in_hosts(row) if not f".{host}".endswith(f".{host_of(domain)}")]
    verb, existing, lost, undone, unchecked = _replaced_connection(facts)
    if is_unknown:
        unchecked = joined("Which credentials it takes was not checked.", unchecked)
    return Question(
        title=f"{verb} {quoted(app)}{at} for {whose}{existing}.{facts.entered}",
        button=f"{verb} {short_name(facts) if facts.owner else 'it'}",
        brief=f"{verb} {facts.name if facts.owner else quoted(app)}",
        lost=lost,
        then=joined("Workflows can use it immediately." if has_credentials else "", undone),
        unchecked=unchecked,
        facts=(("Connector", f"{is_like}; sends to {sent_to}"), *([("Signs in at", series(hosts))] if hosts else [])),
    )


_VISIBILITIES = ("private", "public", "managed")
"""Documented words for who can use a connector, which are not quoted."""


def _replaced_connection(facts: Facts) -> tuple[str, str, str, str, str]:
    """Return the verb, the connection that exists, what of it is lost, what undo does, and what is not known."""
    if facts.resolved.target is None:
        return "Connect", "", "", "It can be deleted afterwards.", ""
    if not facts.row:
        unchecked = "Whether a connection already exists was not checked. If one does, its credentials may be replaced."
        return "Connect", "", "", "", unchecked
    label = str(facts.resolved.label)
    status = text(facts.row, "status").upper()
    existing = f": connection {quoted(label)} exists{f' with status {quoted(status)}' if status else ''}"
    lost = f"The credentials of connection {quoted(label)} may be replaced: the current ones are then permanently lost."
    return "Reconnect", existing, lost, "Undo does not restore them, and deletes no connection that existed.", ""


def _sign_in_hosts(connector: Row) -> list[str]:
    """Return the hosts of the addresses in the auth methods of a connector, to which credentials go too."""
    texts = list[str]()
    for method in objects(connector, "authMethods"):
        config = inside(method, "config")
        texts += texts_in({name: each for name, each in config.items() if not name.casefold().startswith("scope")})
    hosts = (host_of(each) for each in texts if "//" in each.replace("\\", "/") or each.casefold().startswith("http"))
    return list(dict.fromkeys(filter(None, hosts)))


def create_workflow(facts: Facts) -> Question:
    then = (
        "It does not run until Fastn, or a person in the dashboard, publishes it. It can be moved to Trash afterwards."
    )
    return _created(facts, f"Create workflow {facts.name} as a draft.", then)


def create_trigger(facts: Facts) -> Question:
    trigger = {**facts.call.defaults, **facts.arguments}
    is_off = _state(facts, facts.arguments) is State.OFF
    state = f", {State.OFF.value}" if is_off else ""
    starts = _starts(facts)
    when = _when(trigger)
    of_type = "" if when else f" of type {quoted(text(trigger, 'type'))}"
    title = f"Create trigger {facts.name}{of_type}{state}: {joined(starts, when)}."
    if not starts:
        fires = f", which fires {when}" if when else ""
        title = f"Create trigger {facts.name}{of_type}{state}{fires}. It starts no workflow."
    then = "It is live once created. It can be deleted, but its runs cannot be undone."
    if is_off:
        then = "It does not fire until it is switched on. It can be deleted afterwards."
    unnamed = "" if facts.owner else NO_CUSTOMER
    return say(facts, "Create", title=title, then=joined(then, callers_of(trigger), unnamed))


def _starts(facts: Facts) -> str:
    """Say what a new trigger runs: `run workflow "a" in the live environment`; empty if nothing."""
    runs = list[str]()
    for route in objects(facts.arguments, "routes"):
        key = text(route, "routeId", "workflowId")
        name = facts.name_of("workflow", key) or key
        runs.append(f"{quoted(name)}{in_place(text(route, 'environment'))}")
    return f"run workflow{'s' if len(runs) > 1 else ''} {series(runs)}" if runs else ""


_WEBHOOK_CALLERS = {
    "api key": "whenever its URL is called with an API key",
    **dict.fromkeys(PUBLIC, "whenever anyone calls its URL"),
}
"""By the documented values of a webhook's authentication."""


def _when(arguments: Mapping[str, JsonValue]) -> str:
    """Say when a trigger fires; empty for a type that is not documented."""
    match word(arguments, "type"):
        case "scheduler":
            schedule = arguments.get("schedule")
            return _schedule(schedule, arguments.get("timezone")) if schedule else "on a schedule"
        case "webhook":
            unknown = "whenever its URL is called, perhaps by anyone"
            return _WEBHOOK_CALLERS.get(webhook_authentication(arguments), unknown)
        case "app event":
            events = list(map(quoted, texts_in(arguments.get("events"))))
            return f"whenever its app reports {' or '.join(events)}" if events else "whenever its app reports something"
        case _:
            return ""


def _itself(facts: Facts) -> str:
    """Say that a deleted record is lost, unless it can be created again: a new id alone is not a loss of data."""
    return "" if isinstance(facts.undo, Undo) else f"The {facts.kind} itself is permanently lost."


def delete_customer(facts: Facts) -> Question:
    owned = list[str]()
    are = "is"
    for kind in ("connections", "secrets"):
        dependents = facts.dependents(kind)
        if dependents is not None:
            names = [name.removesuffix(f" of {facts.plain}") for name in dependents.examples]
            owned.append(listed(replace(dependents, rows=tuple({"name": name} for name in names))))
        if kind in facts.dependence.unchecked:
            owned.append(f"all its {'other ' if dependents else ''}{kind}")
        if len(owned) > 1 or facts.may_have_several(kind):
            are = "are"
    lost = f"{sentence(series(owned))} {are} permanently lost." if owned else _itself(facts)
    runs = facts.dependents("executions")
    history = (("History", counted(runs.count, "run", at_least=runs.more)),) if runs else ()
    return say(facts, "Delete", lost=lost, then=f"Its triggers may stop. {undo_words(facts)}", further=history)


def delete_connector(facts: Facts) -> Question:
    connections = facts.dependents("connections")
    credentials = ""
    if connections is not None:
        each = "their owners have" if facts.may_have_several("connections") else "its owner has"
        credentials = f", and the credentials of {listed(connections)}; {each} to authorise again"
    elif facts.may_have_several("connections"):
        credentials = ", and the credentials of all its connections"
    lost = f"Its actions and events are permanently lost{credentials}."
    then = joined(stops(facts.dependents("workflows"), ""), stops(facts.dependents("triggers"), ""), undo_words(facts))
    return say(facts, "Delete", lost=lost, then=then)


def delete_connection(facts: Facts) -> Question:
    whose = facts.owner or "A person"
    lost = f"Its credentials are permanently lost. {whose} has to authorise again."
    stopped = stops(facts.dependents("triggers"), "") or "Triggers that use it stop."
    return say(facts, "Delete", lost=lost, then=stopped)


def delete_workflow(facts: Facts) -> Question:
    triggers = facts.dependents("triggers")
    then = undo_words(facts)
    if triggers is not None:
        live = (row for row in triggers.rows if row.get("state") != State.OFF.value)
        going_on = tuple(row for row in live if "also_starts" in row)
        stopping = tuple(row for row in triggers.rows if row not in going_on)
        others = replace(triggers, rows=going_on, count=len(going_on), more=False)
        go_on = ""
        if going_on:
            stay = "stays" if others.is_one else "stay"
            they_start = "it starts" if others.is_one else "they start"
            go_on = f"{sentence(listed(others))} {stay} on while any other workflow that {they_start} exists."
        then = joined(stops(replace(triggers, rows=stopping, count=triggers.count - len(going_on))), go_on, then)
    return Question(
        title=f"Move workflow {facts.name} to Trash.",
        button=f"Move {short_name(facts)} to Trash",
        brief=f"Move workflow {facts.name} to Trash",
        then=then,
    )


def delete_trigger(facts: Facts) -> Question:
    kind = word(facts.row, "type")
    lost = _itself(facts) if kind in ("scheduler", "app event") else "Its webhook URL is permanently lost."
    return say(facts, "Delete", lost=lost, then=undo_words(facts))


def revoke_api_key(facts: Facts) -> Question:
    at = timestamp(facts.row, "lastUsedAt", "lastUsed")
    used = f"; it was last used {at:%Y-%m-%d %H:%M} UTC" if at else ""
    return say(facts, "Revoke", lost="It never works again.", then=f"Everything that uses it stops immediately{used}.")


def create_secret(facts: Facts) -> Question:
    whose = f"{f' for customer {facts.owner}' if facts.owner else ''}{place(facts)}"
    source = facts.arguments.get("value_from_env")
    same = "secret has this name, customer and environment."
    lost = then = unchecked = ""
    if facts.resolved.target is None:
        then = f"No other {same} It can be deleted afterwards."
    elif facts.row:
        lost = "The old value is permanently lost."
    else:
        lost = "If Fastn mistakes another secret for this one, its value is permanently lost."
        unchecked = f"Whether another {same.removesuffix('.')} was not checked."
    verb = "Overwrite" if facts.row else "Store"
    return say(
        facts,
        verb,
        title=f"{verb} secret {facts.name}{whose}.{facts.entered}",
        lost=lost,
        then=then,
        unchecked=unchecked,
        further=(("Value", f"from the server's variable {quoted(source)}"),) if source else (),
    )


def delete_secret(facts: Facts) -> Question:
    whose = f" of customer {facts.owner}" if facts.owner else ""
    return say(
        facts,
        "Delete",
        title=f"Delete secret {facts.name}{whose}.",
        lost="Its value is permanently lost; a person has to enter it again.",
        then=stops(facts.dependents("workflows"), "", does="fail"),
    )
