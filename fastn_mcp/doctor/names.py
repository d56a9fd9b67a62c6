"""Which names of fields may be told. An object can be keyed by a customer's name or an id, and those are data. Pure."""

import re

from pydantic import JsonValue

from fastn_mcp.doctor.contract import record_of
from fastn_mcp.tools import CATALOG

_LIKE_A_NAME = re.compile(r"_?[a-z][a-z_]*([A-Z][a-z_]*)*[0-9]?")
_LONGEST = 40


def _declared() -> frozenset[str]:
    found = {"data", "items", "results", "result", "item", "total", "limit", "offset", "nextCursor"}
    for operation in CATALOG:
        record = record_of(operation)
        found |= {operation.wire(name) for name in operation.model_fields} | {*record.columns, *record.model_fields}
    return frozenset(found)


DECLARED = _declared()
"""The names that this project uses itself."""


class Names:
    """Learns what values an account holds, and lets no name be told that is one of them."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def learn(self, value: JsonValue) -> None:
        """Every text in an answer is somebody's."""
        waiting: list[JsonValue] = [value]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                self._values.add(value.casefold())
            elif isinstance(value, list):
                waiting += value
            elif isinstance(value, dict):
                waiting += value.values()

    def may_be_told(self, name: str) -> bool:
        """Whether it is one that we use, or can only be the name of a field."""
        if name in DECLARED:
            return True
        like = _LIKE_A_NAME.fullmatch(name) is not None and len(name) <= _LONGEST
        return like and name.casefold() not in self._values
