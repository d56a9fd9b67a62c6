"""The tools that the settings enable: what an answer may read, what an agent is shown, and what is suggested to it."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.errors import Disabled, FastnError
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.tool import Effect, Tool

_SUGGESTIONS = frozenset({"next", "more", "settle", "dependents", "if_they_agree", "otherwise"})
"""Names of fields that suggest a call: `{"tool": …, "arguments": …}`, `"tool(argument)"`, or a list of these."""

_CALL = re.compile(r"(\w+)\(")


class EnabledTools:
    """Which tools are enabled. Settings choose them by name, so that a read and a change of one kind can differ."""

    def __init__(self, disabled: Mapping[str, str]) -> None:
        """`disabled`: the tools that are not enabled, each with the setting that disables it."""
        self._disabled = disabled

    @property
    def are_limited(self) -> bool:
        """Whether any tool is disabled."""
        return bool(self._disabled)

    def check(self, call: Tool[Any]) -> None:
        """Raise `Disabled` if the tool of a call is not enabled."""
        name = call.tool_name()
        setting = self._disabled.get(name)
        if setting is not None:
            why = f"Disabled here by the setting {setting}."
            raise Disabled(why, f"It needs {name}, which only a person can enable.")

    def hides(self, toolset: str) -> bool:
        """Whether no tool that reads rows of this toolset is enabled. An agent is then told how many, and no names."""
        reads = _reads().get(toolset, ())
        return bool(reads) and all(name in self._disabled for name in reads)

    @property
    def hides_any(self) -> bool:
        """Whether rows of any kind are hidden from the agent."""
        return self.are_limited and any(map(self.hides, _reads()))

    def without_disabled(self, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Return an answer without suggestions of tools that are not enabled; the answer itself if all are."""
        return cast("dict[str, JsonValue]", self._filtered(body)) if self.are_limited else body

    def note_disabled(self, error: FastnError) -> None:
        """Take suggestions of tools that are not enabled out of an error, and say so where its text names one."""
        if not self.are_limited or isinstance(error, Disabled):
            return
        error.facts = self.without_disabled(error.facts)
        named = [name for name in dict.fromkeys(re.findall(r"\w+_\w+", error.next_step)) if name in self._disabled]
        if named:
            error.next_step = f"{error.next_step} Disabled here: {', '.join(named)}."
            error.args = (f"{error.args[0]} Disabled here: {', '.join(named)}.",)

    def _filtered(self, value: JsonValue) -> JsonValue:
        if isinstance(value, list):
            return [self._filtered(item) for item in value]
        if not isinstance(value, dict):
            return value
        fields: dict[str, JsonValue] = {}
        for name, item in value.items():
            if name not in _SUGGESTIONS:
                fields[name] = self._filtered(item)
            elif isinstance(item, list):
                left = [self._filtered(each) for each in item if not self._is_disabled(each)]
                if left:
                    fields[name] = left
            elif not self._is_disabled(item):
                fields[name] = self._filtered(item)
        return fields

    def _is_disabled(self, suggestion: JsonValue) -> bool:
        if isinstance(suggestion, dict):
            return suggestion.get("tool") in self._disabled
        named = _CALL.match(suggestion) if isinstance(suggestion, str) else None
        return named is not None and named[1] in self._disabled


@cache
def _reads() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the tools that read, by toolset."""
    reads: dict[str, tuple[str, ...]] = {}
    for operation in CATALOG:
        if operation.effect is Effect.READ:
            reads[operation.toolset()] = (*reads.get(operation.toolset(), ()), operation.tool_name())
    return reads
