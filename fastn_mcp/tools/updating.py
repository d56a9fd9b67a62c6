"""Updates: only what is named may change. Pure: no I/O."""

from typing import Generic, Self

from pydantic import JsonValue, model_validator

from fastn_mcp.operation import Operation, Result

# Fastn keeps these itself; a merged update does not send them back.
_KEPT_BY_FASTN = frozenset({"id", "createdAt", "createdBy", "updatedAt", "updatedBy"})


class Update(Operation[Result], Generic[Result]):
    """What every update has in common."""

    @model_validator(mode="after")
    def _names_a_change(self) -> Self:
        given = {name for name, value in self.arguments().items() if name != "extra" or value}
        if not given - {*type(self).route.parameters, "version"}:
            raise ValueError("nothing to change was given")
        return self

    @staticmethod
    def merged(current: dict[str, JsonValue], changes: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """The whole resource with the changes made, since Fastn's `PUT` may replace what it is not given."""
        return {name: value for name, value in current.items() if name not in _KEPT_BY_FASTN} | changes
