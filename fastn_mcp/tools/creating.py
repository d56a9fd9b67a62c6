"""Creates that Fastn may take for an update of what has the same slug or name. Pure: no I/O."""

from typing import Generic

from fastn_mcp.operation import Operation, Record, Result


class Create(Operation[Result], Generic[Result]):
    """A create that is judged as an update of what it may overwrite."""

    def may_overwrite(self, row: Record) -> bool | None:
        """Whether this may overwrite `row`; None where the row does not say."""
        theirs = {_key(getattr(row, field, None)) for field in ("slug", "name")}
        ours = {_key(getattr(self, field, None)) for field in ("slug", "name")} - {""}
        if theirs & ours:
            return True
        return False if "" not in theirs else None


def _key(name: object) -> str:
    """A slug or name as it is compared: Fastn may derive the one from the other in a way that nobody has documented."""
    return "".join(letter for letter in name.casefold() if letter.isalnum()) if isinstance(name, str) else ""
