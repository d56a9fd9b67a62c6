"""Judge every call of a crowd by what Fastn received, the replicas audited and the ledger stores.

A call without a response has to be settled by the records: it was sent, was not sent, or is known to be unknown.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.ledger import Ledger
from support.crowd import BROKEN, LEDGER_LOST, NOTHING_SENT, Book
from support.fleet import KEYS, Fleet


@dataclass
class Recorded:
    """Audit entries of one change over all replicas."""

    asked: list[int] = field(default_factory=list[int])
    """Which of them asked a person."""
    intents: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Which of them was about to send it, and its entry, unless the outcome says that it was not sent after all."""
    outcomes: list[str] = field(default_factory=list[str])


async def problems(fleet: Fleet, book: Book, ledger: Ledger, summary: Counter[str]) -> list[str]:
    """Return all inconsistencies. Counts go to `summary`."""
    wrong = list(book.wrong)
    for tenant, fastn in fleet.fastns.items():
        requests = fastn.heard()
        wrong += [f"the key of {tenant} is not {each['key']}" for each in requests if each["key"] != KEYS[tenant]]
        received = Counter(_named(request["body"]) for request in requests)
        recorded = _recorded(fleet, tenant, wrong)
        outcomes = {name: fates for (whose, name), fates in book.outcomes.items() if whose == tenant}
        wrong += [f"{tenant}: nobody asked for {name}" for name in received if name not in outcomes]
        for name, fates in outcomes.items():
            record = recorded.get(name, Recorded())
            wrong += [f"{name}: {problem}" for problem in _settled(fates, received[name], record)]
            granted = name in book.approved or name in book.formed
            if granted and "done" not in fates and not _accounted(fates, record):
                wrong.append(f"{name}: it was approved and never made: {fates}, {record}")
            summary["approved, and asked again since the ledger was lost in use"] += granted and not (
                {"done", BROKEN, "unknown_outcome"} & {*fates} or record.intents
            )
            summary["changes"] += 1
            summary["approved and made"] += granted and "done" in fates
            summary["begun on one and finished on another"] += bool(
                record.asked and record.intents and record.asked[0] != record.intents[0][0]
            )
            summary["cut off, and made"] += "done" not in fates and received[name] == 1
            summary["cut off, and not made"] += "done" not in fates and BROKEN in fates and received[name] == 0
    for name, id_ in book.approved.items():
        grant = await ledger.find(id_)
        if grant is None or grant.state is not RequestState.USED:
            fates = [outcome for (_, of), outcome in book.outcomes.items() if of == name]
            wrong.append(f"{name}: its approval is {grant and grant.state}: {fates}")
    return wrong


def _settled(fates: list[str], received: int, record: Recorded) -> list[str]:
    """Return what is inconsistent about one change."""
    wrong: list[str] = []
    possible = {"done", BROKEN, "unknown_outcome", *NOTHING_SENT}
    if not set(fates) <= possible:
        wrong.append(f"it ended as {set(fates) - possible}")
    if received > 1:
        wrong.append(f"Fastn heard it {received} times")
    if fates.count("done") > 1 or len(record.intents) > 1:
        wrong.append(f"it was made more than once: {fates}, {record}")
    if "done" in fates and (received != 1 or record.outcomes != ["done"]):
        wrong.append(f"it was done, Fastn heard it {received} times, and recorded is {record}")
    if received and not record.intents:
        wrong.append(f"Fastn heard it, and no replica had recorded that it would: {fates}")
    if set(fates) <= NOTHING_SENT and (received or record.intents):
        wrong.append(f"nothing was sent, it was said: {fates}, {record}")
    return wrong


def _accounted(fates: list[str], record: Recorded) -> bool:
    """Whether a missing result of an approved call is explained by the death of its replica or of the ledger."""
    return BROKEN in fates or LEDGER_LOST in fates or "unknown_outcome" in fates or bool(record.intents)


def _recorded(fleet: Fleet, tenant: str, wrong: list[str]) -> Mapping[str, Recorded]:
    """Collect the audit entries of all replicas by change. Problems of a file go to `wrong`."""
    all_: defaultdict[str, Recorded] = defaultdict(Recorded)
    for number, replica in enumerate(fleet.replicas):
        if (chain := replica.chain(tenant)) is not None and chain.broken is not None:
            wrong.append(f"the audit of {tenant} at replica {number}: {chain.broken}")
        names: dict[str, str] = {}
        for entry in replica.audit(tenant):
            if not entry["principal"].startswith(f"{fleet.provider.issuer}|{tenant}-"):
                wrong.append(f"the audit of {tenant} holds {entry['principal']}")
            name = _named(entry.get("arguments") or {})
            match entry["event"]:
                case "asked":
                    all_[name].asked.append(number)
                case "intent":
                    names[str(entry["n"])] = name
                    all_[name].intents.append((number, str(entry["n"])))
                case "outcome" if entry["outcome"] in NOTHING_SENT:
                    all_[names[entry["of"]]].intents.remove((number, entry["of"]))
                case "outcome":
                    all_[names[entry["of"]]].outcomes.append(entry["outcome"])
                case _:
                    pass
    return all_


def _named(body: Mapping[str, Any]) -> str:
    """Return the identifier of a change: the customer's name, or the input of the run."""
    given = body.get("input")
    return str(given["of"]) if given else str(body.get("name"))
