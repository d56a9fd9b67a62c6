"""Short references in place of long composite ids: `ref_` and ten characters of the id's digest.

The ids of connections have 150 to 200 characters, and repeat the ids of the account, the connector and the customer.
Answers to questions have references instead, and each tool takes them. A reference is the same in every process, and
stands for an id of the account whose key the server uses: it is looked up among what was read of it.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.account.entries import read_contents
from fastn_mcp.client.cost import received
from fastn_mcp.errors import InvalidArgument, NotFound
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import work_on
from fastn_mcp.tools.tool import Tool

_LONG_ID = re.compile(rb'd":"(?<=(?:"id|_id|\wId)":")((?=[^":]+:)[A-Za-z0-9][\w.~:@+=-]{60,255})"')
"""A composite id of more than 60 characters, by the name of its field. Longer than 256 it could not be sent.

In JSON, such text with a colon in it stands within a string only, so that it can be replaced wherever it is. The
pattern begins with literal characters, for which an answer is searched four times as fast.
"""

_MAX_SHOWN = 60
"""Characters of an id up to which it is shown as it is."""

_MAX_KEPT = 20_000
"""Maximum number of ids kept by their reference; those shown first are dropped, and are looked up again."""

_KIND = "connection"
"""The kind of resource that has composite ids."""

_REFERENCE = re.compile(r"(?<!\w)ref_[a-z2-7]{10}(?!\w)")
_TAKES_REFERENCES = re.compile(r"(\A|_)(id|ids|query)\Z")
"""Names of arguments in which references are looked up."""

_HOLDS_CALLS = ("", "changes", "arguments")
"""Names of objects that are calls or hold them. What other objects hold is data, such as the input of a run."""

AnyCall = TypeVar("AnyCall", bound=Tool[Any])


def reference_to(id_: str) -> str:
    """Return the short reference to an id."""
    digest = base64.b32encode(hashlib.sha256(id_.encode()).digest()).decode()
    return f"ref_{digest[:10].lower()}"


def short_id(id_: str) -> str:
    """Return the reference to a long composite id, or any other id as it is."""
    return reference_to(id_) if len(id_) > _MAX_SHOWN and ":" in id_ else id_


class ShortIds:
    """The ids of an account whose references were given in answers."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    async def shortened(self, result: FastnObject) -> FastnObject:
        """Return an answer with a reference for each long id, wherever it is in it."""
        fields = type(result).model_fields
        items = {name: item for name, item in result if name not in fields or not fields[name].exclude}
        body = await self.shortened_body(items)
        return result if body is items else result.model_copy(update=body)

    async def shortened_body(self, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Return a JSON object with a reference for each long id, or the object itself if it has none."""
        shortened, ids = await work_on(received(), partial(_shortened, body))
        self._ids |= ids
        while len(self._ids) > _MAX_KEPT:
            del self._ids[next(iter(self._ids))]
        return shortened

    async def expanded(self, call: AnyCall, reads: AnswerReads) -> AnyCall:
        """Return a call with the ids that its references stand for. Raises `NotFound` if there is none."""
        if "ref_" not in call.model_dump_json():
            return call
        arguments = call.model_dump(exclude_unset=True)
        references = set[str]()

        def collect(match: re.Match[str]) -> str:
            references.add(match[0])
            return match[0]

        _replaced(arguments, collect)
        if not references:
            return call
        ids = {reference: self._ids[reference] for reference in references & self._ids.keys()}
        missing = references - ids.keys()
        if missing:
            ids |= await _looked_up(missing, reads)
        return type(call).model_validate(_replaced(arguments, lambda match: ids[match[0]]))


def _shortened(body: dict[str, JsonValue]) -> tuple[dict[str, JsonValue], dict[str, str]]:
    """Return a JSON object with a reference for each long id, and the ids by reference."""
    text = to_json(body)
    ids = dict[str, str]()
    for id_ in sorted({*_LONG_ID.findall(text)}, key=len, reverse=True):
        reference = reference_to(id_.decode())
        ids[reference] = id_.decode()
        text = text.replace(id_, reference.encode())
    return (cast("dict[str, JsonValue]", from_json(text)) if ids else body), ids


async def _looked_up(references: set[str], reads: AnswerReads) -> dict[str, str]:
    contents = await read_contents(_KIND, reads)
    ids: dict[str, str] = {}
    for reference in sorted(references):
        match [entry.id for entry in contents.entries if reference_to(entry.id) == reference]:
            case [id_]:
                ids[reference] = id_
            case []:
                read = "" if contents.complete else f" among the first {len(contents.entries)}"
                raise NotFound(
                    f"No {_KIND} has the short id {reference}{read}.",
                    f"Call list_{_KIND}s again, or with detail=full for whole ids.",
                )
            case several:
                raise InvalidArgument(
                    f"{len(several)} {_KIND}s have the short id {reference}.", f"Give the whole id: {several}"
                )
    return ids


def _replaced(value: Any, new: Callable[[re.Match[str]], str], name: str = "") -> Any:
    """Return a value with the `new` text in place of each reference in arguments that take them."""
    match value:
        case str() if _TAKES_REFERENCES.search(name):
            return _REFERENCE.sub(new, value)
        case dict() if name in _HOLDS_CALLS:
            return {key: _replaced(item, new, key) for key, item in cast("Mapping[str, JsonValue]", value).items()}
        case list() | tuple():
            return [_replaced(item, new, name) for item in cast("list[JsonValue]", value)]
        case _:
            return value
