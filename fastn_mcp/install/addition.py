"""One entry that is added to a document, and errors that leave the document as it is."""

from dataclasses import dataclass
from typing import Any, cast

from fastn_mcp.errors import NOTHING_CHANGED, FastnError


@dataclass(frozen=True, slots=True)
class Addition:
    """`value` under `key` of the object at `path`; without a key, at the end of the list there."""

    path: tuple[str, ...]
    key: str | None
    value: Any


@dataclass(frozen=True, slots=True)
class Trace:
    """What is needed to take an addition out of a text that has changed since."""

    made: int | None = None
    """The objects from this step of the path on were made for it; 0 is the document."""
    blank: str | None = None
    """What stood in the empty object or list before."""
    added: str = ""
    """What was put to the end of the text."""


class UnreadableConfig(ValueError):
    """The text is not what its format says. Says where."""


class NoPlace(ValueError):
    """The text can be read, but what stands where the addition belongs cannot take it. Names it."""


def found(document: Any, addition: Addition) -> Any:
    """What is in a document where the addition would go; None where nothing is. In a list, an item of its id."""
    for step in addition.path:
        document = cast(dict[str, Any], document).get(step) if isinstance(document, dict) else None
    if addition.key is not None:
        return cast(dict[str, Any], document).get(addition.key) if isinstance(document, dict) else None
    items = cast(list[Any], document) if isinstance(document, list) else []
    return next((item for item in items if _id(item) == _id(addition.value)), None)


def with_(document: Any, addition: Addition) -> Any:
    """The document with the addition in it."""
    if addition.path:
        step, rest = addition.path[0], Addition(addition.path[1:], addition.key, addition.value)
        empty: Any = [] if addition.key is None and not rest.path else {}
        return {**document, step: with_(document.get(step, empty), rest)}
    return [*document, addition.value] if addition.key is None else {**document, addition.key: addition.value}


def without(document: Any, addition: Addition) -> Any:
    """The document without it; what led to it stays, be it empty."""
    if addition.path:
        if not isinstance(document, dict) or addition.path[0] not in document:
            return cast(Any, document)
        step, rest = addition.path[0], Addition(addition.path[1:], addition.key, addition.value)
        return {**cast(dict[str, Any], document), step: without(document[step], rest)}
    if addition.key is None:
        return [item for item in document if _id(item) != _id(addition.value)]
    return {name: value for name, value in document.items() if name != addition.key}


def pruned(document: Any, addition: Addition) -> Any:
    """The document without what would lead to the addition, as far as it is empty."""
    if not addition.path or not isinstance(document, dict) or addition.path[0] not in document:
        return cast(Any, document)
    step, rest = addition.path[0], Addition(addition.path[1:], addition.key, addition.value)
    inner = pruned(document[step], rest)
    others = {name: value for name, value in cast(dict[str, Any], document).items() if name != step}
    return {**others, step: inner} if inner else others


def _id(item: Any) -> Any:
    return cast(dict[str, Any], item).get("id") if isinstance(item, dict) else None


class NotInstalled(FastnError):
    """Nothing was written. Says what stood in the way, and what to do about it."""

    outcome = "not_installed"
    certainty = NOTHING_CHANGED
